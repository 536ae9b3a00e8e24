"""Values of fields are compared exactly, whatever type they have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import EncoderInfo, IndexReader, IndexWriter, Item
from brivl_search.search.allowed import allowed
from brivl_search.search.compare import Accepted, pixels
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.filters import Filter
from brivl_search.search.queries import compose
from brivl_search.transfer.imports import import_vectors
from tests.support.pictures import write_lines
from tests.support.stub import StubEncoder

BIG = 9_007_199_254_740_993  # 2^53 + 1, which no float is


@pytest.mark.parametrize(
    ("value", "found_by", "not_by"),
    [
        (BIG, [f"{BIG}", f"+{BIG}", f"{BIG}.0"], [f"{BIG - 1}", f"{BIG + 1}", f"{BIG - 1}.0"]),
        (-BIG, [f"-{BIG}"], [f"{BIG}", f"-{BIG - 1}"]),
        (float(BIG - 1), [f"{BIG - 1}", f"{BIG - 1}.0"], [f"{BIG}"]),
        (10**30, [f"{10**30}", "1e30"], [f"{10**30 + 1}", "1e29"]),
        (2003, ["2003", "2003.0", "2.003e3", "02003"], ["2003.5", "2003 ", "x", "", "2_003", "true"]),
        (0.1, ["0.1", ".1", "1e-1"], ["0.10000001", "0"]),
        (1e300, ["1e300"], ["1e301"]),
        (2.0, ["2", "2.0"], ["3"]),
        (1, ["1"], ["true", "True"]),
        (True, ["true", "True", "TRUE"], ["1", "yes"]),
        (False, ["false"], ["0", ""]),
        ("2003", ["2003"], ["2003.0"]),
        ("true", ["true"], ["True"]),
        ("café", ["café", "cafe\u0301"], ["cafe", "CAFÉ"]),
        ("cafe\u0301", ["café", "cafe\u0301"], ["cafe"]),
        ("", [""], ["x"]),
        ("nan", ["nan"], ["inf"]),
        (["a", BIG, True, None, ["deep"]], ["a", f"{BIG}", "true"], [f"{BIG - 1}", "deep", "None", "null"]),
        ({"a": 1}, [], ["a", "1", "{'a': 1}"]),
        (None, [], ["None", "null", ""]),
    ],
    ids=repr,
)
def test_fits(value: Any, found_by: list[str], not_by: list[str]) -> None:
    for text in found_by:
        assert Accepted([text]).fits(value), text
        assert Accepted(["nothing", text]).fits(value)
    for text in not_by:
        assert not Accepted([text]).fits(value), text


def test_numbers_as_long_as_somebody_likes_to_type() -> None:
    for text in ("9" * 5000, "1e999999999", "-" + "9" * 401, "1" * 300 + "e999"):
        assert not Accepted([text]).fits(9)


def test_pixels() -> None:
    assert [pixels(value) for value in (7, 7.5, "7", " 8 ", "x", "7.5", True, None, [7], {})] == [
        *(7, 7.5, 7, 8),
        *(0, 0, 0, 0, 0, 0),
    ]
    huge = [pixels(value) for value in (10**400, -(10**400), "9" * 400, float("nan"), float("inf"))]
    assert huge == [math.inf, -math.inf, math.inf, 0, math.inf] and [float(value) for value in huge] == huge


@pytest.mark.parametrize("name", ["min_score", "min_match", "alike"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_least_value_that_nothing_compares_with_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"`{name}` {value:g}: give a number"):
        SearchOptions(**{name: value})
    SearchOptions(**{name: 0.5})


ROWS: list[dict[str, Any]] = [
    {"path": "/p/0", "id": BIG, "width": "x", "height": 100},
    {"path": "/p/1", "id": BIG - 1, "width": 200, "height": "300", "fields": {"width": "wide", "camera": "F"}},
    {"path": "/p/2", "id": str(BIG), "width": [1, 2], "height": {"a": 1}, "camera": "R"},
    {"path": "/p/3", "id": [1, BIG], "width": True, "height": None, "taken": 5},
    {"path": "/p/4", "id": True, "width": 900.5, "height": 900, "taken": "yesterday"},
    {"path": "/p/5", "width": 10**400, "height": -(10**400)},
]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with IndexWriter(tmp_path / "index", encoder_name="stub", fingerprint="stub-fingerprint", dim=32) as w:
        w.stage_vectors("image", [f"c{n}" for n in range(len(ROWS))], np.eye(len(ROWS), 32))
        for number, record in enumerate(ROWS):
            w.put("image", Item(record["path"], f"c{number}", record=record))
        w.commit()
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"where": [f"id={BIG}"]}, {0, 2, 3}),
        ({"where": [f"id={BIG - 1}"]}, {1}),
        ({"where": ["id=true"]}, {4}),
        ({"where": ["width=wide"]}, {1}),  # the caption file's field goes before the record's own
        ({"where": ["width=200"]}, set()),
        ({"where": ["camera=F", "camera=R"]}, {1, 2}),
        ({"min_size": "100x100"}, {1, 4}),
        ({"min_size": "1x1"}, {1, 4}),
        ({"min_size": "0"}, {0, 1, 2, 3, 4}),
        ({"where": ["path=/p/3"]}, {3}),
        ({"after": "1900"}, set()),
    ],
)
def test_rows(index: Path, given: dict[str, Any], rows: set[int]) -> None:
    with IndexReader.open(index) as reader:
        (mask,) = allowed(reader, "image", Filter.of(**given))
    assert set(np.flatnonzero(mask).tolist()) == rows


def test_what_is_printed_is_json_with_the_types_it_says(index: Path) -> None:
    hits = Engine(index).query(compose("a"), SearchOptions(10))
    for hit in hits:
        row = json.loads(json.dumps(hit.to_dict(), allow_nan=False))
        assert all(row[name] is None or type(row[name]) is int for name in ("width", "height"))


def test_numbers_that_json_does_not_have_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(2, 4, dtype=np.float32))
    for value in ("NaN", "Infinity", "-Infinity", "1e999", "[1, [NaN]]", '{"deep": -1e999}'):
        (tmp_path / "r.jsonl").write_text('{"path": "a"}\n{"path": "b", "x": ' + value + "}\n")
        with pytest.raises(CorpusError, match=r"r\.jsonl:2: .*(no number in JSON|too large)"):
            import_vectors(
                tmp_path / "v.npy", tmp_path / "r.jsonl", "image", tmp_path / "i", EncoderInfo("e", "f", 4), list
            )
    write_lines(tmp_path / "r.jsonl", [{"path": "a"}, {"path": "b", "fields": ["x"]}])
    with pytest.raises(CorpusError, match=r"r\.jsonl:2: `fields` is \['x'\]: give an object"):
        import_vectors(
            tmp_path / "v.npy", tmp_path / "r.jsonl", "image", tmp_path / "i", EncoderInfo("e", "f", 4), list
        )


def test_records_of_an_older_import_with_nan(tmp_path: Path) -> None:
    """They are read as null, so that nothing that is printed of them is no JSON."""
    record = {"path": "/p/a", "width": float("nan"), "fields": {"x": float("inf"), "y": [1.5, float("nan")]}}
    with IndexWriter(tmp_path, encoder_name="stub", fingerprint="stub-fingerprint", dim=32) as w:
        w.stage_vectors("image", ["c"], np.eye(1, 32))
        w.put("image", Item("/p/a", "c", record=record))
        w.commit()
    with IndexReader.open(tmp_path) as reader:
        assert reader.record("image", 0, 0) == {"path": "/p/a", "width": None, "fields": {"x": None, "y": [1.5, None]}}
        assert [r for *_, r in reader.records("image")] == [reader.record("image", 0, 0)]
        assert [mask.tolist() for mask in allowed(reader, "image", Filter.of(where=["y=1.5"]))] == [[True]]
    (hit,) = Engine(tmp_path).query(compose("a"), SearchOptions(1))
    assert json.dumps(hit.record, allow_nan=False) and StubEncoder().dim == 32
