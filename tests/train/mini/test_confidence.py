"""Fitting chances: collections with known answers, the fit itself, and the whole command on drawn pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.confidence import CONFIDENCE, Chances
from brivl_search.evaluation.calibrating import expected_calibration_error
from tests.support.pictures import COLOURS, SHAPES, draw
from train.mini import asked, confidence, hits, strange
from train.mini.fitting import crossed, fit
from train.mini.hits import World, half
from train.mini.photos import Photo, read

pytest.importorskip("sklearn", reason="fitting needs scikit-learn")


def test_the_fit_finds_the_chances_that_made_the_answers() -> None:
    rng = np.random.default_rng(0)
    terms = rng.normal([0.3, 5.0], [0.1, 2.0], (20_000, 2))
    true = 1 / (1 + np.exp(-(12 * terms[:, 0] - 4 + 0.5 * (terms[:, 1] - 5))))
    right = (rng.random(len(true)) < true).astype(float)
    found = fit(terms, right, np.ones(len(true)))
    assert isinstance(found, Chances) and np.abs(found(terms) - true).mean() < 0.02
    judged = crossed(terms, right, np.ones(len(true)), np.arange(len(true)) % 2)
    assert expected_calibration_error(judged, right) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.zeros(100)) == pytest.approx(0.9)
    whole = fit(terms, true, np.ones(len(true)))  # answers that are chances themselves
    assert np.abs(whole(terms) - true).mean() < 0.01


def test_what_captions_name() -> None:
    of = {one.zh: one for one in asked.concepts()}
    assert of["狗"].shown(["A black Dog runs .", "x"]) and not of["狗"].shown(["a hotdog"])
    assert of["雪地里的狗"].shown(["two dogs in deep snow"]) and not of["雪地里的狗"].shown(["a dog", "snow"])
    shown = asked.table(asked.concepts()[:1], [["a dog"], ["a cat"]])
    assert shown.tolist() == [[True, False]]
    assert len(asked.nonsense()) > 20 and all(one.zh and one.en for one in asked.absent())


def test_strange_pictures_are_the_same_every_time() -> None:
    one, other = list(strange.made(2)), list(strange.made(2))
    assert [kind for kind, _ in one] == [kind for kind in strange.MADE for _ in range(2)]
    for (_, picture), (_, again) in zip(one, other, strict=True):
        assert picture.mode == "RGB" and picture.tobytes() == again.tobytes()
    assert one[0][1].tobytes() != one[1][1].tobytes()


@pytest.fixture
def world() -> World:
    """Ten photos with captions, of which five are trained on; six labelled ones; two strange pictures."""
    photos = [
        Photo(f"f/{at}", "flickr8k-cn", {"en": ["a dog runs" if at % 2 else "a cat sits"]}, seen=at < 5)
        for at in range(10)
    ]
    photos += [Photo(f"a/{at}", "everyday/animals", labels=frozenset({"狗", "dog"}), seen=False) for at in range(3)]
    photos += [Photo(f"b/{at}", "everyday/animals", labels=frozenset({"鱼", "fish"}), seen=False) for at in range(3)]
    vectors = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    return World(photos, vectors, None, np.ones((2, 4), np.float32))


def test_what_is_right_in_a_collection(world: World) -> None:
    rng, there = np.random.default_rng(0), np.arange(18)
    assert world.asking == [5, 6, 7, 8, 9] and world.names == ["dog", "fish", "狗", "鱼"]
    assert {at for at, _, _ in world.lessons} == {0, 1, 2, 3, 4}
    dog = next(one for one in world.things if one.zh == "狗")
    thing = world._thing(rng, there, [dog])
    expected = [0, 1] * 5 + [1] * 3 + [np.nan] * 3 + [0, 0]  # nobody says whether a fish's photo shows a dog
    np.testing.assert_array_equal(thing.right, expected)
    assert thing.kind == "thing" and thing.text in (dog.zh, dog.en)
    label = world._label(rng, there[:16], absent=False)
    assert (
        label is not None
        and label.right.sum() == 3
        and label.half == half(min({"狗", "dog"} if label.right[10] else {"鱼", "fish"}))
    )
    assert world._label(rng, there[:16], absent=True) is None
    caption = world._caption(rng, np.arange(10), absent=False, known=True)
    assert caption is not None and caption.right.sum() == 1 and caption.right[5:].sum() == 1
    absent = world._caption(rng, np.arange(8), absent=True, known=True)
    assert absent is not None and absent.right.sum() == 0
    drawn = world.draw(rng, "labels", 6)
    assert all(world.photos[at].labels for at in drawn)


def write_data(folder: Path) -> Path:
    """Flickr's captions, 24 drawings; names, 24 drawings; and which of them the model was not trained with."""
    unseen = []
    for collection in ("flickr8k-cn", "everyday/animals"):
        place = folder / "data" / collection
        place.mkdir(parents=True)
        with (place / "captions.jsonl").open("w", encoding="utf-8") as lines:
            for at in range(24):
                colour, shape = list(COLOURS)[at % 6], list(SHAPES)[at // 6]
                draw(colour, shape, seed=at).save(place / f"{at}.png")
                row: dict[str, object] = {"image": f"{at}.png"}
                if collection == "flickr8k-cn":
                    row |= {"en": [f"a {colour} {shape}", f"one {shape} in {colour}"], "zh": [SHAPES[shape]]}
                    if at >= 12:
                        unseen.append(f"{collection}/{at}.png")
                else:
                    row |= {"zh_label": COLOURS[colour][0], "en_label": colour}
                    unseen.append(f"{collection}/{at}.png")
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "unseen.txt").write_text("\n".join(unseen) + "\n", encoding="utf-8")
    return folder / "data"


def test_the_command(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "SIZES", (20, 40))
    monkeypatch.setattr(confidence, "MADE", 2)
    monkeypatch.setattr(strange, "brought", lambda: iter(list(strange.made(1, 9))[:2]))
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    data, before = write_data(tmp_path), BriVLEncoder(checkpoint)
    (checkpoint / CONFIDENCE).write_bytes(b"of other weights")  # an old one does not stand in the way
    seen = {photo.path: photo.seen for photo in read(data, frozenset((tmp_path / "unseen.txt").read_text().split()))}
    assert sum(seen.values()) == 12 and not any(photo.seen for photo in read(data))
    where = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--unseen", str(tmp_path / "unseen.txt")]
    report = tmp_path / "report.json"
    confidence.main([str(checkpoint), *where, "--own-only", "--rounds", "1", "--report", str(report)])
    after = BriVLEncoder(checkpoint)
    assert after.fingerprint == before.fingerprint and isinstance(after.calibration, Calibration)
    assert after.confidence is not None and len(after.confidence.pictures) == 12
    assert (checkpoint / CONFIDENCE).stat().st_size < 220_000
    found = json.loads(report.read_text())
    assert set(found) == {"hits", "hits before", "captions", "captions before", "pairs", "pairs before", "count"}
    assert 0 <= found["hits"]["ece"] <= 1 and found["hits"]["labels: label"]["queries"] > 0
    assert {"unknown kind: document, captions", "new strange: scikit-image, names"} <= set(found["pairs"])
    assert all(0 <= share <= 1 for share in found["pairs"].values())
    assert len(list((tmp_path / "cache").glob(f"{before.fingerprint}-*.npy"))) == 2  # vectors are kept
