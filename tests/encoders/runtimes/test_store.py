"""The files of an export: whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from brivl_search.encoders.runtimes import store
from brivl_search.encoders.runtimes.choice import Choice


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x" * 100)
    store.Facts(1.0, ["pixels"]).write(folder)
    return folder


def test_places_differ_by_encoder_side_runtime_and_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRIVL_SEARCH_EXPORTS", str(tmp_path))
    fp32, int8 = Choice("onnx", "fp32"), Choice("onnx", "int8")
    places = {
        store.place("a", "image", fp32),
        store.place("b", "image", fp32),
        store.place("a", "text", fp32),
        store.place("a", "image", int8),
        store.place("a", "image", Choice("openvino", "int8")),
    }
    assert len(places) == 5 and all(place.parent == tmp_path for place in places)
    assert store.place("../../a/b", "image", fp32).parent == tmp_path


def test_without_a_setting_exports_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BRIVL_SEARCH_EXPORTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.home() == tmp_path / "brivl-search" / "exports"


def test_a_whole_export_is_read(made: Path) -> None:
    facts = store.read(made)
    assert facts is not None and facts.files == {"model.onnx": 100} and facts.inputs == ["pixels"]


@pytest.mark.parametrize(
    "harm", ["cut", "gone", "facts cut", "facts of another kind", {"texts": {"length": 7, "new": 1}}, {"cosine": "1"}]
)
def test_what_is_not_whole_is_not_there(made: Path, harm: str | dict[str, object]) -> None:
    if harm == "cut":
        (made / "model.onnx").write_bytes(b"x" * 99)
    elif harm == "gone":
        (made / "model.onnx").unlink()
    elif harm == "facts cut":
        (made / store.FACTS).write_text((made / store.FACTS).read_text()[:-9])
    elif isinstance(harm, dict):  # of another version of this program
        (made / store.FACTS).write_text(json.dumps(json.loads((made / store.FACTS).read_text()) | harm))
    else:
        (made / store.FACTS).write_text('{"other": 1}')
    assert store.read(made) is None


def test_a_finished_export_takes_the_place_of_a_damaged_one_and_leaves_a_whole_one(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "model.onnx").write_bytes(b"half")
    store.put(made, place)
    assert store.read(place) is not None and not made.exists()
    made.mkdir()
    (made / "model.onnx").write_bytes(b"y" * 7)
    store.Facts(1.0, ["pixels"]).write(made)
    store.put(made, place)
    facts = store.read(place)
    assert facts is not None and facts.files == {"model.onnx": 100} and not made.exists()


def test_what_a_killed_process_left_is_in_nobodys_way_and_goes_after_a_day(tmp_path: Path) -> None:
    place = tmp_path / "exports" / "place"
    one, other = store.unfinished(place), store.unfinished(place)  # by processes of the same number
    assert one != other and one.parent == place.parent
    (one / "model.onnx").write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    os.utime(one, (yesterday, yesterday))
    store.unfinished(place)
    assert one.is_dir()  # something in it was written just now
    os.utime(one / "model.onnx", (yesterday, yesterday))
    store.unfinished(place)
    assert not one.exists() and other.is_dir()


def test_two_that_finish_at_once_lose_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, first = tmp_path / "place", tmp_path / "first"
    shutil.copytree(made, first)
    read, found = store.read, []

    def meanwhile(folder: Path) -> store.Facts | None:
        found.append(read(folder))
        if len(found) == 1:  # between this look and the renaming another process has put its own there
            shutil.rmtree(place)
            first.rename(place)
        return found[-1]

    place.mkdir()
    (place / "model.onnx").write_bytes(b"half")
    monkeypatch.setattr(store, "read", meanwhile)
    store.put(made, place)
    assert read(place) is not None and not made.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_refusal_is_remembered_until_a_package_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "new" / "place"
    assert store.refusal(place) == ""
    store.refuse(place, "no such layer")
    assert store.refusal(place) == "no such layer"
    monkeypatch.setattr(store, "versions", lambda: {"torch": "99"})
    assert store.refusal(place) == ""


def test_vectors_count_as_torchs_from_a_cosine_on() -> None:
    assert store.Facts(0.9995, ["pixels"]).same and not store.Facts(0.998, ["pixels"]).same
    assert store.Facts(0.997, ["pixels"], 0.995).same  # torch's own bfloat16 is further away
