"""An encoder over a dataset: everything is embedded, and all is ranked against all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from brivl_search.corpus.dataset import Dataset
from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding.batches import BATCH, TEXT_BATCH, embed_images
from brivl_search.encoders import hub_corrections
from brivl_search.encoders.base import Encoder
from brivl_search.errors import CorpusError, EncoderError
from brivl_search.evaluation.pairs import DIRECTIONS, DirectionName, Pairs, first_of_each
from brivl_search.evaluation.result import (
    Evaluation,
    EvaluationOptions,
    Latency,
    Searched,
    evaluation_of,
    ranked,
    timed,
)

Advance = Callable[[int], None]


def evaluate_dataset(
    dataset: Dataset,
    encoder: Encoder,
    ks: Sequence[int],
    advance: Advance,
    *,
    workers: int | None = None,
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Embeds a dataset's images and captions and ranks all against all.

    Args:
        dataset: what to measure on.
        encoder: what to measure.
        ks: cut-offs of R@k.
        advance: called with the number of images or captions embedded since the last call.
        workers: decoding processes; 0: none, None: as many as there are processors to spare.
        options: definition and intervals.

    Raises:
        CorpusError: an image of the dataset cannot be read; a figure over the rest would be another figure.
        EncoderError: the encoder gives vectors that are not finite.
    """
    options = options or EvaluationOptions()
    notes: list[str] = []
    if options.definition == "diagonal":
        every, owners = dataset.pairs()
        chosen = first_of_each(owners)
        texts, partners, ids = [every[i] for i in chosen], [[owners[i]] for i in chosen], [""] * len(chosen)
        if len(chosen) < len(every):
            notes.append(f"the first caption of each image: {len(chosen):,} of {len(every):,} captions")
    else:
        texts, partners, ids = dataset.queries()
    embedder = ImageEmbedder(dataset, encoder, advance, workers)
    images = embedder.vectors()
    correction = hub_corrections.saved(encoder.fingerprint)
    lowered = None if correction is None else correction.of(images)
    pairs = Pairs(texts, dataset.images, partners, embed_texts(texts, encoder, advance), images, ids, lowered)
    if not (np.isfinite(pairs.text_vectors).all() and np.isfinite(pairs.image_vectors).all()):
        raise EncoderError(f"{encoder.name} gives vectors that are not finite numbers: its weights are damaged")
    if dataset.without_captions:
        notes.append(f"{dataset.without_captions} images without such captions are left out")
    searched: dict[DirectionName, dict[str, Searched]] = {}
    for name in DIRECTIONS:
        searched[name] = ranked(pairs, name)
    return evaluation_of(
        pairs,
        searched,
        ks,
        options,
        source=dataset.folder,
        fields=dataset.fields,
        encoder=encoder.name,
        notes=notes,
        encoder_time=_times(encoder, texts, embedder.some),
    )


def embed_texts(texts: Sequence[str], encoder: Encoder, advance: Advance) -> np.ndarray:
    """Float32 (n, dim), a batch after the other."""
    parts = []
    for start in range(0, len(texts), TEXT_BATCH):
        parts.append(encoder.encode_texts(texts[start : start + TEXT_BATCH]))
        advance(len(parts[-1]))
    return np.concatenate(parts)


class ImageEmbedder:
    """Embeds a dataset's images; keeps some pixels, uint8 (n, S, S, 3), for timing.

    Args:
        dataset: whose images.
        encoder: the model.
        advance: called with the number of images embedded since the last call.
        workers: decoding processes; 0: none, None: as many as there are processors to spare.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, advance: Advance, workers: int | None) -> None:
        self.files = dataset.files or [ImageFile(path, 0, 0) for path in dataset.images]
        self.encoder, self.advance, self.workers = encoder, advance, workers
        self.some = np.zeros((0, encoder.pixels.size, encoder.pixels.size, 3), np.uint8)

    def vectors(self) -> np.ndarray:
        """Float32 (n, dim), unit length, in the dataset's order.

        Raises:
            CorpusError: an image cannot be read.
        """
        vectors: list[np.ndarray] = []
        some: list[np.ndarray] = []
        for one in embed_images(self.files, self.encoder, workers=self.workers, advance=self.advance):
            decoded = one.decoded
            if one.vector is None or decoded.pixels is None:
                raise CorpusError(f"{decoded.file.path}: {decoded.reason} {decoded.detail}".rstrip())
            vectors.append(one.vector)
            if len(some) < BATCH:
                some.append(decoded.pixels)
        self.some = np.stack(some)
        return np.stack(vectors)


def _times(encoder: Encoder, texts: Sequence[str], pixels: np.ndarray) -> dict[DirectionName, Latency]:
    return {
        "text_to_image": timed(
            lambda i: encoder.encode_texts([texts[i]]), len(texts), "encoding one text; search excluded"
        ),
        "image_to_text": timed(
            lambda i: encoder.encode_images(pixels[i : i + 1]),
            len(pixels),
            "encoding one image; reading and decoding its file excluded, search excluded",
        ),
    }
