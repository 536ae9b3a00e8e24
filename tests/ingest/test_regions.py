"""`--keep-regions`: what a matcher reads of pictures is in the index, and goes wherever their rows go."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.matching import load_matcher
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher
from brivl_search.errors import BrivlSearchError, EncoderError, UsageError
from brivl_search.index import IndexReader, commit, verify
from brivl_search.ingest import maintenance
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport, Silent
from brivl_search.ingest.run import add, build_index
from tests.support.matchers import make_matcher
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder
from tests.support.tiny import make_checkpoint


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def encoder(towers: Path) -> BriVLEncoder:
    return BriVLEncoder(towers, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def matcher(towers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_matcher(tmp_path_factory.mktemp("matcher") / "one", towers)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return corpus(tmp_path / "photos", 5)[0].parent


def corpus(folder: Path, n: int) -> list[Path]:
    return write_corpus(folder, n, (64, 64), with_captions=False)


def build(photos: Path, index: Path, encoder: Any, keep: Path | str | None = None, **more: Any) -> BuildReport:
    options = BuildOptions(workers=0, keep_regions=None if keep is None else str(keep), **more)
    return build_index([photos], index, encoder, options, Silent())


def never(*given: Any) -> Any:
    raise AssertionError("it was not to be called")


def kept(index: Path, matcher: Path, encoder: BriVLEncoder) -> dict[str, np.ndarray | None]:
    """Name of each live picture → the tokens that the index keeps, or None."""
    fingerprint = load_matcher(str(matcher), encoder).fingerprint
    with IndexReader.open(index) as reader:
        found = {}
        for shard, row, record in reader.records("image"):
            regions = reader.regions(shard, row, fingerprint)
            found[Path(record["path"]).name] = None if regions is None else regions.tokens
        return found


def assert_right(index: Path, matcher: Path, encoder: BriVLEncoder, photos: Path) -> None:
    """Every picture's kept tokens are those that the matcher reads of its file, but for a byte's rounding."""
    from brivl_search.embedding.reranker import Reranker

    reranker = Reranker(load_matcher(str(matcher), encoder))
    for name, tokens in kept(index, matcher, encoder).items():
        (fresh,) = reranker.read([str(photos / name)])
        assert fresh is not None and tokens is not None
        step = np.abs(fresh.tokens).max(1, keepdims=True).astype(np.float32) / 254
        assert (np.abs(tokens.astype(np.float32) - fresh.tokens) <= step + 2e-3).all()
    assert verify(index).ok


def test_the_towers_run_once_for_both(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, matcher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, tmp_path / "plain", encoder)
    monkeypatch.setattr(BriVLEncoder, "encode_pictures", never)
    monkeypatch.setattr(OneTowerMatcher, "pictures", never)
    report = build(photos, tmp_path / "index", encoder, matcher)
    assert (report.embedded, report.regions, report.without_regions) == (5, 0, 0)
    assert report.regions_for == str(matcher)
    monkeypatch.undo()
    assert_right(tmp_path / "index", matcher, encoder, photos)
    with IndexReader.open(tmp_path / "plain") as plain, IndexReader.open(tmp_path / "index") as index:
        (a, _, _), (b, _, _) = next(plain.vectors("image")), next(index.vectors("image"))
        assert np.abs(a.astype(np.float32) - b).max() < 2e-3
        facts = index.info.image
        assert facts.regions is not None and (facts.with_regions, plain.info.image.regions) == (5, None)
        raw = index._parts["image"][0].shard.regions(0, facts.regions.fingerprint)
        assert raw is not None and len(raw) == facts.regions.bytes


def test_an_index_that_has_none_gets_them_and_keeps_them(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, matcher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build(photos, index, encoder)
    monkeypatch.setattr(BriVLEncoder, "encode_pictures", never)
    report = build(photos, index, encoder, matcher)
    assert (report.embedded, report.unchanged, report.regions, report.without_regions) == (0, 5, 5, 0)
    assert_right(index, matcher, encoder, photos)
    monkeypatch.undo()
    first, *rest = sorted(photos.iterdir())
    (photos / "copy.jpg").write_bytes(rest[0].read_bytes())
    for new in corpus(tmp_path / "more", 7)[5:]:
        new.rename(photos / new.name)
    first.unlink()
    report = build(photos, index, encoder)  # by itself: nothing is asked for now
    assert (report.embedded, report.reused, report.regions, report.without_regions) == (2, 1, 0, 0)
    assert len(kept(index, matcher, encoder)) == 7
    assert_right(index, matcher, encoder, photos)
    assert not build(photos, index, encoder).commit.changed  # type: ignore[union-attr]


def test_rows_keep_them_wherever_they_go(photos: Path, tmp_path: Path, encoder: BriVLEncoder, matcher: Path) -> None:
    index = tmp_path / "index"
    build(photos, index, encoder, matcher, shard_rows=2)
    before = kept(index, matcher, encoder)
    gone = sorted(before)[0]
    maintenance.remove(index, paths=[photos / gone])
    maintenance.compact(index)
    photos.rename(tmp_path / "moved")
    maintenance.move(index, photos, tmp_path / "moved")
    after = kept(index, matcher, encoder)
    assert after.keys() == before.keys() - {gone}
    assert all(np.array_equal(after[name], before[name]) for name in after)
    assert verify(index).ok
    with IndexReader.open(index) as reader:
        assert [shard.rows for shard in reader.info.image.shards] == [2, 2] and reader.info.image.with_regions == 4


def test_a_killed_sync_goes_on(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, matcher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, read = tmp_path / "index", []
    build(photos, index, encoder)
    whole = OneTowerMatcher.pictures

    def two(self: OneTowerMatcher, pixels: np.ndarray, origins: Any) -> Any:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(pixels))
        return whole(self, pixels, origins)

    monkeypatch.setattr(OneTowerMatcher, "pictures", two)
    with pytest.raises(KeyboardInterrupt):
        build(photos, index, encoder, matcher, batch_size=2)
    assert sum(read) == 4 and verify(index).leftovers[0].count("regions of 4 pictures") == 1
    monkeypatch.setattr(OneTowerMatcher, "pictures", whole)
    new = corpus(tmp_path / "other", 6)[5]  # another job comes between; what is staged is not lost
    add([new], index, encoder, BuildOptions(workers=0), Silent())
    report = build(photos, index, encoder, matcher)
    assert (report.regions, report.embedded) == (1, 0)
    assert sum(tokens is None for tokens in kept(index, matcher, encoder).values()) == 1  # the one from elsewhere
    assert report.without_regions == 1


def test_a_matcher_of_another_tower_is_refused_before_anything_is_embedded(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, towers: Path
) -> None:
    other = make_matcher(tmp_path / "other", towers, regions="regions-of-another")
    for bad, tower, error, said in (
        (other, encoder, EncoderError, "reads the regions of another image tower"),
        (other, StubEncoder(), EncoderError, "reads the regions of a BriVL image tower, and stub"),
        (tmp_path / "nothing", encoder, UsageError, "no matcher"),
    ):
        with pytest.raises(error, match=said):
            build(photos, tmp_path / "index", tower, bad)
    assert not (tmp_path / "index").exists()


def test_a_matcher_that_reads_whole_pictures_is_refused(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brivl_search.ingest import regions
    from tests.support.matchers import StubMatcher

    monkeypatch.setattr(regions, "load_matcher", lambda name, encoder, **options: StubMatcher(encoder))
    with pytest.raises(UsageError, match="`keep_regions` hf:x/y: this matcher reads whole pictures"):
        build(photos, tmp_path / "index", encoder, "hf:x/y")


def test_a_matcher_that_is_gone_stops_no_sync(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, towers: Path, matcher: Path
) -> None:
    index, own = tmp_path / "index", make_matcher(tmp_path / "own", towers)
    build(photos, index, encoder, own)
    own.rename(tmp_path / "away")
    new = corpus(tmp_path / "more", 6)[5]
    new.rename(photos / new.name)
    report = build(photos, index, encoder)
    assert (report.embedded, report.without_regions) == (1, 1)
    (note,) = report.notes
    assert "no matcher" in note and "regions of new pictures are not kept now" in note
    make_matcher(own, towers, seed=1)  # another one in its place
    report = build(photos, index, encoder)
    assert any("is another one than when its regions were kept" in note for note in report.notes)
    assert report.without_regions == 1
    (tmp_path / "own").rename(tmp_path / "wrong")
    (tmp_path / "away").rename(own)
    report = build(photos, index, encoder)  # it is back: what was left out is read, and not embedded
    assert (report.embedded, report.regions, report.without_regions, report.notes) == (0, 1, 0, [])
    assert_right(index, own, encoder, photos)


def test_a_full_disk_loses_nothing(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, matcher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build(photos, index, encoder)

    def full(*given: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commit, "seal", full)
    with pytest.raises(BrivlSearchError, match="No space left"):
        build(photos, index, encoder, matcher)
    monkeypatch.undo()
    assert verify(index).ok and set(kept(index, matcher, encoder).values()) == {None}
    report = build(photos, index, encoder, matcher)
    assert (report.regions, report.embedded, report.without_regions) == (0, 0, 0)  # all had been staged
    assert_right(index, matcher, encoder, photos)


def test_another_matcher_takes_its_place_and_none_ends_it(
    photos: Path, tmp_path: Path, encoder: BriVLEncoder, towers: Path, matcher: Path
) -> None:
    index, other = tmp_path / "index", make_matcher(tmp_path / "other", towers, seed=3)
    build(photos, index, encoder, matcher)
    report = build(photos, index, encoder, other)
    assert (report.embedded, report.regions) == (0, 5)
    assert_right(index, other, encoder, photos)
    assert set(kept(index, matcher, encoder).values()) == {None}
    with_them = sum(shard.stat().st_size for shard in (index / "shards").iterdir())
    report = build(photos, index, encoder, "none")
    assert report.regions_for == ""
    maintenance.compact(index)
    assert sum(shard.stat().st_size for shard in (index / "shards").iterdir()) < with_them
    assert verify(index).ok
