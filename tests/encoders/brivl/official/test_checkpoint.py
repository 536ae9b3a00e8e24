"""Files of the published BriVL: how a file is recognised, old formats, fingerprints, damage, the vocabulary."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint
from brivl_search.encoders.brivl.official.convert import convert
from brivl_search.errors import EncoderError, UsageError
from tests.support.official import (
    TEXTS,
    Reference,
    tiny_fixture,  # noqa: F401 - the fixture `tiny`
    tiny_official,
    write_official,
)


def test_files_of_old_torch_and_of_other_wrappings(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """The format before torch 1.6, a bare state dict, DataParallel's prefix: the same vectors."""
    path, _ = tiny
    want = load_encoder(f"official:{path}", device="cpu", precision="fp32").encode_texts(TEXTS)
    write_official(tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = torch.load(path, weights_only=True)["learnable"]
    for name, raw in (("bare", state), ("parallel", {"learnable": {f"module.{n}": t for n, t in state.items()}})):
        torch.save(raw, tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.json").write_text(json.dumps(tiny_official()))
    for name in ("old", "bare", "parallel"):
        encoder = load_encoder(f"official:{tmp_path}/{name}.pth", device="cpu", precision="fp32")
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=1e-6)


def test_fingerprint_follows_weights_sizes_and_boxes(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    base = OfficialCheckpoint(str(path)).fingerprint
    write_official(tmp_path / "a.pth")
    assert OfficialCheckpoint(f"{tmp_path}/a.pth").fingerprint == base  # the same numbers elsewhere
    write_official(tmp_path / "b.pth", seed=1)
    assert OfficialCheckpoint(f"{tmp_path}/b.pth").fingerprint != base
    raw = tiny_official()
    raw["text"]["max_length"] = 12
    (tmp_path / "short.json").write_text(json.dumps(raw))
    assert OfficialCheckpoint(f"{path}@{tmp_path}/short.json").fingerprint != base
    (tmp_path / "x.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 1]]}\n')
    with_boxes = load_encoder(f"official:{path}+boxes={tmp_path}/x.jsonl")
    (tmp_path / "y.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 2]]}\n')
    other = load_encoder(f"official:{path}+boxes={tmp_path}/y.jsonl")
    assert len({base, with_boxes.fingerprint, other.fingerprint}) == 3
    assert load_encoder(with_boxes.name).fingerprint == with_boxes.fingerprint  # what an index remembers


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("owned",))


def test_what_is_not_a_brivl_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(tiny_official()))
    for name in ("nothing.pth", "x.pth@nothing.json"):
        (tmp_path / "x.pth").touch()
        with pytest.raises(UsageError, match="there is no file"):
            load_encoder(f"official:{tmp_path}/{name}")
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"learnable": Evil()}))
    with pytest.raises(EncoderError, match="cannot be read as a checkpoint of plain tensors"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    assert "owned" not in capsys.readouterr().out
    torch.save({"learnable": {"weight": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match=r"no tensors imgencoder\.\*"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    write_official(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-5000])
    with pytest.raises(EncoderError):
        load_encoder(f"official:{tmp_path}/x.pth").encode_texts(["dog"])


def test_weights_of_another_size_are_named(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    raw = tiny_official()
    raw["text"]["backbone"]["num_hidden_layers"] = 1
    (tmp_path / "c.json").write_text(json.dumps(raw))
    checkpoint = OfficialCheckpoint(f"{path}@{tmp_path}/c.json")
    with pytest.raises(EncoderError, match=r"does not fit tiny-official: .*backbone\.encoder\.layer\.1"):
        load_encoder(checkpoint.name).encode_texts(["dog"])
    with pytest.raises(EncoderError, match=r"text tower: there is no place for backbone\.encoder\.layer\.1"):
        convert(checkpoint, tmp_path / "out", towers=["text"])
    raw = tiny_official() | {"dim": 25}
    (tmp_path / "d.json").write_text(json.dumps(raw))
    with pytest.raises(EncoderError, match=r"head\.fc1\.bias is \(24,\), not \(25,\)"):
        convert(OfficialCheckpoint(f"{path}@{tmp_path}/d.json"), tmp_path / "out")


def test_vocabulary_beside_the_file_or_a_way_out(
    tiny: tuple[Path, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    moved = tmp_path / "alone.pth"
    moved.write_bytes(path.read_bytes())
    moved.with_suffix(".json").write_text(json.dumps(tiny_official()))
    with pytest.raises(EncoderError, match=r"put its vocab\.txt beside the checkpoint, or set HF_ENDPOINT"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(200))]))
    with pytest.raises(EncoderError, match="a vocabulary of 204 words for 120 word embeddings"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])
