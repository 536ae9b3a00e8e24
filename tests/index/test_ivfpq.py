"""IVF-PQ: when it is used, that re-ranking restores recall, that no hit is lost, and that nothing is copied."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from brivl_search.errors import IndexIncompatibleError
from brivl_search.index import Codec, IndexReader, IndexWriter, Item, ivfpq, plan, search, tune, verify
from brivl_search.index.shard import Shard

DIM = 32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """k-means this small is many times slower when its threads wait for each other on a busy machine."""
    ivfpq.faiss_module().omp_set_num_threads(1)


def clustered(rows: int, seed: int = 0, clusters: int = 40) -> NDArray[np.float32]:
    """float32 (rows, DIM), unit length, in clusters: what embeddings look like, unlike uniform noise."""
    centers = np.random.default_rng(99).standard_normal((clusters, DIM))
    rng = np.random.default_rng(seed)
    found = centers[rng.integers(0, clusters, rows)] + 0.5 * rng.standard_normal((rows, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def writer(directory: Path, **options: object) -> IndexWriter:
    return IndexWriter(directory, encoder_name="mini", fingerprint="f", dim=DIM, **options)  # type: ignore[arg-type]


def add(w: IndexWriter, vectors: NDArray[np.float32], start: int = 0) -> None:
    names = [f"{number:06d}" for number in range(start, start + len(vectors))]
    w.stage_vectors("image", names, vectors)
    for name in names:
        w.put("image", Item(name, name, record={"path": name}))


def overlap(r: IndexReader, queries: NDArray[np.float32], k: int = 10, **options: int) -> float:
    near, true = r.search("image", queries, k, **options), r.search("image", queries, k, exact=True)  # type: ignore[arg-type]
    pairs = zip(near.shards, near.rows, true.shards, true.rows, strict=True)
    same = [len(set(zip(a, b, strict=True)) & set(zip(c, d, strict=True))) for a, b, c, d in pairs]
    return sum(same) / (k * len(queries))


@pytest.mark.parametrize(("dim", "m"), [(256, 64), (32, 8), (64, 16), (30, 6), (31, 31), (512, 128), (1, 1)])
def test_pq_bytes_divides(dim: int, m: int) -> None:
    assert ivfpq.pq_bytes(dim) == m


def test_list_count_leaves_39_rows_for_each() -> None:
    assert [ivfpq.list_count(n) for n in (1, 300, 9_984, 1_000_000)] == [1, 4, 256, 4096]
    assert all(ivfpq.list_count(n) * 39 <= max(n, 39) for n in range(1, 20_000, 97))


def test_forced_with_few_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, clustered(100))
        report = w.commit()
        assert "needs at least 256 rows" in report.notes[0]
        add(w, clustered(200, 1), 100)
        report = w.commit()
    assert report.image.trained and "trained on 300 rows" in report.notes[0]
    assert "WARNING" not in "".join(capfd.readouterr())
    with IndexReader.open(tmp_path) as r:
        assert r.info.image.kind == "ivfpq" and r.info.image.nlist == 4 and r.info.image.tuning is not None
        assert r.info.image.tuning.recall is None and r.info.image.tuning.kind == "not measured"
        assert overlap(r, clustered(20, 5)) == 1.0
    assert verify(tmp_path).ok


def test_growth_across_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivfpq, "AUTO_THRESHOLD", 2_000)
    with writer(tmp_path) as w:
        add(w, clustered(1_500))
        assert not w.commit().image.trained
        add(w, clustered(1_500, 1), 1_500)
        report = w.commit()
        assert report.image.trained and report.image.dropped == ("image-000001.lmdb",)
        add(w, clustered(500, 2), 3_000)
        report = w.commit()
        assert not report.image.trained
    with IndexReader.open(tmp_path) as r:
        assert r.info.image.kind == "ivfpq" and r.count("image") == 3_500
        assert overlap(r, clustered(30, 5)) > 0.95
    with writer(tmp_path, index_type="exact") as w:
        add(w, clustered(10, 3), 9_000)
        w.commit(compact=True)
    with IndexReader.open(tmp_path) as r:
        assert r.info.image.kind == "exact" and r.count("image") == 3_510
    with writer(tmp_path, index_type="auto") as w:
        assert w.commit().image.sealed  # the exact shard is rewritten with the quantizer that is there
    with IndexReader.open(tmp_path) as r:
        assert r.info.image.kind == "ivfpq" and r.count("image") == 3_510


def test_mixed_shards_are_searched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MERGE_ROWS", 0)
    vectors = clustered(2_200)
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, vectors[:2_000])
        w.commit()
    with writer(tmp_path, index_type="exact") as w:
        add(w, vectors[2_000:], 2_000)
        assert not w.commit(tuning_queries={"image": clustered(32, 4)}).image.dropped
    with IndexReader.open(tmp_path) as r:
        assert r.info.image.kind == "mixed" and [shard.kind for shard in r.info.image.shards] == ["ivfpq", "exact"]
        tuning = r.info.image.tuning
        assert tuning is not None and tuning.recall is not None and tuning.recall >= 0.99
        assert overlap(r, vectors[::100]) >= 0.95
    assert verify(tmp_path).ok


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tuned")
    with writer(directory, index_type="ivfpq", shard_rows=4_000) as w:
        add(w, clustered(10_000))
        queries = clustered(64, 7)
        assert w.sample("image", 50).shape == (50, DIM)
        report = w.commit(tuning_queries={"image": queries})
        assert report.image.tuning is not None and report.image.tuning.queries == 64
    return directory


def test_tuned_recall(tuned: Path) -> None:
    with IndexReader.open(tuned) as r:
        tuning = r.info.image.tuning
        assert tuning is not None and tuning.recall is not None and tuning.recall >= 0.99
        assert tuning.kind == "cross-modal" and tuning.rows == 10_000 and len(r.info.image.shards) == 3
        assert overlap(r, clustered(100, 8)) >= 0.95
        assert overlap(r, clustered(50, 9), rerank=200, nprobe=r.info.image.nlist) >= 0.95
        coarse = r.search("image", clustered(100, 8), 10, nprobe=1, rerank=1)
        true = r.search("image", clustered(100, 8), 10, exact=True)
        assert (coarse.rows >= 0).all() and (coarse.scores[:, 0] <= true.scores[:, 0] + 1e-6).all()


def test_k_is_always_filled(tuned: Path) -> None:
    with IndexReader.open(tuned) as r:
        for k in (1, 300, 9_999):
            found = r.search("image", clustered(2, 3), k, nprobe=1)
            assert (found.rows >= 0).all() and (np.diff(found.scores, axis=1) <= 0).all()
            places = [
                set(zip(s.tolist(), n.tolist(), strict=True)) for s, n in zip(found.shards, found.rows, strict=True)
            ]
            assert all(len(place) == k for place in places)
        assert (r.search("image", clustered(1, 3), 10_001).rows[0, -1]) == -1


def test_approximate_widens_until_filled(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with IndexReader.open(tuned) as r:
        part = r._parts["image"][0]
        far = np.argsort(part.shard.vectors.astype(np.float32) @ clustered(1, 4)[0])[:3_000]  # the farthest rows
        mask = np.zeros(part.shard.info.rows, dtype=bool)
        mask[far] = True
        scores, rows = search.approximate(part.only(mask), clustered(1, 4), 20, nprobe=1, rerank=20)
        assert (rows >= 0).all() and mask[rows].all() and np.isfinite(scores).all()


def test_removed_rows_never_come_back(tmp_path: Path) -> None:
    vectors = clustered(3_000)
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, vectors)
        w.commit()
        for number in range(0, 3_000, 2):
            w.remove("image", f"{number:06d}")
        report = w.commit()
        assert report.image.removed == 1_500 and not report.image.sealed
    with IndexReader.open(tmp_path) as r:
        assert r.count("image") == 1_500 and r.info.image.removed == 1_500
        found = r.search("image", vectors[:40], 20, nprobe=2, rerank=80)
        assert (found.rows % 2 == 1).all() and (found.rows >= 0).all()
        assert overlap(r, vectors[:40], nprobe=64, rerank=200) > 0.95
    assert verify(tmp_path).ok


def test_search_reads_the_map_without_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and searching a shard must not bring its bytes into private memory, nor does opening read them."""
    rows, dim = 60_000, 64
    rng = np.random.default_rng(0)
    with IndexWriter(tmp_path, encoder_name="mini", fingerprint="f", dim=dim, index_type="ivfpq") as w:
        small = rng.standard_normal((256, dim)).astype(np.float32)
        names = [f"{number:06d}" for number in range(rows)]
        w.stage_vectors("image", names, small[np.arange(rows) % 256] + 0.01 * rng.standard_normal((rows, dim)))
        for name in names:
            w.put("image", Item(name, name))
        monkeypatch.setattr(ivfpq, "MAX_TRAINING_ROWS", 1_000)  # quick: this is not about recall
        w.commit()
    code = f"""
import re, time
import faiss, numpy as np, numpy.ma  # NumPy imports the last one with the first search
from brivl_search.index import IndexReader
def resident(kind):
    return int(re.search(rf"{{kind}}:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
faiss.omp_set_num_threads(1)
q = np.ones((1, {dim}), np.float32)
warm = faiss.IndexFlatIP({dim}); warm.add(q); warm.search(q, 1)
IndexReader.open({str(tmp_path)!r}).close()  # what it imports counts for nothing
start, mapped = resident("RssAnon"), resident("RssFile")
began = time.perf_counter()
r = IndexReader.open({str(tmp_path)!r})
opened = time.perf_counter() - began
index = r._parts["image"][0].shard.index
assert index.ntotal == {rows}
touched = resident("RssFile") - mapped
found = r.search("image", q, 10, nprobe=1, rerank=50)
assert (found.rows >= 0).all()
print(resident("RssAnon") - start, touched, r.info.image.bytes, opened)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    grown, touched, size, seconds = (float(word) for word in done.stdout.split())
    assert grown < size / 10, f"{grown / 2**20:.1f} MiB of {size / 2**20:.1f} MiB were copied"
    assert touched < size / 5, f"{touched / 2**20:.1f} MiB of {size / 2**20:.1f} MiB were read to open it"
    assert seconds < 0.5


@pytest.mark.parametrize("codec", ["fastscan", "pq8"])
def test_values_found_by_place_and_by_key_are_the_same(tmp_path: Path, codec: Codec) -> None:
    """What an index of format 2 does, which knows no places, and what one of format 3 does."""
    with writer(tmp_path, index_type="ivfpq", codec=codec) as w:
        add(w, clustered(1000))
        w.commit()
    with IndexReader.open(tmp_path) as r:
        info, dim = r.info.image.shards[0], r.info.encoder.dim
        placed = r._parts["image"][0].shard
    assert info.places.keys() == {"columns", "ivfpq", "meta", "sums", "vectors"} | (
        {"lists"} if codec == "fastscan" else set()
    )
    content = placed.path.read_bytes()
    for key, (offset, size) in info.places.items():
        asked = placed._txn.get(key.encode())
        assert bytes(asked) == content[offset : offset + size] == placed._mapped(key.encode()).tobytes()
    if codec == "pq8":
        by_key = Shard(tmp_path, replace(info, places={}), dim)
        assert np.array_equal(by_key.vectors, placed.vectors)
        found = [ivfpq.candidates(shard.index, clustered(50, seed=2), 20, 4) for shard in (placed, by_key)]
        assert np.array_equal(*found)


def test_fastscan_shards_of_format_2(tmp_path: Path) -> None:
    """There `ivfpq` held the whole index; it is copied to RAM."""
    faiss = ivfpq.faiss_module()
    rows = clustered(1000)
    trained = ivfpq.train(rows, 4, 8, 0, "fastscan")
    whole = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
    whole.add(rows)
    built = ivfpq.build(trained, [rows[:300], rows[300:]])
    new = ivfpq.view(built["ivfpq"], built["lists"])
    old = ivfpq.view(faiss.serialize_index(whole))
    queries = clustered(50, seed=2)
    assert new.ntotal == old.ntotal == 1000
    assert np.array_equal(*(ivfpq.candidates(index, queries, 20, 2) for index in (new, old)))


@pytest.mark.parametrize("what", ["vectors", "meta", "lists"])
def test_places_that_cannot_be(tmp_path: Path, what: str) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, clustered(1000))
        w.commit()
    with IndexReader.open(tmp_path) as r:
        info, dim = r.info.image.shards[0], r.info.encoder.dim
    offset, size = info.places[what]
    for wrong in ([offset + info.bytes, size], [-offset, size], [offset + 1, size] if what == "meta" else [0, -1]):
        with pytest.raises(IndexIncompatibleError, match="damaged"):
            Shard(tmp_path, replace(info, places={**info.places, what: wrong}), dim)
    short = replace(info, places={**info.places, "lists": [info.places["lists"][0], 40]})
    with pytest.raises(IndexIncompatibleError, match="damaged"):
        assert Shard(tmp_path, short, dim).index


def test_tuning_leaves_a_margin(tuned: Path) -> None:
    """What was chosen with some queries holds for others."""
    with IndexReader.open(tuned) as r:
        found = tune.choices(r._parts["image"], clustered(200, seed=5), 0.9)
        chosen = tune.tune(r._parts["image"], clustered(200, seed=5), target=0.9)
    assert all(0 <= choice.safe <= choice.recall <= 1 for choice in found)
    assert any(choice.safe < choice.recall for choice in found)
    cheapest = min(choice for choice in found if choice.safe >= 0.9)
    assert (chosen.nprobe, chosen.rerank) == (cheapest.nprobe, cheapest.rerank)
