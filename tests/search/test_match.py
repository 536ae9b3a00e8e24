"""A match is known between one text and one picture only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import UsageError
from brivl_search.search import engine as engine_module
from brivl_search.search import match
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.filters import Filter
from brivl_search.search.queries import compose
from brivl_search.search.sample import vectors_of
from tests.support.sure import sure


def test_match_is_given_between_text_and_picture_only(index: Path, shapes: Path) -> None:
    engine, ring = Engine(index), shapes / "red-ring.png"
    assert all(hit.match is None for hit in engine.by_text("a red ring", SearchOptions(3)))
    engine.encoder.calibration = Calibration(10, -5)
    for hit in (*engine.by_text("a red ring", SearchOptions(9)), *engine.by_image(ring, SearchOptions(9))):
        assert hit.match == pytest.approx(1 / (1 + np.exp(5 - 10 * hit.score)))
        assert hit.to_dict()["match"] == round(hit.match or 0, 4)
    alike = engine.by_image(ring, SearchOptions(3), target="image")
    alike += engine.by_text("a red ring", SearchOptions(3), target="text")
    assert len(alike) == 6 and all(hit.match is None and "match" not in hit.to_dict() for hit in alike)


# -- the chance of a hit -----------------------------------------------------------------------------------------


def sure_of(engine: Engine) -> Engine:
    setattr(engine.encoder, "confidence", sure())  # noqa: B010 - the stub has none
    return engine


def test_a_hits_match_is_its_chance_in_this_collection(index: Path, shapes: Path) -> None:
    engine = sure_of(Engine(index))
    whole = vectors_of(engine.reader, "image")
    (query,) = engine.encoder.encode_texts(["a red ring"])
    scores = np.sort(whole @ query)[::-1][:9]
    hits = engine.by_text("a red ring", SearchOptions(9))
    place = (scores - (whole @ query).mean()) / (whole @ query).std()
    expected = 1 / (1 + np.exp(-(2 * place - np.sqrt(2 * np.log(30)) - 1)))
    np.testing.assert_allclose([hit.match for hit in hits], expected, rtol=1e-3)  # type: ignore[arg-type]
    few = engine.by_text("a red ring", SearchOptions(3, filter=Filter.of(glob=["*-ring.png"])))
    assert few[0].score == pytest.approx(hits[0].score) and (few[0].match or 0) > (
        hits[0].match or 0
    )  # of 6, not of 30
    captions = engine.by_image(shapes / "red-ring.png", SearchOptions(3))
    assert captions[0].kind == "text" and captions[0].match is not None
    assert engine.by_text("a red ring", SearchOptions(3), target="text")[0].match is None
    folded = engine.by_text("a red ring", SearchOptions(1, alike=0.5))[0]
    assert folded.duplicates and all(hit.match is not None for hit in folded.duplicates)


def test_least_match_and_whether_anything_fits(index: Path) -> None:
    engine = sure_of(Engine(index))
    hits = engine.by_text("a red ring", SearchOptions(30))
    least = hits[4].match or 0
    assert len(engine.by_text("a red ring", SearchOptions(30, min_match=least))) == 5
    assert match.fits(hits) is True and hits[0].fits is True and hits[-1].fits is False
    assert match.fits(hits[-1:]) is False and hits[-1].to_dict()["fits"] is False
    assert match.fits([]) is None and match.fits(engine.by_text("a red ring", SearchOptions(3), target="text")) is None


def test_how_many_fit(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are looked at one by one; or the best alone, and a sample stands for the rest."""
    engine = sure_of(Engine(index))
    hits = engine.by_text("a red ring", SearchOptions(30))
    found = engine.count(compose("a red ring"))
    known = [hit.match or 0 for hit in hits]
    assert found.fit == pytest.approx(sum(one for one in known if one >= 0.05)) and found.fit < sum(known)
    assert found.looked_at == found.rows == 30
    monkeypatch.setattr(engine_module, "LOOKED_AT", 4)
    few = engine.count(compose("a red ring"))
    assert few.looked_at == 4 and few.rows == 30 and few.fit == pytest.approx(found.fit, rel=0.02)
    rings = engine.count(compose("a red ring"), SearchOptions(filter=Filter.of(glob=["*-ring.png"])))
    assert rings.rows == 6 and rings.fit <= 6
    for query in (compose("a red ring", plus=["snow"]), compose(image=["x.png"])):
        with pytest.raises(UsageError):
            engine.count(query, target="image")
    setattr(engine.encoder, "confidence", None)  # noqa: B010
    engine.encoder.calibration = Calibration(10, -5)
    with pytest.raises(UsageError, match="calibration of pairs alone"):
        engine.count(compose("a red ring"))
