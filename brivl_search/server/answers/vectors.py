"""What the towers say without the index: vectors, how well pairs belong together, classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from brivl_search.corpus.spelling import nothing_known, visible
from brivl_search.corpus.text import take_text
from brivl_search.embedding import zero_shot
from brivl_search.embedding.batches import numbers
from brivl_search.embedding.zero_shot import Label
from brivl_search.encoders.base import unknown_words
from brivl_search.errors import UsageError
from brivl_search.metrics.cosine import bounded
from brivl_search.server.answers.pictures import clean, picture_vectors
from brivl_search.server.protocol.problems import Refusal, too_many
from brivl_search.server.protocol.schemas.base import PictureRef
from brivl_search.server.protocol.schemas.vectors import (
    ClassifyRequest,
    MatchRequest,
    Pair,
    PicturesRequest,
    TextsRequest,
)
from brivl_search.server.workers.service import Caption, Service, Vector


async def embed_texts(service: Service, wanted: TextsRequest) -> dict[str, Any]:
    """`EmbedAnswer`. Raises Refusal."""
    said = _checked(service, wanted.texts)
    vectors = await service.texts.ask([Caption(text) for text in said])
    return {**_embedded(service, vectors), "unknown_words": await _unknown(service, wanted.texts)}


async def embed_images(service: Service, wanted: PicturesRequest, uploads: Sequence[bytes]) -> dict[str, Any]:
    """`EmbedAnswer`. Raises Refusal, ImageError."""
    return _embedded(service, await _pictures(service, wanted.images, uploads))


async def match(service: Service, wanted: MatchRequest, uploads: Sequence[bytes]) -> dict[str, Any]:
    """`MatchAnswer`. Raises Refusal, ImageError."""
    texts = await _texts(service, [pair.text for pair in wanted.pairs])
    pictures = await _each(service, wanted.pairs, uploads)
    unknown = await _unknown(service, [pair.text for pair in wanted.pairs])
    scores = bounded(np.stack([text @ picture for text, picture in zip(texts, pictures, strict=True)]))
    chances = zero_shot.pair_chances(service.encoder, np.stack(texts), np.stack(pictures), scores)
    rows = []
    for at, (pair, words) in enumerate(zip(wanted.pairs, unknown, strict=True)):
        known = None if chances is None or nothing_known(pair.text, words) else round(float(chances[at]), 4)
        rows.append({"score": round(float(scores[at]), 6), "match": known, "unknown_words": words})
    return {"pairs": rows, "prior": None if chances is None else zero_shot.pair_prior(service.encoder)}


async def classify(service: Service, wanted: ClassifyRequest, uploads: Sequence[bytes]) -> dict[str, Any]:
    """`ClassifyAnswer`. Raises Refusal, UsageError, ImageError."""
    labels = _labels(wanted)
    zero_shot.check_templates(wanted.templates)
    pictures = await _pictures(service, wanted.images, uploads)
    classes = await service.slowly(partial(_class_vectors, service, labels, wanted.templates))
    calibration = service.encoder.calibration
    results = []
    for picture in pictures:
        guesses = zero_shot.classify(picture, labels, classes, calibration, wanted.k)
        results.append({"labels": [_guess(guess) for guess in guesses]})
    unknown = await service.slowly(lambda: zero_shot.unknown_labels(service.encoder, labels))
    return {"results": results, "unknown_words": unknown}


async def _texts(service: Service, texts: list[str]) -> list[Vector]:
    """float32 (dim,) of each, as queries. Raises Refusal."""
    return await service.texts.ask(_checked(service, texts))


def _checked(service: Service, texts: list[str]) -> list[str]:
    """The texts as they are embedded. Raises Refusal."""
    most = service.settings.max_texts
    if len(texts) > most:
        raise too_many(len(texts), "texts", most, "too_many_texts")
    return [clean(text, service.settings) for text in texts]


async def _unknown(service: Service, texts: list[str]) -> list[list[str]]:
    """The words of each text that the encoder does not know."""
    return await service.slowly(lambda: unknown_words(service.encoder, texts))


async def _pictures(service: Service, given: list[PictureRef], uploads: Sequence[bytes]) -> list[Vector]:
    """float32 (dim,) of the pictures named, or of all uploads. Raises Refusal: there is none."""
    pictures = given or [PictureRef(image=at) for at in range(len(uploads))]
    if not pictures:
        raise Refusal(400, "no picture: upload `image` parts, or name some in `images`", "no_picture")
    return await picture_vectors(service, pictures, uploads)


async def _each(service: Service, pairs: list[Pair], uploads: Sequence[bytes]) -> list[Vector]:
    """The picture of each pair; one that is named several times is embedded once."""
    named = [(pair.key, pair.image, pair.base64) for pair in pairs]
    different = list(dict.fromkeys(named))
    pictures = [PictureRef(key=key, image=image, base64=base64) for key, image, base64 in different]
    vectors = dict(zip(different, await picture_vectors(service, pictures, uploads), strict=True))
    return [vectors[one] for one in named]


def _embedded(service: Service, vectors: list[Vector]) -> dict[str, Any]:
    encoder = service.encoder
    return {
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "vectors": [numbers(vector, "float32") for vector in vectors],
    }


def _labels(wanted: ClassifyRequest) -> list[Label]:
    labels: dict[str, Label] = {}
    for one in wanted.labels:
        given = [one] if isinstance(one, str) else one
        if not all(map(visible, given)):
            raise UsageError("`labels`: a label is empty: give it a name", code="bad_labels", details={"label": ""})
        names = tuple(dict.fromkeys(take_text(name, "`labels`") for name in given))
        if names[0] in labels:
            raise UsageError(
                f"`labels`: {names[0]!r} is there twice: leave one out",
                code="bad_labels",
                details={"label": names[0]},
            )
        labels[names[0]] = Label(names[0], names)
    return list(labels.values())


def _class_vectors(service: Service, labels: list[Label], templates: list[str]) -> Any:
    longest = max(len(name) for label in labels for name in label.names)
    for template in templates:  # before they are made: a template may hold the name hundreds of times
        if len(template) + template.count("{}") * longest > 2 * service.settings.max_text:
            message = f"a template with its label: more than {2 * service.settings.max_text:,} characters"
            raise Refusal(413, message, "text_too_long", where="templates", limit=2 * service.settings.max_text)
    said = sum(len(zero_shot.sentences(name, templates)) for label in labels for name in label.names)
    most = 16 * service.settings.max_texts
    if said > most:
        raise too_many(said, "sentences of labels and templates", most, "too_many_sentences")
    return zero_shot.class_vectors(_Texts(service), [label.names for label in labels], templates)  # type: ignore[arg-type]


class _Texts:
    """The text tower's thread, for what wants an encoder of texts and waits."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def encode_texts(self, texts: list[str]) -> Any:
        return np.stack(self._service.texts.submit(texts).result())


def _guess(guess: zero_shot.Guess) -> dict[str, Any]:
    shown = None if guess.probability is None else round(guess.probability, 4)
    return {"label": guess.label, "score": round(guess.score, 6), "probability": shown}
