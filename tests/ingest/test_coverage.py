"""What a build looks at, in indexes of older formats too."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.errors import CorpusError
from brivl_search.index import IndexReader, verify
from brivl_search.index.snapshot import Snapshot
from tests.ingest.test_sources import added, library, names, photo, synced
from tests.support.building import build, images
from tests.support.older import make_older
from tests.support.stub import StubEncoder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "ix"


def test_an_exclude_that_leaves_nothing(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "p")
    with pytest.raises(CorpusError, match="4 excluded"):
        build(tmp_path / "p", index, encoder, exclude=("*",))
    build(tmp_path / "p", index, encoder)
    with pytest.raises(CorpusError, match="4 excluded"):
        synced(index, encoder, exclude=("*",))
    assert len(images(index)) == 4 and synced(index, encoder).unchanged == 4


def test_an_index_of_format_3_is_read_and_brought_along(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    odd = photo(tmp_path / "p" / ".h.jpg", 2)
    build(tmp_path / "p", index, encoder)
    added(odd, index, encoder)
    make_older(index)
    assert [source.kind for source in Snapshot.read(index).sources] == ["folder"]
    with IndexReader.open(index) as reader:
        assert reader.info.identity == "" and reader.info.roots == ((str(tmp_path / "p"), str(tmp_path / "p")),)
    report = synced(index, encoder)
    assert report.vanished == 0 and names(index) == [".h.jpg", "a.jpg"]  # it was added by name: nobody knows any more
    with IndexReader.open(index) as reader:
        assert len(reader.info.identity) == 32
    assert verify(index).ok
