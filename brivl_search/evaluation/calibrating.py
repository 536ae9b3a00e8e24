"""Pairs that belong together and pairs that do not, of a dataset: what an encoder's calibration is fitted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from brivl_search.corpus.dataset import Dataset
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import EncoderError, UsageError
from brivl_search.evaluation.dataset import ImageEmbedder, embed_texts
from brivl_search.evaluation.hub_fitting import HubFit, fit_hubs

LEAST_PHOTOS, LEAST_PAIRS = 20, 200
LEAST_RIGHT = 0.6  # captions that are nearer to their own photo than to another; half of them by chance


def calibrate_on(
    dataset: Dataset, encoder: Encoder, advance: Callable[[int], None], *, seed: int = 0, workers: int | None = None
) -> tuple[dict[str, float], HubFit]:
    """Every caption makes one pair with its own photo and one with another photo drawn at random.

    The same vectors tell whether hubs are worth correcting (`hub_fitting`).

    Args:
        dataset: photos the encoder was not trained on, with captions.
        encoder: whose cosines are to be understood.
        advance: called with the number of images or captions embedded since the last call.
        seed: of the draw.
        workers: decoding processes; 0: none, None: as many as there are processors to spare.

    Returns:
        `fit_and_judge`'s values, and what a correction for hubs brings.

    Raises:
        UsageError: too few photos or captions.
        CorpusError: a photo cannot be read.
        EncoderError: cosines that tell true pairs from random ones hardly better than chance, or are no numbers.
    """
    texts, owners = dataset.pairs()
    if len(dataset.images) < LEAST_PHOTOS or 2 * len(texts) < LEAST_PAIRS:
        raise UsageError(
            f"{dataset.folder}: {len(texts)} captions of {len(dataset.images)} photos are too few to calibrate on: "
            f"give {LEAST_PAIRS // 2} of {LEAST_PHOTOS} at least, better thousands"
        )
    images = ImageEmbedder(dataset, encoder, advance, workers).vectors()
    vectors = embed_texts(texts, encoder, advance)
    cosine, belongs, photo = true_and_random_pairs(vectors, images, np.asarray(owners), seed)
    right = float((cosine[: len(texts)] > cosine[len(texts) :]).mean())
    if not np.isfinite(cosine).all() or right < LEAST_RIGHT:
        raise EncoderError(
            f"{encoder.name} cannot be calibrated on {dataset.folder}: only {right:.0%} of the captions are nearer to "
            "their own photo than to another (50% by chance): is it the right encoder for these languages and photos?"
        )
    return fit_and_judge(cosine, belongs, photo), fit_hubs(vectors, images, np.asarray(owners), seed)


def expected_calibration_error(probability: np.ndarray, belongs: np.ndarray, bins: int = 15) -> float:
    """Σ_b (n_b/n) · |mean probability − share that belongs| over `bins` equally wide bins (Guo et al., ICML 2017).

    Args:
        probability: float (n,), 0 to 1.
        belongs: bool (n,), or chances from 0 to 1.
    """
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    gaps = np.abs(np.bincount(bin_of, probability, bins) - np.bincount(bin_of, belongs.astype(np.float64), bins))
    return float(gaps[counts > 0].sum() / len(probability))


def fit(cosine: np.ndarray, belongs: np.ndarray, steps: int = 50) -> Calibration:
    """Logistic regression of `belongs` on `cosine` by Newton's method, with Platt's smoothed targets.

    Args:
        cosine: float64 (n,).
        belongs: bool (n,), both values in it.
        steps: at most.
    """
    positives, negatives = int(belongs.sum()), int((~belongs).sum())
    target = np.where(belongs, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([cosine, np.ones_like(cosine)], 1)
    weights = np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (p - target))
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(float(weights[0]), float(weights[1]))


def fit_and_judge(cosine: np.ndarray, belongs: np.ndarray, photo: np.ndarray) -> dict[str, float]:
    """The map of all pairs, and how far to trust it: what a map fitted on half of the photos says of the other half.

    Args:
        cosine: float64 (n,).
        belongs: bool (n,).
        photo: int (n,), of each pair; no photo is in both halves.

    Returns:
        What goes into config.json: slope, intercept, ece (expected calibration error), pairs (their number).
    """
    probability = np.empty_like(cosine)
    for half in (0, 1):
        judged = photo % 2 == half
        learnt = fit(cosine[~judged], belongs[~judged])
        probability[judged] = [learnt.probability(c) for c in cosine[judged]]
    final = fit(cosine, belongs)
    ece = expected_calibration_error(probability, belongs)
    return {"slope": final.slope, "intercept": final.intercept, "ece": round(ece, 4), "pairs": float(len(cosine))}


def true_and_random_pairs(
    texts: np.ndarray, images: np.ndarray, owners: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every text with its own image and with another one drawn at random.

    Args:
        texts: float32 (n, dim), unit length.
        images: float32 (m, dim), unit length.
        owners: int (n,), the image of each text.
        seed: of the draw.

    Returns:
        What `fit_and_judge` takes, (2n,) each, the true pairs first: cosine, belongs, photo.
    """
    others = (owners + np.random.default_rng(seed).integers(1, len(images), len(owners))) % len(images)
    cosine = np.concatenate([(texts * images[owners]).sum(1), (texts * images[others]).sum(1)])
    return cosine.astype(np.float64), np.repeat([True, False], len(owners)), np.concatenate([owners, owners])
