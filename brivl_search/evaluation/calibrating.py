"""Pairs that belong together and pairs that do not, of a dataset: what an encoder's calibration is fitted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from brivl_search.corpus.dataset import Dataset
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.calibration import fit_and_judge, true_and_random_pairs
from brivl_search.errors import EncoderError, UsageError
from brivl_search.evaluation.dataset import ImageEmbedder, embed_texts

LEAST_PHOTOS, LEAST_PAIRS = 20, 200
LEAST_RIGHT = 0.6  # captions that are nearer to their own photo than to another; half of them by chance


def calibrate_on(
    dataset: Dataset, encoder: Encoder, advance: Callable[[int], None], *, seed: int = 0, workers: int | None = None
) -> dict[str, float]:
    """Every caption makes one pair with its own photo and one with another photo drawn at random.

    Args:
        dataset: photos the encoder was not trained on, with captions.
        encoder: whose cosines are to be understood.
        advance: called with the number of images or captions embedded since the last call.
        seed: of the draw.
        workers: decoding processes; 0: none, None: as many as there are processors to spare.

    Returns:
        `calibration.fit_and_judge`'s values.

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
    images = np.concatenate(list(ImageEmbedder(dataset, encoder, advance, workers)))
    vectors = embed_texts(texts, encoder, advance)
    cosine, belongs, photo = true_and_random_pairs(vectors, images, np.asarray(owners), seed)
    right = float((cosine[: len(texts)] > cosine[len(texts) :]).mean())
    if not np.isfinite(cosine).all() or right < LEAST_RIGHT:
        raise EncoderError(
            f"{encoder.name} cannot be calibrated on {dataset.folder}: only {right:.0%} of the captions are nearer to "
            "their own photo than to another (50% by chance): is it the right encoder for these languages and photos?"
        )
    return fit_and_judge(cosine, belongs, photo)
