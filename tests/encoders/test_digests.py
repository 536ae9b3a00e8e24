"""Hashes of files, remembered for large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.encoders import digests
from brivl_search.errors import EncoderError


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 10)
    hashed: list[Path] = []
    real = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: (hashed.append(path), real(path))[1])
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"x" * 11)
    small.write_bytes(b"x")
    for _ in range(2):
        assert digests.file_sha256(large) == hashlib.sha256(b"x" * 11).hexdigest()
        digests.file_sha256(small)
    assert hashed == [large, small, small]
    large.write_bytes(b"y" * 12)
    assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    memory = next((tmp_path / "cache").rglob("*.json"))
    for damage in ("[]", "{"):
        memory.write_text(damage)
        assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(large))  # not a folder: nothing is remembered
    assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    with pytest.raises(EncoderError, match="cannot be read"):
        digests.file_sha256(tmp_path / "gone")
