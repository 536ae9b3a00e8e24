"""The stub encoder under every name, and an index of all thirty drawings."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.errors import EncoderError
from brivl_search.search import live
from tests.support.pictures import COLOURS, SHAPES, captions, draw, write_lines
from tests.support.searching import build
from tests.support.stub import StubEncoder


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: object) -> StubEncoder:
        if name == "gone":
            raise EncoderError("no encoder 'gone'")
        return StubEncoder(name, "another" if name == "other" else "stub-fingerprint")

    monkeypatch.setattr(live, "load_encoder", load)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All thirty pictures, centred, so that each text's vector is one picture's, nearly."""
    folder = tmp_path_factory.mktemp("shapes")
    lines = []
    for colour in COLOURS:
        for shape in SHAPES:
            draw(colour, shape).save(folder / f"{colour}-{shape}.png")
            lines.append({"image": f"{colour}-{shape}.png", **captions(colour, shape)})
    write_lines(folder / "captions.jsonl", lines)
    return folder


@pytest.fixture(scope="module")
def index(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(shapes, tmp_path_factory.mktemp("index") / "shapes", StubEncoder())
