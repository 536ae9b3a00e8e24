"""The bundled brivl-mini: it loads, it is small, and (where ../shared lies beside) it finds what it should."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.encoders.registry import BUNDLED
from brivl_search.evaluation import Evaluation, evaluate_dataset
from tests.support.folders import SHARED
from train.mini.holdout import write_holdout

FLICKR = SHARED / "data" / "flickr8k-cn"
needs_shared = pytest.mark.skipif(not FLICKR.is_dir(), reason="../shared/data/flickr8k-cn is not here")


@pytest.fixture(scope="module")
def mini() -> Encoder:
    return load_encoder("brivl-mini")


def test_it_is_small_and_says_how_it_was_made() -> None:
    folder = BUNDLED / "brivl-mini"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 60e6
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    training = config["training"]
    assert training["recipe"]["run"] and training["averaged"] and training["averaged_text"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Flickr8k" in card and "non-commercial" in card


def test_both_languages_land_near_each_other(mini: Encoder) -> None:
    zh = mini.encode_texts(["一只在草地上奔跑的狗", "一个男人骑着自行车", "海滩上的孩子", "一个人在攀岩"])
    english = (
        "a dog running on the grass",
        "a man riding a bicycle",
        "a child on the beach",
        "a person climbing a rock",
    )
    en = mini.encode_texts(english)
    assert ((zh @ en.T).argmax(1) == np.arange(4)).all()


class Watched:
    """The encoder, and the vectors of all pictures that it saw."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.seen: list[np.ndarray] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        self.seen.append(encode_pictures(self.encoder, pixels, origins))
        return self.seen[-1]


@pytest.fixture(scope="module")
def held_out(mini: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, np.ndarray]:
    """The evaluation of the last 500 photos, and their vectors: they are embedded once for all tests here."""
    folder = tmp_path_factory.mktemp("held-out")
    write_holdout(FLICKR, 500, folder)
    watched = Watched(mini)
    result = evaluate_dataset(load_dataset(folder, "zh_mt_google"), watched, (1, 5, 10), lambda steps: None)
    return result, np.concatenate(watched.seen)


@pytest.mark.slow
@pytest.mark.shared
@needs_shared
def test_recall_on_the_held_out_photos(held_out: tuple[Evaluation, np.ndarray]) -> None:
    result, _ = held_out
    to_image, to_text = result.text_to_image["exact"], result.image_to_text["exact"]
    assert to_image is not None and to_text is not None
    assert (to_image.queries, to_image.candidates, to_text.queries) == (2500, 500, 500)
    # What this checkpoint reaches (80.6 and 83.8), less what precision and processors may change.
    assert to_image.recall[10] >= 79.3 and to_text.recall[10] >= 82.5


@pytest.mark.slow
@pytest.mark.shared
@needs_shared
def test_dogs_on_grass(mini: Encoder, held_out: tuple[Evaluation, np.ndarray]) -> None:
    rows = [json.loads(line) for line in (FLICKR / "captions.jsonl").read_text(encoding="utf-8").splitlines()[-500:]]
    images = held_out[1]
    first = mini.encode_images(load_pixels(str(FLICKR / rows[0]["image"]), mini.pixels)[None])
    assert images.shape == (500, mini.dim) and images[0] @ first[0] > 0.999  # in the order of the lines
    for words in ("一只在草地上的狗", "a dog on the grass"):
        best = np.argsort(-(images @ mini.encode_texts([words])[0]))[:10]
        captions = [" ".join(rows[i]["en"]).lower() for i in best]
        dogs = [any(word in text for word in ("dog", "puppy")) for text in captions]
        grass = [any(word in text for word in ("grass", "field", "lawn", "yard", "park", "green")) for text in captions]
        assert sum(dogs) >= 9 and sum(grass) >= 6
