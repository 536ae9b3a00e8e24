"""brivl_search.corpus.rules: what a walk passes over, and that it is counted."""

from __future__ import annotations

import os
from pathlib import Path

from brivl_search.corpus.rules import Rules
from brivl_search.corpus.walk import scan
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
