"""Filters are exact: k results that satisfy them if they exist, whatever the index does inside."""

from __future__ import annotations

import os
import random
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brivl_search.corpus import exif
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, IndexWriter, Item, ivfpq
from brivl_search.search import held
from brivl_search.search.allowed import allowed, time_of
from brivl_search.search.filters import Filter, parse_time

DIM, ROWS = 16, 1200
DAY = 86_400
FOLDERS = ("c", 'a"b')


def record(row: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "path": f"/photos/{FOLDERS[row % 3 > 0]}/IMG_{row:04}.jpg",
        "width": 100 + row,
        "height": 900,
    }
    if row % 4 == 0:
        body["taken"] = f"20{row % 30:02}-05-01T12:00:00"
    if row % 5 == 0:
        body["fields"] = {
            "split": "test" if row % 2 else "train",
            "year": 2000 + row % 7,
            "tags": ["x", "y"],
            "ok": True,
        }
    return body


@pytest.fixture(scope="module", params=["exact", "ivfpq"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ivfpq.faiss_module().omp_set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    with IndexWriter(
        folder, encoder_name="mini", fingerprint="f", dim=DIM, index_type=request.param, shard_rows=500
    ) as w:
        for side in ("image", "text"):
            w.stage_vectors(side, [f"{row}" for row in range(ROWS)], rng.standard_normal((ROWS, DIM)))
        for row in range(ROWS):
            body = record(row)
            w.put("image", Item(body["path"], f"{row}", 1, row * DAY * 10**9, body))
            text = {"text": f"t{row}", "field": "zh" if row % 2 else "en", "image": body["path"]}
            if row % 6 == 0:
                text["fields"] = {"split": "val"}
            w.put("text", Item(f"{body['path']}\0zh\0{row}", f"{row}", record=text))
        w.commit()
    return folder


def rows_of(reader: IndexReader, side: Any, masks: list[NDArray[np.bool_]]) -> set[int]:
    found = set()
    for shard, row, body in reader.records(side):
        if masks[shard][row]:
            found.add(int(os.path.basename(body["path" if side == "image" else "image"])[4:8]))
    return found


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"under": ['/photos/a"b']}, lambda r, b: r % 3),
    ({"under": ["/photos/a"]}, lambda r, b: False),
    ({"under": ["/photos/c", '/photos/a"b/']}, lambda r, b: True),
    ({"glob": ["IMG_00*.jpg"]}, lambda r, b: r < 100),
    ({"glob": ["/photos/c/*7.jpg", "IMG_0001.*"]}, lambda r, b: (r % 3 == 0 and r % 10 == 7) or r == 1),
    ({"min_size": "700x900"}, lambda r, b: r >= 600),
    ({"min_size": "901"}, lambda r, b: False),
    ({"after": "2010"}, lambda r, b: b.get("taken", "") >= "2010"),
    ({"before": "1970-02-01"}, lambda r, b: "taken" not in b and r < 31),
    ({"after": "1971", "before": "2005"}, lambda r, b: b["taken"] < "2005" if "taken" in b else r >= 365),
]


@pytest.mark.parametrize(("given", "fits"), CASES)
@pytest.mark.parametrize("side", ["image", "text"])
def test_of_the_image(
    index: Path, given: dict[str, Any], fits: Any, side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    with IndexReader.open(index) as reader:
        found = rows_of(reader, side, allowed(reader, side, Filter.of(**given)))
    assert found == {row for row in range(ROWS) if fits(row, record(row))}


@pytest.mark.parametrize(
    ("side", "where", "fits"),
    [
        ("image", ["split=test"], lambda r: r % 10 == 5),
        ("image", ["split=test", "split=train"], lambda r: r % 5 == 0),
        ("image", ["split=test", "year=2003"], lambda r: r % 10 == 5 and r % 7 == 3),
        ("image", ["year=2003.0"], lambda r: r % 5 == 0 and r % 7 == 3),
        ("image", ["tags=y", "ok=true"], lambda r: r % 5 == 0),
        ("image", ["width=150"], lambda r: r == 50),
        ("image", ["split=tes"], lambda r: False),
        ("text", ["field=zh"], lambda r: r % 2),
        ("text", ["split=val"], lambda r: r % 6 == 0),
    ],
)
def test_where(index: Path, side: Any, where: list[str], fits: Any) -> None:
    with IndexReader.open(index) as reader:
        assert rows_of(reader, side, allowed(reader, side, Filter.of(where=where))) == set(filter(fits, range(ROWS)))


def test_k_hits_that_fit_are_found_if_there_are_so_many(index: Path) -> None:
    """Also where IVF-PQ's first candidates all fail the filter."""
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((20, DIM)).astype(np.float32)
    with IndexReader.open(index) as reader:
        for given in ({"glob": ["IMG_00*"]}, {"where": ["split=test"]}, {"min_size": "101x1"}):
            masks = allowed(reader, "image", Filter.of(**given))  # type: ignore[arg-type]
            near = reader.search("image", queries, 10, nprobe=1, rerank=10, allow=masks)
            exact = reader.search("image", queries, 10, exact=True, allow=masks)
            assert (near.rows >= 0).all()
            for shards, rows in zip(near.shards, near.rows, strict=True):
                assert all(masks[shard][row] for shard, row in zip(shards, rows, strict=True))
            if sum(mask.sum() for mask in masks) < 200:  # so few are compared one by one
                assert np.array_equal(near.rows, exact.rows)


def test_unknown_fields(index: Path) -> None:
    with (
        IndexReader.open(index) as reader,
        pytest.raises(UsageError, match=r"unknown field 'splitt' \(there are: height, ok, split, tags"),
    ):
        allowed(reader, "image", Filter.of(where=["splitt=test"]))


@pytest.mark.parametrize(
    "given", [{"after": "soon"}, {"before": "2024-13"}, {"min_size": "big"}, {"where": ["split"]}, {"where": ["=x"]}]
)
def test_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"`(after|before|min_size|where)` "):
        Filter.of(**given)


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_time("after", "2024") == parse_time("after", "2024-01-01T00:00")
    assert parse_time("after", "2024-03") - parse_time("after", "2024-02") == pytest.approx(29 * DAY, abs=7200)
    assert parse_time("after", "1970-01-02T00:00+00:00") == DAY
    assert not Filter() and Filter.of(glob=["x"])


