"""The hash of search is ImageHash's, and tells pictures apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.corpus.phash import LOOK_SIDE, distance, look, perceptual_hash
from tests.support import pictures


def test_the_look_is_the_phash_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash")
    rng = np.random.default_rng(0)
    for _ in range(5):
        grey = rng.integers(0, 255, (LOOK_SIDE, LOOK_SIDE), np.uint8)
        theirs = imagehash.phash(Image.fromarray(grey), hash_size=16, highfreq_factor=4)
        assert perceptual_hash(grey.astype(np.float32)) == int(str(theirs), 16)


@pytest.mark.parametrize("spec", [PixelSpec(64), PixelSpec(224), PixelSpec(448, antialias=False), PixelSpec(32)])
def test_the_look_hardly_depends_on_what_the_tower_takes(spec: PixelSpec) -> None:
    data = pictures.encoded(pictures.draw("blue", "triangle", (700, 500), seed=2), "JPEG")
    assert distance(decode(data, spec).look, decode(data, PixelSpec(LOOK_SIDE)).look) <= 12


def test_the_look_is_of_the_whole_picture_also_where_the_tower_sees_its_middle() -> None:
    middle = pictures.draw("blue", "triangle", (300, 300))
    wide = Image.new("RGB", (900, 300), "white")
    wide.paste(middle, (300, 0))
    wide.paste((255, 0, 0), (0, 0, 200, 150))
    other = wide.copy()
    other.paste((0, 0, 0), (0, 0, 250, 300))
    codes = [decode(pictures.encoded(one, "PNG"), PixelSpec(96, "crop")).look for one in (wide, other)]
    assert distance(*codes) > 40


def test_hashes_are_64_digits() -> None:
    assert len(look(np.zeros((LOOK_SIDE, LOOK_SIDE, 3), np.uint8))) == 64
