"""Uploads on disk: durable before they are named, gone where they are refused, swept after a kill."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from brivl_search.index.lock import WriterLock
from brivl_search.server import Settings
from brivl_search.server.answers import uploads
from brivl_search.server.answers.uploads import kept, sweep
from tests.support import serving
from tests.support.pictures import jpeg
from tests.support.serving import keys_of

RED, BLUE = jpeg((60, 40), "red", "ring"), jpeg((60, 40), "blue", "ring")


def files(folder: Path) -> list[Path]:
    """All, hidden ones too."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


def test_file_and_folders_are_synced_before_the_index_hears_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        done.append((f"sync {kind}", os.readlink(f"/proc/self/fd/{handle}")))
        real_sync(handle)

    def replace(old: str, new: str) -> None:
        done.append(("rename", os.fspath(new)))
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    folder = tmp_path / "up" / "loads"
    with kept(folder, [RED], lambda path: True) as (path,):
        assert Path(path).read_bytes() == RED
        parent = os.path.dirname(path)
        # Each new folder in the one above it; then the content, then its name.
        assert [place for what, place in done if what == "sync folder"] == [
            str(tmp_path), str(tmp_path / "up"), str(folder), parent,
        ]  # fmt: skip
        assert [what for what, _ in done[-3:]] == ["sync file", "rename", "sync folder"]
        assert done[-2:] == [("rename", path), ("sync folder", parent)]
    assert files(folder) == [Path(path)]


def test_what_the_index_does_not_take_is_gone(tmp_path: Path) -> None:
    with kept(tmp_path, [RED, BLUE, RED], lambda path: path == red) as (red, blue, again):
        assert red == again and len([path for path in files(tmp_path) if path.suffix == ".jpg"]) == 2
    assert files(tmp_path) == [Path(red)]
    with pytest.raises(ZeroDivisionError), kept(tmp_path, [RED, BLUE], lambda path: False):
        raise ZeroDivisionError
    assert files(tmp_path) == [Path(red)]  # it was there before
    assert blue != red


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "d6").mkdir()
    with pytest.raises(OSError, match="No space"), kept(tmp_path, [RED], lambda path: False):
        pass
    assert files(tmp_path) == []


def _die(folder: Path, moment: str) -> None:
    if moment == "written":
        uploads.os.replace = lambda old, new: os._exit(9)  # type: ignore[attr-defined]
    with kept(folder, [RED], lambda path: False):
        os._exit(9)


@pytest.mark.parametrize(("moment", "left"), [("written", 2), ("named", 2)])
@pytest.mark.parametrize("held", [False, True])
def test_what_a_kill_leaves_is_swept(tmp_path: Path, moment: str, left: int, held: bool) -> None:
    with kept(tmp_path, [BLUE], lambda path: True) as (blue,):
        pass
    stranger = Path(blue).with_name("notes.tmp")
    stranger.write_text("not ours")
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path, moment))
    process.start()
    process.join()
    assert process.exitcode == 9 and len(files(tmp_path)) == 2 + left
    deleted = sweep(tmp_path, lambda path: held)
    named = moment == "named"
    assert deleted == (named and not held)
    assert len(files(tmp_path)) == 2 + (named and held) and stranger.exists() and Path(blue).exists()
    assert sweep(tmp_path, lambda path: False) == 0 and Path(blue).exists()


def test_a_folder_that_is_not_there_needs_no_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", lambda path: False) == 0


def test_refused_uploads_do_not_stay(tmp_path: Path) -> None:
    index, folder = serving.write_site(tmp_path, 3), tmp_path / "up"
    with serving.client(index, Settings(upload_dir=folder)) as client:
        lock = WriterLock(index)
        try:
            for picture in (RED, BLUE, jpeg((50, 50), "green", "cross")):
                assert client.post("/v1/items", files={"image": picture}).status_code == 409
        finally:
            lock.release()
        assert files(folder) == []
        (key,) = client.post("/v1/items", files={"image": RED}).json()["keys"]
        (kept_file,) = files(folder)
        lock = WriterLock(index)
        try:
            assert client.delete(f"/v1/items/{key}").status_code == 409
        finally:
            lock.release()
        assert files(folder) == [kept_file] and client.get(f"/v1/items/{key}/image").content == RED
        assert client.delete(f"/v1/items/{key}").status_code == 200 and files(folder) == []


def test_the_server_sweeps_when_it_starts(tmp_path: Path) -> None:
    index, folder = serving.write_site(tmp_path, 3), tmp_path / "up"
    process = multiprocessing.get_context("fork").Process(target=_die, args=(folder, "named"))
    process.start()
    process.join()
    assert len(files(folder)) == 2
    with serving.client(index, Settings(upload_dir=folder, read_only=True, warm=False)):
        assert len(files(folder)) == 2
    with serving.client(index, Settings(upload_dir=folder, warm=False)) as client:
        assert files(folder) == [] and keys_of(client)
