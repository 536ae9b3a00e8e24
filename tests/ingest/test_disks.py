"""Another disk where a disk was, links to what is away, and folders that change places: nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brivl_search.corpus import disks
from brivl_search.errors import UsageError
from brivl_search.index import verify
from brivl_search.ingest.coverage import counted
from brivl_search.ingest.maintenance import move, remove
from tests.ingest.test_sources import added, names, photo, synced
from tests.support.building import build, images, texts
from tests.support.pictures import write_lines
from tests.support.stub import StubEncoder

Mounted = Callable[[Path, int], None]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "ix"


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Says that a folder lies on a disk of this number from now on."""
    numbers: dict[str, int] = {}
    real = disks.disk_of

    def disk_of(path: str) -> int:
        found = max((one for one in numbers if f"{path}/".startswith(f"{one}/")), key=len, default="")
        return numbers[found] if found else real(path)

    monkeypatch.setattr(disks, "disk_of", disk_of)
    return lambda folder, number: numbers.update({str(folder): number})


def test_another_disk_at_the_same_place_is_not_taken_for_the_first(
    tmp_path: Path, index: Path, encoder: StubEncoder, mounted: Mounted
) -> None:
    stick, drawer = tmp_path / "stick", tmp_path / "drawer"
    mounted(stick, 1)
    photo(stick / "1.jpg", 1)
    photo(stick / "sub" / "2.jpg", 2)
    write_lines(stick / "captions.jsonl", [{"image": "1.jpg", "en": "one"}])
    photo(tmp_path / "home" / "3.jpg", 3)
    build([stick, tmp_path / "home"], index, encoder)
    before = images(index)
    stick.rename(drawer)
    mounted(stick, 2)
    photo(stick / "other.jpg", 4)
    for _ in range(2):
        report = synced(index, encoder)
        assert images(index) == before and texts(index) == [("1.jpg", "en", "one")]
        assert report.vanished == report.embedded == 0
        (note,) = report.notes
        assert "stick is another disk now" in note and "its 2 images stay" in note and "`remove`" in note
        assert [source.present for source, _ in counted(index)] == [False, True]
    for named in (stick, stick / "sub"):
        named.mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=r"another disk now.*`remove`"):
            build(named, index, encoder)
    assert images(index) == before
    for at in (stick / "other.jpg", stick / "sub"):
        at.unlink() if at.is_file() else at.rmdir()
    stick.rmdir()
    drawer.rename(stick)
    mounted(stick, 1)
    report = synced(index, encoder)
    assert images(index) == before and report.embedded == 0 and not report.notes
    assert all(source.present for source, _ in counted(index))


def test_remove_is_the_way_out_to_the_new_disk(
    tmp_path: Path, index: Path, encoder: StubEncoder, mounted: Mounted
) -> None:
    mounted(tmp_path / "stick", 1)
    photo(tmp_path / "stick" / "1.jpg", 1).rename(photo(tmp_path / "stick" / "0.jpg", 2))
    build(tmp_path / "stick", index, encoder)
    mounted(tmp_path / "stick", 2)
    (tmp_path / "stick" / "0.jpg").rename(tmp_path / "stick" / "9.jpg")
    remove(index, paths=[tmp_path / "stick"])
    build(tmp_path / "stick", index, encoder)
    assert names(index) == ["9.jpg"]


def test_the_same_files_on_a_new_disk_are_the_same_folder(
    tmp_path: Path, index: Path, encoder: StubEncoder, mounted: Mounted
) -> None:
    mounted(tmp_path / "stick", 1)
    photo(tmp_path / "stick" / "1.jpg", 1)
    photo(tmp_path / "stick" / "2.jpg", 2)
    build(tmp_path / "stick", index, encoder)
    mounted(tmp_path / "stick", 2)  # a larger one, to which all was copied
    (tmp_path / "stick" / "1.jpg").unlink()
    assert synced(index, encoder).vanished == 1 and names(index) == ["2.jpg"]


