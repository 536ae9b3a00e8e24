"""The Python API, as its documentation shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import brivl_search
from brivl_search import Hit, api, open_index
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import IndexBusyError, IndexMissingError, NothingFitsWarning, UsageError
from brivl_search.index.lock import WriterLock
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.search import live
from tests.support.folders import REPO
from tests.support.pictures import draw, write_corpus
from tests.support.stub import Silent, StubEncoder
from tests.support.sure import sure

MATCH = Calibration(10.0, -5.0)


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: object) -> StubEncoder:
        encoder = StubEncoder(name)
        encoder.calibration = MATCH
        return encoder

    monkeypatch.setattr(live, "load_encoder", load)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_corpus(folder / "images", 30)
    build_index([folder / "images"], folder / "indexes" / "default", StubEncoder(), BuildOptions(workers=0), Silent())
    return folder


def test_queries(folder: Path) -> None:
    with open_index(folder / "indexes" / "default") as index:
        assert index.info.image.rows == 30 and index.damage == ()
        hits = index.query("a red circle", k=3)
        assert [hit.rank for hit in hits] == [1, 2, 3] and "red-circle" in hits[0].path
        assert isinstance(hits[0], Hit) and hits[0].match == pytest.approx(MATCH.probability(hits[0].score))
        assert hits[0].record["path"].endswith("red-circle.jpg")
        assert all("red" in hit.path for hit in index.query("a red circle", plus="0.3:a red ring", k=2))
        assert index.query("a red circle", plus=["a blue cross"], k=1)[0].match is None
        assert "blue-cross" in index.query(plus="a blue cross", minus=["0.2:a red ring"], k=1)[0].path
        sought = next(path for path in sorted(map(str, (folder / "images").rglob("*.jpg"))) if "green-ring" in path)
        picture = Image.open(sought)
        for one in (picture, [picture], hits[0].path, Path(hits[0].path).read_bytes(), np.asarray(picture)):
            assert index.query(image=one, target="images", k=1)[0].kind == "image"
        assert index.query(image=picture, target="images", k=1)[0].path == sought
        texts = index.query(image=picture, k=4)
        assert {hit.kind for hit in texts} == {"text"} and texts[0].text and texts[0].match is not None
        assert len(index.query("a red circle", glob="*-red-*", k=99)) == 5
        with pytest.warns(NothingFitsWarning, match="width=1: no image has this value"):
            assert index.query("a red circle", where={"width": "1"}) == []
        assert index.query("a red circle", min_score=0.99999, k=30) == []
        assert len(index.query("a red circle", min_match=0.9, k=30)) < 30
        folded = index.query("a red circle", dedupe=0.5, k=30)
        assert sum(1 + len(hit.duplicates) for hit in folded) == 30 and len(folded) < 30
        assert [hits[0] for hits in index.query_many(["a red circle", "a blue ring"], k=1)][1].path.endswith(".jpg")


def test_how_many_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubEncoder, "confidence", sure(), raising=False)
    with open_index(folder / "indexes" / "default") as index:
        hits = index.query("a red circle", k=30)
        found = index.count("a red circle")
        assert found.rows == 30 and found.fit == pytest.approx(
            sum(hit.match or 0 for hit in hits if (hit.match or 0) >= 0.05)
        )
        assert hits[0].fits is True and index.count("a red circle", glob="*-red-*").rows == 5
        assert index.count(image=hits[0].path).rows == 120  # captions


def test_refusals(folder: Path) -> None:
    with pytest.raises(IndexMissingError):
        open_index(folder / "none")
    with open_index(folder / "indexes" / "default") as index:
        for wrong in ({"text": " "}, {"image": 3}, {"text": "x", "target": "videos"}, {"text": "x", "k": 0}):
            with pytest.raises(UsageError):
                index.query(**wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="`min_match` needs a match"):
            index.query("x", plus="y", min_match=0.5)
        with pytest.raises(UsageError):
            index.query_many(["x", ""])
        with pytest.raises(UsageError, match="target is 'videos'"):
            index.query_many(["x"], target="videos")


def test_what_is_not_there_is_named(folder: Path) -> None:
    with open_index(folder / "indexes" / "default") as index:
        for wrong, message in (
            ({"image": "nope.jpg"}, "`image` nope.jpg: no such file$"),
            (
                {"image": np.zeros((3, 4), np.uint8)},
                r"`image` is uint8 \(3, 4\): give a path, bytes, a PIL image or uint8",
            ),
            ({"text": "x", "under": "typo"}, r"`under` typo: the index holds no images there \(there are: .*images"),
            ({"text": "x", "where": {"splt": "test"}}, r"`where`: unknown field 'splt' \(there are: height, width\)"),
            ({"text": "x", "after": "soon"}, "`after` soon: give a date"),
        ):
            with pytest.raises(UsageError, match=message):
                index.query(**wrong)  # type: ignore[arg-type]
        with pytest.warns(NothingFitsWarning, match="no image is called so"):
            assert index.query("x", glob="nothing*") == []


def test_an_index_shows_itself(folder: Path) -> None:
    path = folder / "indexes" / "default"
    with open_index(path) as index:
        assert repr(index) == f"<Index {str(path)!r}: 30 images, 120 captions, encoder stub>"
        assert len(index) == 30 and index
        names = [name for name in dir(index) if not name.startswith("_")]
        assert names == ["add", "close", "count", "damage", "info", "query", "query_many", "remove", "sync"]
        for name in names:
            assert getattr(api.Index, name).__doc__, name


def test_changes(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    first, *_ = write_corpus(photos, 6)
    build_index([photos], tmp_path / "index", StubEncoder(), BuildOptions(workers=0), Silent())
    outside = tmp_path / "outside" / "new.png"
    outside.parent.mkdir()
    draw("yellow", "triangle").save(outside)
    with open_index(tmp_path / "index") as index:
        report = index.add(outside, workers=0)
        assert (report.embedded, len(index)) == (1, 7)
        assert index.query("a yellow triangle", k=1)[0].path == str(outside)
        assert index.add([outside], workers=0).unchanged == 1
        removed = index.remove(outside)
        assert (removed.images, removed.captions, len(index)) == (1, 0, 6) and outside.exists()
        (hit,) = index.query("a red circle", k=1)
        assert index.remove(keys=hit.key).captions == 4 and len(index) == 5
        first.unlink()
        draw("yellow", "cross").save(photos / "cross.png")
        report = index.sync(workers=0)
        assert report.embedded >= 1 and len(index) == len([*photos.rglob("*.png"), *photos.rglob("*.jpg")])
        assert index.query("a yellow cross", k=1)[0].path == str(photos / "cross.png")
        assert index.sync(photos, workers=0).embedded == 0
        assert index.remove(under=photos).images == 6 and len(index) == 0 and index
        with pytest.raises(UsageError, match="is not in the index"):
            index.remove(tmp_path / "nowhere.jpg")
        with pytest.raises(UsageError, match="nothing to remove"):
            index.remove()
        with pytest.raises(UsageError):
            index.add(tmp_path / "nowhere.jpg", workers=0)
        lock = WriterLock(tmp_path / "index")
        try:
            with pytest.raises(IndexBusyError, match="another build is writing"):
                index.sync(workers=0)
        finally:
            lock.release()


def test_names() -> None:
    assert set(brivl_search.__all__) <= set(dir(brivl_search))
    assert all(getattr(brivl_search, name) for name in brivl_search.__all__)
    with pytest.raises(AttributeError):
        brivl_search.nothing  # noqa: B018
    code = "import brivl_search, sys; assert not {'numpy', 'torch', 'lmdb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


def test_examples_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block of the README and the docstring of the API, from a folder with images and an index."""
    monkeypatch.chdir(folder)
    Image.open(next((folder / "images" / "images").iterdir())).save(folder / "holiday.jpg")
    blocks = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    example = "\n".join(line[4:] for line in (api.__doc__ or "").splitlines() if line.startswith("    "))
    assert blocks and "open_index" in example
    for block in (*blocks, example):
        exec(compile(block, "example", "exec"), {})
    assert ".jpg" in capsys.readouterr().out
