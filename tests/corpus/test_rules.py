"""brivl_search.corpus.rules: what a walk passes over, and that it is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brivl_search.corpus import walk
from brivl_search.corpus.rules import Rules
from brivl_search.corpus.walk import scan
from brivl_search.errors import UsageError
from tests.support.pictures import draw, encoded


def photo(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(draw("red", "circle", seed=number), "JPEG"))
    return path


def test_what_systems_keep_is_passed_over_and_counted(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 1)
    passed = (
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg @eaDir/a.jpg/x.jpg #recycle/b.jpg $RECYCLE.BIN/c.jpg lost+found/d.jpg "
    )
    passed += ".thumbnails/e.jpg App/.nomedia App/f.jpg SYNOFILE_THUMB_M.jpg"
    for name in passed.split():
        photo(tmp_path / name, 2)
    found = scan([tmp_path])
    assert [os.path.basename(image.path) for image in found.images] == ["a.jpg"]
    assert found.passed == {
        "@eaDir": 1, "#recycle": 1, "$RECYCLE.BIN": 1, "lost+found": 1, ".thumbnails": 1, ".nomedia": 1
    }  # fmt: skip
    assert len(scan([tmp_path / "#recycle"]).images) == 1  # named, it is taken


def test_excludes_and_ignore_files(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.PNG", "drafts/b.jpg", "deep/drafts/c.jpg", "deep/keep.jpg", "deep/e.jpg", "é/n.jpg"):
        photo(tmp_path / name, 1)

    def left(*patterns: str) -> list[str]:
        found = scan([tmp_path], rules={str(tmp_path): Rules(exclude=patterns)})
        return sorted(os.path.relpath(image.path, tmp_path) for image in found.images)

    assert left("*.png") == sorted(
        ["a.jpg", "drafts/b.jpg", "deep/drafts/c.jpg", "deep/keep.jpg", "deep/e.jpg", "é/n.jpg"]
    )
    assert "deep/drafts/c.jpg" in left("/drafts/") and "drafts/b.jpg" not in left("/drafts/")
    assert left("drafts", "e\u0301/") == sorted(["A.PNG", "a.jpg", "deep/e.jpg", "deep/keep.jpg"])
    (tmp_path / "deep" / ".brivlignore").write_text("*.jpg\n!keep.jpg\n")
    assert left() == sorted(["A.PNG", "a.jpg", "deep/keep.jpg", "drafts/b.jpg", "é/n.jpg"])


def test_patterns_that_keep_something_out_are_told(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "drafts/c.jpg", "drafts/d.gif"):
        photo(tmp_path / name, 1)
    given = ("*.PNG", "drafts/", "*.gif", "nope", str(tmp_path / "a.jpg"), "# words", "", "/a.jpg ")
    found = scan([tmp_path], rules={str(tmp_path): Rules(exclude=given)})
    assert found.patterns_used == {"*.PNG", "drafts/", "/a.jpg "} and not found.images


def test_an_ignore_file_that_is_no_text_is_not_passed_by(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 1)
    photo(tmp_path / "私人" / "b.jpg", 2)
    ignore = tmp_path / ".brivlignore"
    for codec, name in (("gbk", "GBK"), ("utf-16", "UTF-16")):
        ignore.write_bytes("私人/\n草稿/\n".encode(codec))
        with pytest.raises(UsageError, match=rf"\.brivlignore: not UTF-8 text, it seems to be {name}: save it"):
            scan([tmp_path])
    ignore.write_bytes("私人/\r\n".encode("utf-8-sig"))
    assert [os.path.basename(image.path) for image in scan([tmp_path]).images] == ["a.jpg"]
    ignore.unlink()
    ignore.mkdir()
    assert len(scan([tmp_path]).images) == 2


def test_a_folder_whose_ignore_file_cannot_be_read_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "a.jpg", 1)
    photo(tmp_path / "p" / "b.jpg", 2)
    (tmp_path / "p" / ".brivlignore").write_text("*")

    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(walk, "read_ignore_file", refuse)
    found = scan([tmp_path])
    assert [os.path.basename(image.path) for image in found.images] == ["a.jpg"]
    assert found.unreadable_dirs == [str(tmp_path / "p")]