def test_another_disk_below_a_folder_is_not_looked_into(
    tmp_path: Path, index: Path, encoder: StubEncoder, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb = tmp_path / "media" / "usb"
    photo(tmp_path / "media" / "a.jpg", 1)
    photo(usb / "b.jpg", 2)
    real = os.stat

    def stat(path: str | Path, *arguments: int, **options: bool) -> os.stat_result:
        found = real(path, *arguments, **options)
        if os.fspath(path) != str(usb):
            return found
        return os.stat_result([*found[:2], found.st_dev + 1, *found[3:]])

    monkeypatch.setattr(os, "stat", stat)
    mounted(usb, 1)
    build(tmp_path / "media", index, encoder)
    assert names(index) == ["a.jpg", "b.jpg"]
    (usb / "b.jpg").rename(tmp_path / "b.jpg")
    photo(usb / "junk.jpg", 3)
    mounted(usb, 2)
    photo(tmp_path / "media" / "c.jpg", 4)
    for folders in ((), (tmp_path / "media",), ()):
        report = build(folders, index, encoder) if folders else synced(index, encoder)
        assert names(index) == ["a.jpg", "c.jpg", "b.jpg"] and report.vanished == 0
        assert any("usb is another disk now" in note and "its image stays" in note for note in report.notes)
    (usb / "junk.jpg").unlink()
    (tmp_path / "b.jpg").rename(usb / "b.jpg")
    mounted(usb, 1)
    assert not synced(index, encoder).notes and names(index) == ["a.jpg", "c.jpg", "b.jpg"]


def test_a_single_file_on_a_disk_stays_while_another_disk_is_there(
    tmp_path: Path, index: Path, encoder: StubEncoder, mounted: Mounted
) -> None:
    photo(tmp_path / "home" / "3.jpg", 3)
    build(tmp_path / "home", index, encoder)
    mounted(tmp_path / "stick", 1)
    added(photo(tmp_path / "stick" / "1.jpg", 1), index, encoder)
    mounted(tmp_path / "stick", 2)
    (tmp_path / "stick" / "1.jpg").rename(tmp_path / "stick" / "9.jpg")
    report = synced(index, encoder)
    assert names(index) == ["3.jpg", "1.jpg"] and report.vanished == 0
    mounted(tmp_path / "stick", 1)
    assert synced(index, encoder).vanished == 1


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Mounts an empty disk at a folder; the tests that ask for it need root."""
    done: list[Path] = []

    def at(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        call = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(call, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root")
        done.append(folder)

    if not hasattr(os, "geteuid"):
        pytest.skip("no mount here")
    yield at
    for folder in reversed(done):
        subprocess.run(["umount", str(folder)], check=True)


def test_real_disks(tmp_path: Path, index: Path, encoder: StubEncoder, mount: Callable[[Path], None]) -> None:
    stick, usb = tmp_path / "stick", tmp_path / "home" / "usb"
    mount(stick)
    mount(usb)
    photo(stick / "1.jpg", 1)
    photo(usb / "2.jpg", 2)
    photo(tmp_path / "home" / "3.jpg", 3)
    build([stick, tmp_path / "home"], index, encoder)
    before = images(index)
    mount(stick)
    mount(usb)
    photo(stick / "o.jpg", 4)
    photo(usb / "o.jpg", 5)
    report = synced(index, encoder)
    assert images(index) == before and report.vanished == report.embedded == 0
    assert sum("another disk now" in note for note in report.notes) == 2


def test_a_link_to_a_file_that_is_away_stays(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    photo(tmp_path / "disk" / "b.jpg", 2)
    link = tmp_path / "p" / "b.jpg"
    link.symlink_to(tmp_path / "disk" / "b.jpg")
    build(tmp_path / "p", index, encoder)
    (tmp_path / "disk").rename(tmp_path / "away")
    report = synced(index, encoder)
    assert names(index) == ["a.jpg", "b.jpg"] and report.vanished == 0 and report.kept_unreadable == 1
    assert [skip.reason for skip in report.skipped] == ["broken link"]
    link.unlink()
    assert synced(index, encoder).vanished == 1 and names(index) == ["a.jpg"]


def test_two_folders_change_places(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    photo(a / "1.jpg", 1)
    photo(a / "both.jpg", 2)
    photo(b / "3.jpg", 3)
    photo(b / "both.jpg", 4)
    write_lines(a / "captions.jsonl", [{"image": "both.jpg", "en": "of a"}])
    write_lines(b / "captions.jsonl", [{"image": "both.jpg", "en": "of b"}])
    build([a, b], index, encoder, exclude=("*.png",))
    build(b, index, encoder, exclude=("*.gif",))
    for round in range(2):
        a.rename(tmp_path / "t")
        b.rename(a)
        (tmp_path / "t").rename(b)
        with pytest.raises(UsageError, match=r"`sources` move \S*a \S*b \S*b \S*a"):
            move(index, a, b)
        if round:
            report = synced(index, encoder, moves=((str(a), str(b)), (str(b), str(a))))
        else:
            move(index, a, b, (b, a))
            report = synced(index, encoder)
        assert report.unchanged == 4 and report.reused == report.embedded == report.vanished == 0
        assert sorted(os.listdir(a)) == sorted(["captions.jsonl", *(os.path.basename(p) for p in images(index)[:2])])
        excluded = {source.path: source.options["exclude"] for source, _ in counted(index)}
        first, second = (["*.gif"], ["*.png"]) if not round else (["*.png"], ["*.gif"])
        assert excluded == {str(a): first, str(b): second}
        assert verify(index).ok and encoder.images == 4
        assert texts(index) == [("both.jpg", "en", "of a"), ("both.jpg", "en", "of b")]


def test_a_row_of_folders_moves_up(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    for number, name in enumerate("abc"):
        photo(tmp_path / name / f"{name}.jpg", number)
    build([tmp_path / name for name in "abc"], index, encoder)
    for old, new in ("cd", "bc", "ab"):
        (tmp_path / old).rename(tmp_path / new)
    move(index, *((tmp_path / "a", tmp_path / "b")), (tmp_path / "b", tmp_path / "c"), (tmp_path / "c", tmp_path / "d"))
    assert [path[-7:] for path in images(index)] == ["b/a.jpg", "c/b.jpg", "d/c.jpg"]
    assert synced(index, encoder).unchanged == 3
    with pytest.raises(UsageError, match="named twice"):
        move(index, tmp_path / "b", tmp_path / "x", (tmp_path / "b", tmp_path / "y"))
