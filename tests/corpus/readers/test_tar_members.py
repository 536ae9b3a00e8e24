"""Which members of a tar are pictures: the same files as in a folder."""

from __future__ import annotations

from pathlib import Path

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.readers import open_dataset
from brivl_search.corpus.readers.base import Choice
from brivl_search.corpus.sources import DatasetChoice, find_sources
from brivl_search.corpus.walk import ImageFile, scan
from tests.support.datasets import write_tar
from tests.support.pictures import draw, encoded, jpeg

PNG = encoded(draw("blue", "ring"), "PNG")
MEMBERS = {
    "a.jpg": jpeg(),
    "no_ending": jpeg(),
    "wrong.png": jpeg(),
    "odd.dat": PNG,
    "unknown.xyz": PNG,
    "sub/deep": PNG,
    "notes.txt": b"words",
    "labels.cls": b"7",
    "empty_odd.xyz": b"",
    "raw.cr2": b"II*\0\x10\0\0\0CR\2\0",
    "film": b"\0\0\0\x18ftypisom" + b"\0" * 40,
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": jpeg(),
    "__MACOSX/a.jpg": jpeg(),
    "SYNOPHOTO_THUMB_M.jpg": jpeg(),
    "._a.jpg": b"\0\5\x16\7" + b"\0" * 60,
}


def test_a_tar_holds_the_pictures_that_its_folder_would(tmp_path: Path) -> None:
    for name, content in MEMBERS.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    file = write_tar(tmp_path / "x.tar", MEMBERS)
    inside = find_sources([file], DatasetChoice()).scan
    beside = scan([tmp_path / "folder"])
    found = [image.path.removeprefix(f"{file}::") for image in inside.images]
    assert found == [image.path.removeprefix(f"{tmp_path}/folder/") for image in beside.images]
    assert found == ["a.jpg", "no_ending", "odd.dat", "sub/deep", "unknown.xyz", "wrong.png"]
    assert inside.unread == beside.unread == {".cr2": 1, "videos": 1}
    assert inside.passed["@eaDir"] == inside.passed["__MACOSX"] == inside.passed["thumbnail"] == 1
    assert not [skip for skip in inside.skipped if skip.path.endswith("._a.jpg")]


def test_captions_of_members_without_an_ending(tmp_path: Path) -> None:
    file = write_tar(
        tmp_path / "x.tar",
        {"1": jpeg(), "1.txt": b"one", "2.img": PNG, "2.json": b'{"caption": "two", "n": 2}', "3.jpg": jpeg()},
    )
    with_captions = open_dataset(file, None, Choice())
    places = [one.path for one in with_captions.images() if isinstance(one, ImageFile)]
    assert [path.rpartition("::")[2] for path in places] == ["1", "2.img", "3.jpg"]
    lines = [line for line in with_captions.lines() if isinstance(line, CaptionLine)]
    assert [(line.image, line.captions) for line in lines] == [(places[0], ("one",)), (places[1], ("two",))]
    assert lines[1].fields == {"n": 2}
