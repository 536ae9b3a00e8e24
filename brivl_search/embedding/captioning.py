"""Pictures → captions: a captioner writes them, the two towers and a matcher say which fit best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import MAX_MEGAPIXELS, decode, read_file
from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding.batches import in_batches, look_ahead
from brivl_search.embedding.reranker import Reranker
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.encoders.captioning import Captioner, Draft, ranked

BATCH = 32  # pictures a forward pass


@dataclass(frozen=True)
class Caption:
    """A caption that was generated for a picture.

    Attributes:
        text: the caption.
        score: the captioner's: log-probabilities over a power of the length.
        cosine: of the two towers' vectors of caption and picture; None: no towers were asked.
        rerank: what a matcher ordered it by; None: none did.
    """

    text: str
    score: float
    cosine: float | None = None
    rerank: float | None = None


@dataclass(frozen=True)
class Captioned:
    """A picture with its captions.

    Attributes:
        decoded: the picture; its `reason` says why it could not be read.
        captions: of each language, best first; empty where it could not be read.
    """

    decoded: Decoded
    captions: dict[str, list[Caption]] = field(default_factory=dict)


class Describer:
    """A captioner, and what orders its captions.

    Attributes:
        captioner: it writes them.
        encoder: two towers, whose cosine counts as the captioner says; None: there are none.
        reranker: a matcher, whose order is the last word; None: there is none.
    """

    def __init__(self, captioner: Captioner, encoder: Encoder | None = None, reranker: Reranker | None = None) -> None:
        self.captioner, self.encoder, self.reranker = captioner, encoder, reranker

    def describe(self, pictures: Sequence[Decoded], languages: Sequence[str], count: int) -> list[Captioned]:
        """Captions of decoded pictures, `count` in each language or as many as the captioner finds.

        Raises:
            UsageError: the captioner does not write in one of the languages.
            ValueError: a picture has no pixels.
        """
        pixels = [one.pixels for one in pictures if one.pixels is not None]
        if len(pixels) != len(pictures):
            raise ValueError("a picture without pixels cannot be described")
        if not pixels:
            return []
        origins = [Origin(one.file.path, one.width, one.height) for one in pictures]
        wrote = self.captioner.write(np.stack(pixels), origins, languages, count)
        texts = list(dict.fromkeys(d.text for drafts in wrote for some in drafts.captions.values() for d in some))
        known = {} if self.encoder is None else dict(zip(texts, self.encoder.encode_texts(texts), strict=True))
        out = []
        for one, drafts in zip(pictures, wrote, strict=True):
            vector = drafts.vector
            if vector is None and self.encoder is not None:
                vector = _vector(self.encoder, one)
            cosines = {text: float(said @ vector) for text, said in known.items()} if vector is not None else {}
            found = {
                name: self._ordered(one.file.path, some, cosines)[:count] for name, some in drafts.captions.items()
            }
            out.append(Captioned(one, found))
        return out

    def _ordered(self, path: str, drafts: Sequence[Draft], cosines: dict[str, float]) -> list[Caption]:
        beside = np.array([cosines.get(one.text, 0.0) for one in drafts], np.float32)
        order = ranked(drafts, beside, self.captioner.cosine_weight if cosines else 0.0)
        found = [Caption(drafts[at].text, drafts[at].score, cosines.get(drafts[at].text)) for at in order]
        if self.reranker is None or not found:
            return found
        pictures = self.reranker.read([path]) * len(found)
        placed = self.reranker.order([one.text for one in found], pictures, [one.cosine or 0.0 for one in found])
        return [
            Caption(found[one.candidate].text, found[one.candidate].score, found[one.candidate].cosine, one.score)
            for one in placed
        ]


def _vector(encoder: Encoder, one: Decoded) -> np.ndarray:
    """The towers' vector of a picture that a captioner of other pixels has read."""
    seen = decode(read_file(one.file.path), encoder.pixels)
    return encode_pictures(encoder, seen.pixels[None], [Origin(one.file.path, seen.width, seen.height)])[0]


def caption_images(
    files: Sequence[ImageFile],
    describer: Describer,
    languages: Sequence[str],
    count: int = 1,
    *,
    workers: int | None = None,
    batch_size: int = BATCH,
    max_megapixels: float = MAX_MEGAPIXELS,
    advance: Callable[[int], None] = lambda steps: None,
) -> Iterator[Captioned]:
    """Every file in order with its captions; what cannot be read has none, and its `decoded.reason` says why.

    Args:
        files: the images.
        describer: what writes.
        languages: "zh", "en".
        count: captions in each.
        workers: decoding processes; None: one a CPU; 0: none.
        batch_size: pictures a forward pass.
        max_megapixels: larger ones are not read.
        advance: told how many files are done.
    """
    decoded = decode_all(
        files,
        describer.captioner.pixels,
        workers=default_workers() if workers is None else workers,
        max_megapixels=max_megapixels,
        ahead=look_ahead(batch_size),
    )
    for batch in in_batches(decoded, batch_size, lambda one: one.pixels is not None):
        found = iter(describer.describe([one for one in batch if one.pixels is not None], languages, count))
        advance(len(batch))
        for one in batch:
            yield Captioned(one) if one.pixels is None else next(found)
