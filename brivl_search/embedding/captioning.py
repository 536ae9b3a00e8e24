"""Pictures → captions: a captioner writes them, the two towers and a matcher say which fit best."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import MAX_MEGAPIXELS, decode, read_file
from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding.batches import in_batches, look_ahead
from brivl_search.embedding.reranker import Reranker
from brivl_search.encoders.base import Encoder, Origin, Precision, encode_pictures
from brivl_search.encoders.captioners import default_captioner, load_captioner
from brivl_search.encoders.captioning import Captioner, Draft, check_languages, ranked
from brivl_search.encoders.matching import load_matcher
from brivl_search.encoders.registry import DEFAULT, load_encoder
from brivl_search.errors import UnreadPictureWarning, UsageError

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

    @classmethod
    def of(
        cls,
        captioner: str | None,
        encoder: str | None,
        rerank_with: str | None,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        towers: Callable[[str], Encoder] | None = None,
    ) -> Describer:
        """Loads what has these names.

        Args:
            captioner: None: the bundled one.
            encoder: None: the bundled one. A captioner of transformers needs no towers; they are loaded where somebody
                asks for their opinion.
            rerank_with: a matcher; None: none.
            device, precision: of all.
            towers: loads an encoder; None: `load_encoder`.

        Raises:
            UsageError: there is no such captioner or matcher.
            EncoderError: one is damaged, or they do not fit together.
        """
        name = captioner or default_captioner()
        loaded = None
        if encoder is not None or rerank_with is not None or not name.startswith("hf:"):
            load = towers or partial(load_encoder, device=device, precision=precision)
            loaded = load(encoder or DEFAULT)
        writer = load_captioner(name, loaded, device=device, precision=precision)
        reranker = None
        if rerank_with is not None and loaded is not None:
            reranker = Reranker(load_matcher(rerank_with, loaded, device=device, precision=precision))
        return cls(writer, loaded, reranker)

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
    origins = [Origin(one.file.path, seen.width, seen.height)]
    vector: np.ndarray = encode_pictures(encoder, seen.pixels[None], origins)[0]
    return vector


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


def write_captions(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    language: str = "en",
    count: int = 1,
    *,
    captioner: str | None = None,
    encoder: str | None = None,
    rerank_with: str | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> dict[str, list[Caption]]:
    """Writes captions for pictures.

        for path, captions in write_captions("photos", "zh", 3, captioner="runs/captioner").items():
            print(path, captions[0].text)

    Args:
        images: a file or a folder, or several; also CONTAINER::MEMBER.
        language: "zh" or "en".
        count: captions of each picture, at most.
        captioner: a folder, or hf:ORG/NAME; None: the bundled one.
        encoder: two towers (`load_encoder`); None: the bundled ones, and none for a captioner by hf: without a matcher.
        rerank_with: a matcher, which orders what was written.
        device: a torch device, or "auto".
        workers: decoding processes; None: one a CPU; 0: none.

    Returns:
        Path → captions, best first, in the order of the paths. A picture that cannot be read is left out, and an
        `UnreadPictureWarning` names it.

    Raises:
        UsageError: a path is not there, the captioner does not write in the language, or there is none.
        EncoderError: captioner, towers or matcher are damaged, or do not fit together.
        CorpusError: there is no picture.
    """
    from brivl_search.embedding.pictures import find_pictures

    if count < 1:
        raise UsageError(f"`count` {count}: give 1 or more")
    found = find_pictures([os.fspath(one) for one in ([images] if isinstance(images, str | os.PathLike) else images)])
    describer = Describer.of(captioner, encoder, rerank_with, device=device)
    check_languages(describer.captioner, [language])
    out = {}
    for one in caption_images(found.files, describer, [language], count, workers=workers):
        path = found.as_given(one.decoded.file.path)
        if one.decoded.pixels is None:
            warnings.warn(f"{path}: {one.decoded.reason}", UnreadPictureWarning, stacklevel=2)
        else:
            out[path] = one.captions[language]
    return out
