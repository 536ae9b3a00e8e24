"""Writer and reader: what goes in comes out, changes and removals show, and searches are exact where promised."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from brivl_search.errors import BrivlSearchError, IndexIncompatibleError, IndexMissingError, UsageError
from brivl_search.index import IndexReader, IndexWriter, Item, ItemState, verify
from brivl_search.index.sources import Source

DIM = 32


def content(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def vector(name: object, dim: int = DIM) -> NDArray[np.float32]:
    """A unit vector made of the name alone."""
    rng = np.random.default_rng(int(content(name)[:12], 16))
    found = rng.standard_normal(dim).astype(np.float32)
    return found / np.linalg.norm(found)


def writer(directory: Path, **options: object) -> IndexWriter:
    settings = {"encoder_name": "mini", "fingerprint": "f" * 64, "dim": DIM, **options}
    return IndexWriter(directory, **settings)  # type: ignore[arg-type]


def item(key: str, name: object = None, **state: int) -> Item:
    return Item(key, content(key if name is None else name), record={"path": key}, **state)


def stage(w: IndexWriter, items: Iterable[Item], names: Iterable[object]) -> None:
    for one, name in zip(items, names, strict=True):
        if not w.has_vector("image", one.content):
            w.stage_vectors("image", [one.content], vector(name)[None])
        w.put("image", one)


def add(w: IndexWriter, keys: Iterable[str]) -> None:
    keys = list(keys)
    stage(w, [item(key) for key in keys], keys)


def paths(r: IndexReader, query: object, k: int, **options: object) -> list[str]:
    found = r.search("image", vector(query)[None], k, **options)  # type: ignore[arg-type]
    return [r.record("image", s, row)["path"] for s, row in zip(found.shards[0], found.rows[0], strict=True) if s >= 0]


def test_round_trip(tmp_path: Path) -> None:
    keys = [f"/p/{n:03d}.jpg" for n in range(40)]
    with writer(tmp_path) as w:
        w.set_sources([Source("folder", "/p", "p")])
        add(w, keys)
        assert w.known("image", keys[0]) == ItemState(content(keys[0]), 0, 0)
        assert w.pending_rows("image") == 40
        report = w.commit()
    assert (report.generation, report.changed, report.image.added, report.image.live) == (1, True, 40, 40)
    with IndexReader.open(tmp_path) as r:
        assert r.count("image") == 40 and r.count("text") == 0
        assert r.info.roots == (("p", "/p"),) and r.info.image.kind == "exact" and r.info.text.kind == "empty"
        assert paths(r, keys[7], 3)[0] == keys[7]
        place = r.find("image", keys[7])
        assert place is not None and r.record("image", *place) == {"path": keys[7]}
        assert r.find("image", "/p/none.jpg") is None
        every = np.concatenate([block for block, _, _ in r.vectors("image")]).astype(np.float32)
        queries = np.stack([vector(("q", n)) for n in range(5)])
        found = r.search("image", queries, 10)
        expected = np.sort(queries @ every.T, axis=1)[:, ::-1][:, :10]
        np.testing.assert_allclose(found.scores, expected, atol=1e-5)
        assert found.scores.dtype == np.float32 and found.shards.dtype == np.int32 and found.rows.dtype == np.int64
        more = r.search("image", queries, 50)
        assert (more.rows[:, 40:] == -1).all() and np.isneginf(more.scores[:, 40:]).all()
        assert r.search("text", queries, 2).shards.tolist() == [[-1, -1]] * 5
        assert len(list(r.records("image"))) == 40
    assert verify(tmp_path).ok and verify(tmp_path).rows == 40


def test_commit_without_changes_keeps_the_generation(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        add(w, ["/a", "/b"])
        w.commit()
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.rglob("*.lmdb"))
    with writer(tmp_path) as w:
        add(w, ["/a", "/b"])  # puts the same again
        report = w.commit()
    assert not report.changed and report.generation == 1
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.rglob("*.lmdb")) == before


def test_removed_changed_touched_renamed(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        add(w, [f"/{n}" for n in range(20)])
        w.commit()
    with writer(tmp_path) as w:
        assert sorted(w.keys_under("image", "/1")) == sorted(["/1", *(f"/1{n}" for n in range(10))])
        w.remove("image", "/3")
        stage(w, [item("/4", "new")], ["new"])
        w.put("image", item("/5", size=9, mtime_ns=-7))
        w.put("image", item("/renamed", "/6"))  # no vector staged: it is copied from the published row
        w.remove("image", "/6")
        assert w.known("image", "/6") is None and "/6" not in set(w.keys_under("image", ""))
        report = w.commit()
        assert (report.image.added, report.image.removed, report.image.touched) == (2, 3, 1)
        assert w.known("image", "/5") == ItemState(content("/5"), 9, -7)
        assert not w.has_vector("image", content("/3")) and w.has_vector("image", content("/6"))
    with IndexReader.open(tmp_path) as r:
        assert r.count("image") == 19
        assert paths(r, "/6", 1) == ["/renamed"] and paths(r, "new", 1) == ["/4"]
        assert set(paths(r, "/3", 30)) == {f"/{n}" for n in range(20)} - {"/3", "/6"} | {"/renamed"}
    assert verify(tmp_path).ok


def test_touched_item_gets_no_new_row(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        add(w, ["/a"])
        first = w.commit()
        w.put("image", item("/a", mtime_ns=5))
        second = w.commit()
    assert second.generation == 2 and first.image.sealed and not second.image.sealed
    assert verify(tmp_path).ok


def test_copies_share_a_vector_and_survive_each_other(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        stage(w, [item("/a", "x"), item("/b", "x")], ["x", "x"])
        w.commit()
        w.remove("image", "/a")
        w.commit()
        assert w.has_vector("image", content("x"))
        w.put("image", item("/c", "x"))
        w.commit()
    with IndexReader.open(tmp_path) as r:
        assert sorted(paths(r, "x", 5)) == ["/b", "/c"]
    assert verify(tmp_path).ok


def test_several_shards_merge_geometrically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.index import plan

    monkeypatch.setattr(plan, "MERGE_ROWS", 20)
    with writer(tmp_path, shard_rows=100) as w:
        add(w, [f"/{n:04d}" for n in range(250)])
        assert len(w.commit().image.sealed) == 3
        add(w, ["/one"])
        assert len(w.commit().image.dropped) == 0  # 50 rows are not rewritten for one
        add(w, ["/two"])
        assert len(w.commit().image.dropped) == 1
        for n in range(100):
            w.remove("image", f"/{n:04d}")
        assert w.commit().image.dropped == ("image-000001.lmdb",)  # nothing of it was left
    with IndexReader.open(tmp_path) as r:
        assert [shard.rows for shard in r.info.image.shards] == [100, 50, 2]
        assert paths(r, "/0170", 1) == ["/0170"] and paths(r, "/two", 1) == ["/two"]
        assert len(set(paths(r, "q", 200))) == 152
    with writer(tmp_path) as w:
        w.remove("image", "/0170")
        w.commit(compact=True)
    with IndexReader.open(tmp_path) as r:
        assert [shard.rows for shard in r.info.image.shards] == [100, 51] and r.info.image.removed == 0
    assert verify(tmp_path).ok


def test_open_reader_keeps_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path) as w:
        add(w, ["/a", "/b"])
        w.commit()
        with IndexReader.open(tmp_path) as old:
            view = next(old.vectors("image"))[0]
            w.remove("image", "/a")
            add(w, ["/c"])
            w.commit()  # rewrites and unlinks the shard the reader has mapped
            assert old.stale() and sorted(paths(old, "q", 5)) == ["/a", "/b"]
            place = old.find("image", "/a")
            assert place is not None and old.record("image", *place) == {"path": "/a"}
            assert old.find("image", "/c") is None
        assert np.isfinite(view.astype(np.float32)).all()  # an array outlives its reader
        with IndexReader.open(tmp_path) as new:
            assert not new.stale() and sorted(paths(new, "q", 5)) == ["/b", "/c"]


def test_refusals(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    with pytest.raises(IndexMissingError, match=r"no index at .*: build one with: `build_index`"):
        IndexReader.open(directory)
    with writer(directory) as w:
        with pytest.raises(BrivlSearchError, match=r"another build is writing .*pid \d+"):
            writer(directory)
        with pytest.raises(UsageError, match="not finite"):
            w.stage_vectors("image", ["aa"], np.full((1, DIM), np.nan, np.float32))
        with pytest.raises(UsageError, match="vectors are"):
            w.stage_vectors("image", ["aa"], np.zeros((1, DIM + 1), np.float32))
        with pytest.raises(IndexMissingError, match="has not finished"):
            IndexReader.open(directory)
        w.put("image", item("/lost"))
        with pytest.raises(BrivlSearchError, match="without a vector"):
            w.commit()
        w.remove("image", "/lost")
        add(w, ["/a"])
        w.commit()
    with pytest.raises(IndexIncompatibleError, match=r"'mini'.*not 'other'.*`encoder` mini"):
        writer(directory, encoder_name="other", fingerprint="e" * 64)
    with pytest.raises(UsageError, match="shard_rows"):
        writer(directory, shard_rows=1 << 40)
    with IndexReader.open(directory) as r:
        for queries, k in ((np.zeros((1, DIM)), 0), (np.zeros((1, 3)), 1), (np.full((1, DIM), np.inf), 1)):
            with pytest.raises(UsageError):
                r.search("image", queries, k)


def test_long_odd_and_non_utf8_keys(tmp_path: Path) -> None:
    keys = ["/" + "照" * 400, "/" + "x" * 2000, "/bad-\udcff-name.jpg", "/plain"]
    with writer(tmp_path) as w:
        for number, key in enumerate(keys):
            w.stage_vectors("image", [content(number)], vector(number)[None])
            w.put("image", Item(key, content(number), record={"path": key}))
        w.commit()
        assert sorted(w.keys_under("image", "/")) == sorted(keys)
        assert list(w.keys_under("image", keys[1][:600])) == [keys[1]]
    with IndexReader.open(tmp_path) as r:
        assert [paths(r, number, 1)[0] for number in range(4)] == keys
        assert all(r.find("image", key) is not None for key in keys)
    assert verify(tmp_path).ok


def test_allow_narrows_and_never_drops(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        add(w, [f"/{n}" for n in range(50)])
        w.commit()
    with IndexReader.open(tmp_path) as r:
        mask = np.zeros(50, dtype=bool)
        mask[[3, 4, 9]] = True
        found = r.search("image", vector("q")[None], 5, allow=[mask])
        assert sorted(found.rows[0][:3]) == [3, 4, 9] and (found.rows[0][3:] == -1).all()


def test_ties_fall_to_the_lower_row(tmp_path: Path) -> None:
    with writer(tmp_path, shard_rows=7) as w:
        names = [f"/{n:02d}" for n in range(20)]
        stage(w, [item(name, "same") for name in names], ["same"] * 20)
        w.commit()
    with IndexReader.open(tmp_path) as r:
        assert paths(r, "same", 20) == names


def test_read_only_directory(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    with writer(directory) as w:
        add(w, ["/a"])
        w.commit()
    (directory / "catalog.lmdb-lock").unlink()
    for path in (directory, directory / "shards"):
        path.chmod(0o555)
    try:
        with IndexReader.open(directory) as r:
            assert paths(r, "/a", 1) == ["/a"]
        assert verify(directory).ok
    finally:
        for path in (directory, directory / "shards"):
            path.chmod(0o755)


def test_import_info_and_verify_need_neither_faiss_nor_torch(tmp_path: Path) -> None:
    with writer(tmp_path, index_type="ivfpq") as w:
        add(w, [f"/{n}" for n in range(300)])
        w.commit()
    code = (
        "import sys; from brivl_search.index import IndexReader, verify\n"
        f"r = IndexReader.open({str(tmp_path)!r}); assert r.info.image.kind == 'ivfpq'\n"
        f"assert verify({str(tmp_path)!r}).ok\n"
        "assert not {'faiss', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readers_open_while_a_writer_publishes(tmp_path: Path) -> None:
    with writer(tmp_path) as w:
        add(w, ["/0"])
        w.commit()
    done, problems = threading.Event(), []

    def read() -> None:
        try:
            while not done.is_set():
                with IndexReader.open(tmp_path) as r:
                    assert len(paths(r, "q", 100)) == r.count("image")
                    assert r.find("image", "/0") is not None
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(1, 25):  # each commit merges, so each unlinks the shard before
        with writer(tmp_path) as w:
            add(w, [f"/{n}"])
            w.commit()
    done.set()
    thread.join()
    assert not problems and verify(tmp_path).ok


def test_warming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards touching the vectors costs no page fault; an index that is too large is left alone."""
    resource = pytest.importorskip("resource")
    with writer(tmp_path) as w:
        names = [f"{number:05}" for number in range(20_000)]
        w.stage_vectors("image", names, np.random.default_rng(0).standard_normal((len(names), DIM)))
        for name in names:
            w.put("image", Item(name, name, record={}))
        w.commit()

    def faults(r: IndexReader) -> int:
        raw = r._parts["image"][0].shard.vectors.reshape(-1).view(np.uint8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        raw[::4096].max()
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    with IndexReader.open(tmp_path) as r:
        cold = faults(r)
    with IndexReader.open(tmp_path) as r:
        thread = r.warm()
        if thread is None:
            pytest.skip("not Linux")
        thread.join(30)
        assert not thread.is_alive() and faults(r) < cold / 2
        monkeypatch.setattr("brivl_search.index.warm.available", lambda: 1000)
        assert r.warm() is None
