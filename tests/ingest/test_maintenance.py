"""An index that changes: adding, removing, compacting, tuning, mending; readers meanwhile; jobs that do not mix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import BrivlSearchError, CorpusError, UsageError
from brivl_search.index import IndexReader, IndexWriter, Item, ivfpq, verify
from brivl_search.ingest import maintenance
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import add
from tests.index.test_ivfpq import DIM, clustered
from tests.index.test_ivfpq import add as put_rows
from tests.support.building import Silent, build, checksums, images, settle, texts
from tests.support.pictures import draw, write_corpus, write_lines
from tests.support.stub import StubEncoder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    ivfpq.faiss_module().omp_set_num_threads(1)


def add_paths(paths: list[Path], index: Path, encoder: StubEncoder, **options: object):  # type: ignore[no-untyped-def]
    return add(paths, index, encoder, BuildOptions(**{"workers": 0, **options}), Silent())  # type: ignore[arg-type]


# -- add ---------------------------------------------------------------------------------------------------------


def test_add_makes_an_index_and_forgets_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    index = tmp_path / "index"
    first, second = write_corpus(tmp_path / "a", 4), write_corpus(tmp_path / "b", 3)
    assert add_paths([tmp_path / "a"], index, encoder).embedded == 4
    first[0].unlink()
    assert add_paths([tmp_path / "a", second[0]], index, encoder).unchanged == 3
    assert images(index) == sorted(map(str, [*first, second[0]]))  # the vanished one stays: sync forgets, add does not
    assert len(texts(index)) == 16
    assert build(tmp_path / "a", index, encoder).vanished == 1
    assert images(index) == sorted(map(str, [*first[1:], second[0]]))  # what lies outside the folder stays


def test_add_copies_and_edits(tmp_path: Path, encoder: StubEncoder) -> None:
    index, paths = tmp_path / "index", write_corpus(tmp_path / "a", 3)
    add_paths(list(paths), index, encoder)
    copy = tmp_path / "copy of it.jpg"
    shutil.copy(paths[0], copy)
    report = add_paths([copy], index, encoder)
    assert (report.reused, report.embedded) == (1, 0)
    draw("purple", "ring").save(paths[1])
    settle(paths[1])
    report = add_paths([paths[1]], index, encoder)
    assert (report.reused, report.embedded) == (0, 1)
    assert len(images(index)) == 4 and verify(index).ok


def test_add_captions_of_images_that_are_there(tmp_path: Path, encoder: StubEncoder) -> None:
    index, paths = tmp_path / "index", write_corpus(tmp_path / "a", 3, with_captions=False)
    add_paths([tmp_path / "a"], index, encoder)
    lines = [{"image": str(paths[0]), "zh": "一个圆形"}, {"image": str(tmp_path / "gone.jpg"), "zh": "没有"}]
    report = add_paths([write_lines(tmp_path / "later.jsonl", lines)], index, encoder)
    assert texts(index) == [(paths[0].name, "zh", "一个圆形")]
    assert len(report.bad_captions) == 1 and "gone.jpg" in report.bad_captions[0]


def test_add_of_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    with pytest.raises(UsageError, match=r"cannot add .*gone\.jpg: No such file.*check the path"):
        add_paths([tmp_path / "gone.jpg"], tmp_path / "index", encoder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="nothing to add"):
        add_paths([tmp_path / "empty"], tmp_path / "index", encoder)
    (tmp_path / "no.txt").write_text("not a picture")
    assert add_paths([tmp_path / "no.txt"], tmp_path / "index", encoder).skip_counts() == [("not an image", 1)]


# -- remove ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path, encoder: StubEncoder) -> Path:
    write_corpus(tmp_path / "a", 6)
    write_corpus(tmp_path / "b", 4)
    build([tmp_path / "a", tmp_path / "b"], tmp_path / "index", encoder)
    return tmp_path / "index"


def test_remove_takes_the_captions_along(two: Path, tmp_path: Path) -> None:
    gone = images(two)[0]
    os.unlink(gone)  # it need not exist any more
    report = maintenance.remove(two, paths=[gone])
    assert (report.images, report.captions, report.commit.generation) == (1, 4, 2)
    assert len(images(two)) == 9 and len(texts(two)) == 36 and verify(two).ok


def test_remove_under_and_folder_and_key(two: Path, tmp_path: Path) -> None:
    assert maintenance.remove(two, under=[tmp_path / "b"]).images == 4
    with IndexReader.open(two) as reader:
        caption = next(part.shard.entry(0)["key"] for part in reader._parts["text"])
    report = maintenance.remove(two, keys=[caption])
    assert (report.images, report.captions) == (0, 1)
    assert maintenance.remove(two, paths=[tmp_path / "a"]).images == 6
    assert images(two) == [] and texts(two) == [] and verify(two).ok
    assert build(tmp_path / "a", two, StubEncoder()).embedded == 6


def test_remove_of_what_is_not_there_changes_nothing(two: Path, tmp_path: Path) -> None:
    here = images(two)
    for wrong in ({"paths": [here[0], tmp_path / "x.jpg"]}, {"under": [tmp_path / "c"]}, {"keys": ["nothing"]}, {}):
        with pytest.raises(
            UsageError, match=r"x\.jpg is not in|nothing under .*/c|no item .*nothing|nothing to remove"
        ):
            maintenance.remove(two, **wrong)  # type: ignore[arg-type]
    assert images(two) == here
    with IndexReader.open(two) as reader:
        assert reader.info.generation == 1


def test_a_second_writer_is_told_at_once(two: Path) -> None:
    with IndexWriter.existing(two):
        for change in (maintenance.compact, maintenance.repair, lambda i: maintenance.remove(i, keys=["x"])):
            with pytest.raises(BrivlSearchError, match="another build is writing"):
                change(two)


# -- jobs --------------------------------------------------------------------------------------------------------


class Stops(StubEncoder):
    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().encode_images(pixels)


def test_a_killed_build_is_not_published_by_another_change(two: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    more = write_corpus(tmp_path / "c", 12, size=(64, 64))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", two, Stops(), batch_size=4)
    before = images(two)
    maintenance.remove(two, paths=[before[0]])
    assert images(two) == before[1:]
    assert any("8 vectors" in line for line in verify(two).leftovers)  # kept: they cost the time
    report = build(tmp_path / "c", two, encoder, batch_size=4)
    assert (report.embedded, encoder.images) == (4, 4 + 6)
    assert images(two) == sorted([*before[1:], *map(str, more)])
    assert verify(two).leftovers == ()


def test_a_killed_add_goes_on(two: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "c", 12, size=(64, 64))
    with pytest.raises(KeyboardInterrupt):
        add_paths([tmp_path / "c"], two, Stops(), batch_size=4)
    report = add_paths([tmp_path / "c"], two, encoder, batch_size=4)
    assert (report.unchanged, report.embedded) == (8, 4) and verify(two).leftovers == ()


# -- compact -----------------------------------------------------------------------------------------------------


def writer(directory: Path, **options: object) -> IndexWriter:
    return IndexWriter(directory, encoder_name="mini", fingerprint="f", dim=DIM, **options)  # type: ignore[arg-type]


def test_compact_merges_and_drops(tmp_path: Path) -> None:
    with writer(tmp_path, index_type="ivfpq", shard_rows=400) as w:
        put_rows(w, clustered(1200))
        w.commit(tuning_queries={"image": clustered(64, seed=5)})
        for row in range(0, 1200, 3):
            w.remove("image", f"{row:06d}")
        w.commit()
    with IndexReader.open(tmp_path) as before:
        assert before.info.image.removed == 400
        queries = clustered(8, seed=3)
        old = before.search("image", queries, 10, exact=True).scores
        report = maintenance.compact(tmp_path)
        assert report.changed and before.info.image.removed == 400  # a reader keeps what it opened
    with IndexReader.open(tmp_path) as after:
        assert [shard.rows for shard in after.info.image.shards] == [400, 400]
        assert np.array_equal(after.search("image", queries, 10, exact=True).scores, old)
    assert verify(tmp_path).ok and not maintenance.compact(tmp_path).changed


def test_compact_trains_anew_after_drift(tmp_path: Path) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        put_rows(w, clustered(1500))
        w.commit()
        assert not w.commit(compact=True).image.trained
        other = np.random.default_rng(1).standard_normal((900, DIM)).astype(np.float32)  # nothing like the first
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        put_rows(w, other, start=1500)
        assert not w.commit().image.trained
    report = maintenance.compact(tmp_path)
    assert report.image.trained and "times as far from their codes" in report.notes[0]
    assert verify(tmp_path).ok


def test_memory_budget_takes_bytes_from_codes(tmp_path: Path) -> None:
    rows = clustered(2000)
    full = ivfpq.faiss_bytes(2000, DIM, ivfpq.list_count(2000), 8)
    with writer(tmp_path, index_type="ivfpq", memory=full - 2000 * 4) as w:
        put_rows(w, rows)
        w.commit()
    with IndexReader.open(tmp_path) as reader:
        assert reader.info.image.m == 4
    with writer(tmp_path) as w:  # the budget is remembered
        put_rows(w, clustered(2000, seed=2), start=2000)
        report = w.commit()
        assert report.image.trained
    with IndexReader.open(tmp_path) as reader:
        assert reader.info.image.m < 4
    with writer(tmp_path, memory=1000) as w:
        report = w.commit(compact=True)
    assert "the least that IVF-PQ takes" in " ".join(report.notes) or reader.info.image.m == 1


# -- tune --------------------------------------------------------------------------------------------------------


def test_tune_measures_and_stores(tmp_path: Path) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        put_rows(w, clustered(3000))
        w.stage_vectors("text", [f"t{n}" for n in range(100)], clustered(100, seed=7))
        for n in range(100):
            w.put("text", Item(f"t{n}", f"t{n}", record={"text": str(n)}))
        w.commit()
    low, high = (maintenance.tune(tmp_path, recall=recall).found["image"] for recall in (0.5, 0.99))
    assert low.recall is not None and high.recall is not None and low.recall >= 0.5 and high.recall >= 0.99
    assert (low.nprobe, low.rerank) < (high.nprobe, high.rerank) and high.kind == "cross-modal" and high.queries == 100
    assert high.qps and high.qps > 0 and high.target == 0.99
    with IndexReader.open(tmp_path) as reader:
        assert reader.info.image.tuning == high and reader.info.generation == 3
        queries = clustered(100, seed=7)
        near, true = (reader.search("image", queries, 10, exact=exact).rows for exact in (False, True))
        found = sum(len(set(a) & set(b)) for a, b in zip(near.tolist(), true.tolist(), strict=True)) / 1000
        assert abs(found - high.recall) < 0.01
    given = maintenance.tune(tmp_path, queries=clustered(32, seed=8)).found["image"]
    assert (given.kind, given.queries) == ("given", 32)


def test_tune_says_when_rows_stand_in(tmp_path: Path) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        put_rows(w, clustered(600))
        w.commit()
    report = maintenance.tune(tmp_path)
    assert report.found["image"].kind == "row" and "own rows stood in" in report.notes[0]


def test_tune_refuses(two: Path) -> None:
    with pytest.raises(UsageError, match="nothing to tune"):
        maintenance.tune(two)
    with pytest.raises(UsageError, match=r"`recall` 1\.5"):
        maintenance.tune(two, recall=1.5)


# -- damage ------------------------------------------------------------------------------------------------------


def test_repair_drops_a_shard_and_the_next_build_fills_it(tmp_path: Path, encoder: StubEncoder) -> None:
    index = tmp_path / "index"
    write_corpus(tmp_path / "a", 20)
    build(tmp_path / "a", index, encoder, shard_rows=8)
    sound, answers = checksums(index), images(index)
    victim = index / "shards" / "image-000002.lmdb"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with IndexReader.open(index) as reader:
        assert len(reader.damage) == 1 and "image-000002" in reader.damage[0] and reader.count("image") == 12
    lost, _ = maintenance.repair(index)
    assert lost == {"image-000002.lmdb": 8} and verify(index).ok and len(images(index)) == 12
    again = StubEncoder()
    report = build(tmp_path / "a", index, again, shard_rows=8)
    assert (report.embedded, again.images) == (8, 8) and images(index) == answers
    maintenance.compact(index)
    assert {rows for rows, _ in checksums(index)} == {rows for rows, _ in sound} and verify(index).ok
    assert maintenance.repair(index)[0] == {}


def test_damage_that_leaves_no_trace_in_the_time(tmp_path: Path, encoder: StubEncoder) -> None:
    """A failing disk changes bytes and no mtime: the row's checksum is looked at before a hit is shown."""
    index = tmp_path / "index"
    write_corpus(tmp_path / "a", 6)
    build(tmp_path / "a", index, encoder)
    with IndexReader.open(index) as reader:
        place = reader._parts["image"][0].shard
        needle, path = place.vectors[3].tobytes(), place.path
    status, content = path.stat(), bytearray(path.read_bytes())
    content[content.index(needle) + 5] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with IndexReader.open(index) as reader:
        assert reader.damage == ()
        assert reader.record("image", 0, 2)
        with pytest.raises(BrivlSearchError, match="checksum of row 3 differs"):
            reader.record("image", 0, 3)


def test_a_copied_index_is_checked_once(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "a", 6)
    build(tmp_path / "a", tmp_path / "index", encoder)
    shutil.copytree(tmp_path / "index", tmp_path / "copy", copy_function=shutil.copyfile)  # new times
    with IndexReader.open(tmp_path / "copy") as reader:
        assert reader.damage == () and (tmp_path / "copy" / ".checked.json").is_file()
    assert verify(tmp_path / "copy").ok
