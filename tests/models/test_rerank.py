"""The bundled matcher: it loads beside brivl-mini, prefers what is there, and is named in errors."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Origin
from brivl_search.encoders.matching import bundled_matchers, load_matcher
from brivl_search.encoders.registry import bundled
from brivl_search.errors import UsageError
from tests.support.pictures import draw


def test_it_reads_both_languages_and_tells_pictures_apart() -> None:
    encoder = load_encoder("brivl-mini", device="cpu")
    matcher = load_matcher("brivl-mini-rerank", encoder, device="cpu")
    size = matcher.pixels.size
    pictures = [draw("red", "circle", (size, size), 1), draw("green", "square", (size, size), 2)]
    shown = matcher.pictures(np.stack([np.asarray(one) for one in pictures]), [Origin("", size, size)] * 2)
    for texts in (("a red circle", "a green square"), ("红色的圆", "绿色的方块")):
        scores = matcher.scores([texts[0], texts[0], texts[1], texts[1]], [*shown, *shown]).reshape(2, 2)
        assert np.isfinite(scores).all()
        assert scores[0, 0] + scores[1, 1] > scores[0, 1] + scores[1, 0]


def test_names() -> None:
    assert bundled_matchers() == ["brivl-mini-rerank"] and "brivl-mini-rerank" not in bundled()
    with pytest.raises(UsageError, match=r"brivl-mini-rerank is no encoder: it re-orders hits"):
        load_encoder("brivl-mini-rerank")
    with pytest.raises(UsageError, match=r"no matcher 'nobody': give brivl-mini-rerank, the folder of one"):
        load_matcher("nobody", load_encoder("brivl-mini"))