def test_a_file_of_the_epoch_has_a_time_and_an_imported_vector_has_none(tmp_path: Path) -> None:
    with IndexWriter(tmp_path, encoder_name="mini", fingerprint="f", dim=DIM) as w:
        w.stage_vectors("image", ["a", "b", "c", "d"], np.eye(4, DIM))
        w.put("image", Item("/epoch", "a", 10, 0, {"path": "/epoch"}))
        w.put("image", Item("/imported", "b", 0, 0, {"path": "/imported"}))
        w.put("image", Item("/old", "c", 10, 5 * DAY * 10**9, {"path": "/old", "taken": "2002-12-08T00:00:00"}))
        w.put("image", Item("/zone", "d", 10, 0, {"path": "/zone", "taken": "2020-01-01T00:30:00+14:00"}))
        w.commit()
    with IndexReader.open(tmp_path) as reader:

        def those(**given: str) -> set[str]:
            masks = allowed(reader, "image", Filter.of(**given))  # type: ignore[arg-type]
            return {record["path"] for shard, row, record in reader.records("image") if masks[shard][row]}

        assert those(before="1971") == {"/epoch", "/old"}
        assert those(after="1960", before="2030") == {"/epoch", "/old", "/zone"}
        assert those(after="2019-12-31T10:30:00+00:00", before="2019-12-31T10:31:00+00:00") == {"/zone"}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
def test_times_are_those_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Also near a change of the clocks, with and without zones, of clocks never set, and of what is no time."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        rng = random.Random(zone)
        taken: list[Any] = [None, "", "soon", 5, "2024-02-30T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59"]
        taken += [f"2024-{month:02}-{day:02}" for month, day in ((3, 10), (11, 3), (5, 1))]
        taken += [moment.isoformat() for moment in sorted(exif._NO_CLOCK_AT)]
        taken += [f"{day.isoformat()}T07:08:09" for day in sorted(exif._NO_CLOCK)]
        for _ in range(300):
            moment = datetime(2024, rng.choice([3, 11]), rng.randint(1, 12), rng.randint(0, 23), rng.randint(0, 59))
            taken.append(moment.isoformat() + rng.choice(["", "", ".25", "+09:00", "-05:00", "Z", "+14:00"]))
        with IndexWriter(tmp_path, encoder_name="mini", fingerprint="f", dim=4, shard_rows=100) as w:
            w.stage_vectors("image", [f"{n}" for n in range(len(taken))], np.ones((len(taken), 4)))
            for number, text in enumerate(taken):
                body = {"path": f"/p/{number:04}"} | ({} if text is None else {"taken": text})
                w.put("image", Item(body["path"], f"{number}", number % 3, number % 5 * 10**17, body))
            w.commit()
        with IndexReader.open(tmp_path) as reader:
            changed = reader.mtimes("image")
            when = {
                (shard, row): time_of(record, int(changed[shard][row]))
                for shard, row, record in reader.records("image")
            }
            known = sorted(moment for moment in when.values() if moment is not None)
            for _ in range(25):
                after, before = sorted(rng.choices(known, k=2))
                masks = allowed(reader, "image", Filter(after=after, before=before))
                found = {(shard, row) for shard, mask in enumerate(masks) for row in np.flatnonzero(mask).tolist()}
                assert found == {at for at, one in when.items() if one is not None and after <= one < before}
            assert held.span(reader) == (known[0], known[-1])
    finally:
        monkeypatch.undo()
        time.tzset()
