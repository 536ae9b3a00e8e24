"""From scores to chances: the terms by hand, the file, and which checkpoint it belongs to."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders import calibration, load_encoder
from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint, write_hubness
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.hubness import HUBNESS
from brivl_search.encoders.confidence import (
    CONFIDENCE,
    HIT_TERMS,
    KINDS,
    PAIR_TERMS,
    Chances,
    Collection,
    Confidence,
    Kind,
    Seen,
    terms_of,
)
from brivl_search.errors import EncoderError

DIM = 8


def unit(rng: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_chances(rng: np.random.Generator, terms: tuple[str, ...]) -> Chances:
    count = len(terms)
    slopes = rng.standard_normal(count + count * (count + 1) // 2)
    return Chances(rng.standard_normal(count), rng.uniform(1, 2, count), slopes, 0.5)


def confidence(dim: int = DIM, seed: int = 0) -> Confidence:
    rng = np.random.default_rng(seed)
    of: dict[Kind, Chances] = {kind: random_chances(rng, terms_of(kind)) for kind in KINDS}
    return Confidence(unit(rng, 6, dim), unit(rng, 5, dim), unit(rng, 4, dim), of, 0.25)


def test_a_chance_by_hand() -> None:
    of = Chances(np.array([1.0, 0.0]), np.array([2.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]), -1.0)
    x, y = (2.0 - 1) / 2, 0.5
    sums = x + 2 * y + 3 * x * x + 4 * x * y + 5 * y * y - 1
    assert of(np.array([[2.0, 0.5]])) == pytest.approx([1 / (1 + np.exp(-sums))])
    assert of(np.array([[900.0, 0.5]])) == of(np.array([[7.0, 0.5]]))  # the edge is three scales out
    assert of.fits(2) and not of.fits(3)
    assert not Chances(of.centre, np.zeros(2), of.slopes, 0.0).fits(2)
    assert not Chances(of.centre, of.scale, of.slopes, np.nan).fits(2)


def test_how_a_vector_lies_among_groups_by_hand() -> None:
    groups = np.eye(4, dtype=np.float32)
    seen = Seen.among(np.array([[0.8, 0.6, 0, 0]], np.float32), groups)
    assert seen.known == pytest.approx([0.8]) and seen.lead == pytest.approx([1.4 / 3])
    assert seen.mean == pytest.approx([0.35]) and seen.spread == pytest.approx([np.std([0.8, 0.6, 0, 0])])


def test_the_terms_of_a_hit_by_hand() -> None:
    known, rng = confidence(), np.random.default_rng(1)
    (text,), pictures = unit(rng, 1), unit(rng, 3)
    scores = pictures @ text
    terms = known.hit_terms("image", text, pictures, Collection(0.1, 0.2, 500))
    assert terms.shape == (3, len(HIT_TERMS))
    of = dict(zip(HIT_TERMS, terms.T, strict=True))
    among = np.sort(known.pictures @ text)
    assert of["cosine"] == pytest.approx(scores, abs=1e-6)
    assert of["lead among pictures"] == pytest.approx(scores - among[-3:].mean(), abs=1e-6)
    assert of["place among pictures"] == pytest.approx((scores - among.mean()) / among.std(), abs=1e-5)
    assert of["picture known"] == pytest.approx((known.pictures @ pictures.T).max(0), abs=1e-6)
    assert of["text known"] == pytest.approx([(known.texts @ text).max()] * 3, abs=1e-6)
    assert of["picture strange"] == pytest.approx((known.strange @ pictures.T).max(0), abs=1e-6)
    assert of["text lead"] == pytest.approx([among[-3:].mean()] * 3, abs=1e-6)
    assert of["text spread"] == pytest.approx([among.std()] * 3, abs=1e-6)
    mine = known.texts @ pictures.T
    assert of["picture spread"] == pytest.approx(mine.std(0), abs=1e-6)
    assert of["picture lead"] == pytest.approx(np.sort(mine, 0)[-3:].mean(0), abs=1e-6)
    place, extreme = (scores - 0.1) / 0.2, np.sqrt(2 * np.log(500))
    assert of["place in collection"] == pytest.approx(place, abs=1e-5)
    assert of["extreme of collection"] == pytest.approx([extreme] * 3)
    assert of["ahead of extreme"] == pytest.approx(np.maximum(place - extreme, 0), abs=1e-5)


def test_a_captions_hit_and_an_images_hit_are_the_same_pair() -> None:
    known, rng = confidence(), np.random.default_rng(2)
    text, picture = unit(rng, 1), unit(rng, 1)
    against = Collection(0.0, 0.1, 9)
    one = known.hit_terms("image", text[0], picture, against)
    np.testing.assert_allclose(known.hit_terms("text", picture[0], text, against), one, atol=1e-6)
    np.testing.assert_allclose(one[:, : len(PAIR_TERMS)], known.pair_terms(text, picture), atol=1e-6)
    assert known.hits("image", text[0], picture, against) == pytest.approx(known.chances["image"](one))
    assert known.pairs(text, picture) == pytest.approx(known.chances["pair"](one[:, : len(PAIR_TERMS)]))


def test_a_collection_of_nothing_and_one_of_equals() -> None:
    assert Collection.of(np.zeros(0), 0) == Collection(0.0, 1.0, 0)
    known, rng = confidence(), np.random.default_rng(3)
    rows = unit(rng, 2)
    terms = known.hit_terms("image", rows[0], rows, Collection.of(np.full(5, 0.3), 1))
    assert np.isfinite(terms).all()


def test_the_file_of_a_checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    before = BriVLEncoder(folder)
    known = confidence(before.dim)
    path = known.save(folder, before.fingerprint, {"ece": 0.01})
    after = BriVLEncoder(folder)
    assert before.confidence is None and path.name == CONFIDENCE
    assert after.fingerprint == before.fingerprint  # indexes made before stay good
    assert after.confidence is not None and after.confidence.prior == 0.25
    np.testing.assert_allclose(after.confidence.pictures, known.pictures, atol=1e-3)
    for kind, chances in known.chances.items():
        np.testing.assert_allclose(after.confidence.chances[kind].slopes, chances.slopes, rtol=1e-6)
        assert after.confidence.chances[kind].bias == chances.bias
    known.save(folder, "brivl-another")
    with pytest.raises(EncoderError, match="fitted to other weights: fit it again, or delete it"):
        BriVLEncoder(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(EncoderError, match="cannot be read"):
        BriVLEncoder(folder)


def test_new_weights_and_new_hubs_leave_no_old_confidence(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from train.mini.hubness import fit_hubs

    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    encoder = BriVLEncoder(folder)
    confidence(encoder.dim).save(folder, encoder.fingerprint)
    few = unit(np.random.default_rng(0), 12, encoder.dim)
    write_hubness(folder, fit_hubs(few, few, centroids=(2, 2)))
    assert (folder / HUBNESS).is_file() and FolderCheckpoint(folder).confidence is None


def test_a_calibration_of_the_users_own_replaces_it(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    fingerprint = BriVLEncoder(folder).fingerprint
    confidence(BriVLEncoder(folder).dim).save(folder, fingerprint)
    assert load_encoder(str(folder)).confidence is not None
    calibration.save(fingerprint, {"slope": 7.0, "intercept": -2.0})
    loaded = load_encoder(str(folder))
    assert loaded.confidence is None and loaded.calibration == calibration.Calibration(7, -2)
