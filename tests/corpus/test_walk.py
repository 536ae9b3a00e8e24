"""brivl_search.corpus.walk: what is found, what is passed over and why."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from brivl_search.corpus import kinds, walk
from brivl_search.corpus.walk import scan
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError
from tests.support import pictures


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(result: walk.Scan, root: Path) -> list[str]:
    return [os.path.relpath(image.path, root) for image in result.images]


def reasons(result: walk.Scan) -> dict[str, str]:
    return {os.path.basename(skipped.path): skipped.reason for skipped in result.skipped}


def test_finds_images_sorted_with_size_and_time(tmp_path: Path) -> None:
    wanted = ["a/z.PNG", "a.jpg", "b/c/d.JpEg", "b/x.webp", "k.tif", "m.jfif"]
    for name in wanted:
        touch(tmp_path / name, b"12345")
    touch(tmp_path / "notes.txt")
    touch(tmp_path / "jpg")
    touch(tmp_path / "b" / "captions.jsonl")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_234_567_891))
    result = scan([tmp_path])
    assert names(result, tmp_path) == sorted(wanted)
    by_name = {os.path.basename(image.path): image for image in result.images}
    assert by_name["a.jpg"].size == 5 and by_name["a.jpg"].mtime_ns == 1_234_567_891
    assert result.captions == [str(tmp_path / "b" / "captions.jsonl")]
    assert result.other_files == 2 and not result.skipped and not result.unreadable_dirs


def test_paths_are_absolute_below_the_root_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert [image.path for image in scan([Path("link")]).images] == [str(tmp_path / "link" / "a.jpg")]


def test_hidden_names_only_when_asked(tmp_path: Path) -> None:
    for name in (".hidden.jpg", ".cache/a.jpg", "._a.jpg", "a.jpg"):
        touch(tmp_path / name)
    assert names(scan([tmp_path]), tmp_path) == ["a.jpg"]
    assert len(scan([tmp_path], include_hidden=True).images) == 4
    assert len(scan([tmp_path / ".cache"]).images) == 1  # a root may be hidden


def test_odd_files_are_skipped_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    os.mkfifo(tmp_path / "captions.jsonl")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    touch(tmp_path / "empty.jpg", b"")
    touch(tmp_path / "good.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        cwd = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(cwd)
        result = scan([tmp_path])
    assert names(result, tmp_path) == ["good.jpg"]
    assert reasons(result) == {
        "fifo.jpg": "not a regular file",
        "captions.jsonl": "not a regular file",
        "socket.jpg": "not a regular file",
        "gone.png": "broken link",
        "self.png": "broken link",
        "empty.jpg": "empty file",
    }
    assert not result.captions and not result.unreadable_dirs


def test_links_to_folders_are_followed_once_and_real_places_win(tmp_path: Path) -> None:
    touch(tmp_path / "photos" / "real" / "a.jpg")
    touch(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "photos" / "aaa-link").symlink_to("real")
    (tmp_path / "photos" / "loop").symlink_to("..")
    (tmp_path / "photos" / "real" / "up").symlink_to("../..")
    (tmp_path / "photos" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "file-link.jpg").symlink_to("real/a.jpg")
    found = names(scan([tmp_path / "photos"]), tmp_path)
    assert "photos/real/a.jpg" in found and "photos/file-link.jpg" in found
    assert len([name for name in found if name.endswith("a.jpg")]) == 1
    assert len([name for name in found if name.endswith("b.jpg")]) == 1


def test_overlapping_roots(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "1.jpg")
    touch(tmp_path / "a" / "2.jpg")
    for roots in ([tmp_path / "a", tmp_path / "a" / "b"], [tmp_path / "a" / "b", tmp_path / "a", tmp_path / "a"]):
        assert names(scan(roots), tmp_path) == ["a/2.jpg", "a/b/1.jpg"]


def test_a_link_to_an_absent_disk_protects_what_was_beneath(tmp_path: Path) -> None:
    (tmp_path / "usb").symlink_to("/nowhere/at/all")
    assert scan([tmp_path]).unreadable_dirs == [str(tmp_path / "usb")]


def test_unreadable_folders_are_recorded(tmp_path: Path) -> None:
    if pictures.reads_everything(tmp_path):
        pytest.skip("root may read everything")
    touch(tmp_path / "locked" / "a.jpg")
    touch(tmp_path / "blind" / "b.jpg")
    (tmp_path / "locked").chmod(0)
    (tmp_path / "blind").chmod(0o444)
    try:
        result = scan([tmp_path])
    finally:
        (tmp_path / "locked").chmod(0o700)
        (tmp_path / "blind").chmod(0o700)
    assert result.unreadable_dirs == [str(tmp_path / "blind"), str(tmp_path / "locked")]
    assert reasons(result) == {"b.jpg": "permission denied"}


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "locked" / "a.jpg")
    touch(tmp_path / "b.jpg")
    real = os.scandir

    def refuse(path: str):  # type: ignore[no-untyped-def]
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", refuse)
    result = scan([tmp_path])
    assert names(result, tmp_path) == ["b.jpg"]
    assert result.unreadable_dirs == [str(tmp_path / "locked")]
    assert "cannot be read" in scan([tmp_path / "locked"]).describe_empty()


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb") as handle:
        handle.write(b"x")
    (image,) = scan([tmp_path]).images
    assert os.fsencode(image.path) == raw
    assert printable(image.path).endswith("caf\\xe9.jpg")


def test_wrong_roots(tmp_path: Path) -> None:
    file = touch(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"no such folder: .*nowhere: "):
        scan([tmp_path, tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"not a folder: .*a\.jpg"):
        scan([file])
    with pytest.raises(UsageError, match="no folder given"):
        scan([])
    with pytest.raises(CorpusError):
        scan(["nul\0byte"])


def test_describe_empty(tmp_path: Path) -> None:
    assert scan([tmp_path]).describe_empty() == f"{tmp_path} is empty"
    for i in range(12):
        touch(tmp_path / f"{i}.txt")
    assert f"{tmp_path} holds 12 files but no images (looked for " in scan([tmp_path]).describe_empty()
    touch(tmp_path / "a.jpg", b"")
    assert "skipped: 1 empty file" in scan([tmp_path]).describe_empty()


def test_heic_without_its_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "readable_kinds", lambda: (kinds.PICTURES,))
    touch(tmp_path / "a.HEIC")
    (skipped,) = scan([tmp_path]).skipped
    assert skipped.reason == "unsupported format" and "pillow-heif" in skipped.detail


def test_importing_the_walk_is_light() -> None:
    heavy = "numpy", "PIL", "torch", "pebble"
    code = f"import sys, brivl_search.corpus.walk; print([m for m in {heavy} if m in sys.modules])"
    root = Path(walk.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
