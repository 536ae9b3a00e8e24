"""Columns say what the records say, are sealed with a shard, and are made from the records where they are not."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from brivl_search.index import IndexReader, IndexWriter, Item, Modality, verify
from brivl_search.index.columns import ColumnBuilder, Columns, DamagedColumns, comparable, split
from brivl_search.index.types import UNKNOWN_TIME

DIM = 8
ODD: list[Any] = [
    {"path": "/p/a.jpg", "width": 10, "height": 2**60, "taken": "2024-05-01T12:00:00"},
    {"path": "/p/b\udcff.jpg", "width": "x", "fields": {"width": 7, "tag": ["a", 1, True, None, [2], {"b": 1}]}},
    {"path": "p", "note": None, "deep": {"a": 1}, "nan": math.nan, "inf": [math.inf, 3]},
    {"path": "/tar.tar::in/ner.jpg", "fields": {"tag": "a", "big": 9007199254740993, "float": 9007199254740992.0}},
    {"path": "/tar.tar::x.jpg", "fields": "no object", "flag": True, "one": 1},
    {"path": "/p/\n\0é狗.jpg", "fields": {"flag": 1, "one": 1.0}},
]


def columns_of(records: list[Any], keys: list[str] | None = None, path_name: str = "path") -> Columns:
    keys = keys or [f"{number:04}" for number in range(len(records))]
    builder = ColumnBuilder(path_name)
    for key, record in zip(keys, records, strict=True):
        builder.add(key, record)
    return Columns(np.frombuffer(builder.to_bytes(lambda: keys), np.uint8))


def decoded(columns: Columns) -> list[tuple[str, dict[str, Any]]]:
    heads, tails = columns.heads(), columns.tails()
    paths = [heads[at] + tail for at, tail in zip(columns.head_of_paths(len(tails)).tolist(), tails, strict=True)]
    numbers = columns.path_of_rows()
    rows: list[tuple[str, dict[str, Any]]] = [
        (paths[row if numbers is None else int(numbers[row])], {}) for row in range(columns.rows)
    ]
    for name in columns.names:
        column = columns.column(name)
        assert column is not None
        values, codes = column
        for row, code in enumerate(codes.tolist()):
            if code:
                rows[row][1][name] = values[code - 1]
    return rows


def expected(record: dict[str, Any], path_name: str = "path") -> tuple[str, dict[str, Any]]:
    found = {"record/" + name: comparable(value) for name, value in record.items() if name not in ("path", "fields")}
    if isinstance(record.get("fields"), dict):
        found |= {"fields/" + name: comparable(value) for name, value in record["fields"].items()}
    return str(record.get(path_name, "")), {name: value for name, value in found.items() if value is not None}


def test_what_goes_in_comes_out() -> None:
    found = decoded(columns_of(ODD))
    assert json.dumps(found) == json.dumps([expected(record) for record in ODD])  # 1, 1.0 and true are not one
    assert decoded(columns_of([])) == []


def test_paths_are_split_at_their_last_separator() -> None:
    for path in ("", "a", "/", "/a", "/a/b", "/t.tar::a", "/t.tar::a/b", "/a::b/c::d", "::", "a:b", "/x/a:b"):
        head, tail = split(path)
        assert head + tail == path and "/" not in tail and "::" not in tail
        assert not head or head.endswith(("/", "::"))


def test_captions_share_their_images_paths() -> None:
    records = [{"text": str(n), "image": f"/p/{n // 5}.jpg"} for n in range(20)]
    columns = columns_of(records, path_name="image")
    assert columns.count_paths() == 4 and [path for path, _ in decoded(columns)] == [r["image"] for r in records]


@pytest.mark.parametrize("keys", [["a", "b", "c"], ["c", "a", "b"], ["é", "z", "\udcff"], ["b", "b" * 600, "a"]])
def test_rank(keys: list[str]) -> None:
    rank = columns_of([{"path": key} for key in keys], keys).rank()
    places = list(range(len(keys))) if rank is None else rank.tolist()
    assert [keys[at] for at in np.argsort(places)] == sorted(keys)
    assert (rank is None) == (keys == sorted(keys))


def test_what_takes_too_much_room_is_left_to_the_records() -> None:
    long = [{"path": str(n), "poem": f"{n:09}" * 50, "n": n} for n in range(5000)]
    columns = columns_of(long)
    assert not columns.knows("poem") and columns.knows("n") and columns.knows("nothing")
    assert columns.column("record/poem") is None
    many = columns_of([{"path": str(n), f"field {n}": n} for n in range(300)])
    assert len(many.names) == 256 and not many.knows("field 299")
    assert not many.knows("text") and not many.knows("path")


def test_damage_is_found_part_by_part() -> None:
    builder = ColumnBuilder("path")
    for number in range(100):
        builder.add(f"{number:03}", {"path": f"/p/{number}", "n": number})
    raw = bytearray(builder.to_bytes(list))
    Columns(np.frombuffer(bytes(raw), np.uint8)).tails()
    for broken in (raw[:3], raw[:50], b"\xff" * 80, raw[:-100]):
        with pytest.raises(DamagedColumns):
            decoded(Columns(np.frombuffer(bytes(broken), np.uint8)))
    raw[raw.index(b'"51"')] ^= 1
    with pytest.raises(DamagedColumns, match="tails"):
        decoded(Columns(np.frombuffer(bytes(raw), np.uint8)))


def put(writer: IndexWriter, modality: Modality, records: list[dict[str, Any]], time: int = 0) -> None:
    names = [f"{modality}-{ascii(record['path' if modality == 'image' else 'text'])[1:-1]}" for record in records]
    writer.stage_vectors(modality, names, np.random.default_rng(0).standard_normal((len(names), DIM)))
    for name, record in zip(names, records, strict=True):
        writer.put(modality, Item(record.get("path", name), name, 5, time, record))


def writer(folder: Path, **options: Any) -> IndexWriter:
    return IndexWriter(folder, encoder_name="e", fingerprint="f", dim=DIM, **options)


def without_columns(folder: Path) -> None:
    """As an older version sealed it: no columns, and no times in the catalog."""
    with lmdb.open(str(folder / "catalog.lmdb"), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        meta = json.loads(txn.get(b"meta"))
        for name, part in meta["parts"].items():
            for info in part["shards"]:
                path = folder / "shards" / info["name"]
                with lmdb.open(str(path), subdir=False, map_size=1 << 30, lock=False) as shard:
                    with shard.begin(write=True) as change:
                        change.delete(b"columns")
                    shard.sync(True)
                info["places"] = {}
                info["bytes"], info["mtime_ns"] = path.stat().st_size, path.stat().st_mtime_ns
                info["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
                txn.delete(b"times/" + info["name"].encode())
                assert name
        txn.put(b"meta", json.dumps(meta).encode())


def test_sealed_or_made_from_records_they_are_the_same(tmp_path: Path) -> None:
    with writer(tmp_path, shard_rows=4) as w:
        put(w, "image", ODD, 77)
        put(w, "text", [{"text": str(n), "image": f"/p/{n % 3}.jpg", "field": "en"} for n in range(9)])
        w.commit()
    with IndexReader.open(tmp_path) as reader:
        sealed = {m: [decoded(one) for one in reader.columns(m)] for m in ("image", "text")}  # type: ignore[arg-type]
        records = [record for _, _, record in reader.records("image")]
        assert [row for shard in sealed["image"] for row in shard] == [expected(record) for record in records]
        mended = reader.mend_columns("image", 0)
        assert decoded(mended) == sealed["image"][0]
        times = reader.mtimes("image")
    without_columns(tmp_path)
    with IndexReader.open(tmp_path) as reader:
        assert {m: [decoded(one) for one in reader.columns(m)] for m in sealed} == sealed  # type: ignore[arg-type]
        assert all(np.array_equal(a, b) for a, b in zip(times, reader.mtimes("image"), strict=True))


def test_times_follow_what_is_touched_added_removed_and_merged(tmp_path: Path) -> None:
    def record(number: int) -> dict[str, Any]:
        return {"path": f"/p/{number:03}"}

    wanted: dict[str, int] = {}

    def check() -> None:
        with IndexReader.open(tmp_path) as reader:
            times = reader.mtimes("image")
            found = {r["path"]: int(times[shard][row]) for shard, row, r in reader.records("image")}
        assert found == wanted and verify(tmp_path).ok

    for step in range(6):
        with writer(tmp_path, shard_rows=40) as w:
            fresh = [record(number) for number in range(10 * step, 10 * step + 10)]
            put(w, "image", fresh, 1000 + step)
            wanted |= {one["path"]: 1000 + step for one in fresh}
            if step:
                old = f"/p/{10 * step - 3:03}"
                w.put("image", Item(old, f"image-{old}", 5, 5000 + step, {"path": old}))  # only its time
                wanted[old] = 5000 + step
                gone = f"/p/{10 * step - 5:03}"
                w.remove("image", gone)
                del wanted[gone]
            w.commit(compact=step == 4)
        check()
    with writer(tmp_path) as w:
        w.put("image", Item("/p/000", "image-/p/000", 0, 0, {"path": "/p/000"}))
        wanted["/p/000"] = UNKNOWN_TIME
        w.commit()
    check()
