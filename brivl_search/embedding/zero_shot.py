"""Classes that a model was never trained on, and single pairs: pictures against the names of things, and against texts.

A class's vector is the mean over templates and synonyms of the unit vectors of its sentences, scaled to unit length
(Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, §3.1.4).

The probability of a label among all labels is softmax(slope · cosine), with the slope of the encoder's calibration
(`calibration.py`). There the odds that picture and text belong together are exp(slope · cosine + intercept). Suppose
that exactly one label is right, and that each is as likely as any other beforehand. Then the posterior of a label is
its share of the odds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.encodings import decode_file
from brivl_search.corpus.spelling import visible
from brivl_search.corpus.text import check_text, take_text
from brivl_search.display import printable
from brivl_search.embedding.batches import TEXT_BATCH
from brivl_search.embedding.query_pictures import embed_pictures
from brivl_search.encoders.base import Encoder, confidence_of, encode_queries, unknown_words
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import UsageError
from brivl_search.metrics.cosine import bounded

# What brivl-mini's recipes train with; against the bare name they gain 1.4 points of top-1 in Chinese and 0.2 in
# English (train/EXPERIMENTS.md, "Zero-shot").
TEMPLATES = {
    "zh": ("{}", "一张{}的照片。", "一只{}", "照片里有{}"),
    "en": ("{}", "a photo of a {}", "there is a {} in the picture"),
}
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """A class: the name it is reported under, and all its names, that one first."""

    name: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Guess:
    """A label for a picture.

    Attributes:
        label: the class's name.
        score: cosine between picture and class.
        probability: among all labels; None where the encoder has no calibration.
    """

    label: str
    score: float
    probability: float | None


def read_labels(path: Path, encoding: str | None = None) -> list[Label]:
    """Labels, one a line; further names of the same thing follow after tabs. Lines with nothing to see are passed over.

    Args:
        path: the file.
        encoding: of the file; None: UTF-8.

    Raises:
        UsageError: the file cannot be read, is of another encoding, holds no label, or a name twice.
    """
    name = f"`labels` {printable(str(path))}"
    try:
        lines = decode_file(path.read_bytes(), name, encoding).splitlines()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}: give a text file with a label a line") from None
    labels: list[Label] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        names = tuple(dict.fromkeys(part.strip() for part in line.split("\t") if visible(part)))
        if not names:
            continue
        if names[0] in line_of:
            raise UsageError(f"`labels` {path}:{number}: {names[0]!r} is line {line_of[names[0]]} too: delete one")
        line_of[names[0]] = number
        labels.append(Label(names[0], names))
    if not labels:
        raise UsageError(f"`labels` {path} holds no label: write one a line")
    return labels


def check_templates(templates: Sequence[str]) -> None:
    """Raises UsageError where a template is not UTF-8, or has no place for the name."""
    for template in templates:
        check_text(template, "`templates`")
        if "{}" not in template:
            raise UsageError(f"`templates` {template!r}: put {{}} where the label belongs, as in '一张{{}}的照片'")


def sentences(name: str, templates: Sequence[str] = ()) -> list[str]:
    """A name in every template: those given, else the built-in ones of the name's script."""
    forms = templates or TEMPLATES["zh" if _CHINESE.search(name) else "en"]
    return [form.replace("{}", name) for form in forms]


def unknown_labels(encoder: Encoder, labels: Sequence[Label]) -> dict[str, list[str]]:
    """Label → the words of its names that the encoder does not know; only labels that have some."""
    names = [name for label in labels for name in label.names]
    words = dict(zip(names, unknown_words(encoder, names), strict=True))
    found = {label.name: [word for name in label.names for word in words[name]] for label in labels}
    return {name: unknown for name, unknown in found.items() if unknown}


def class_vectors(encoder: Encoder, labels: Sequence[Sequence[str]], templates: Sequence[str] = ()) -> Vectors:
    """A vector for each class.

    Args:
        encoder: the model.
        labels: all names of each class.
        templates: with {} for the name; none: the built-in ones.

    Returns:
        float32 (classes, dim), unit length.
    """
    said = [[text for name in names for text in sentences(name, templates)] for names in labels]
    texts = list(dict.fromkeys(text for each in said for text in each))
    parts = [encode_queries(encoder, texts[start : start + TEXT_BATCH]) for start in range(0, len(texts), TEXT_BATCH)]
    vectors = np.concatenate(parts)
    row = {text: at for at, text in enumerate(texts)}
    means = np.stack([vectors[[row[text] for text in each]].mean(0) for each in said])
    unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def softmax(cosines: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    """Probabilities of one picture's labels (n,), see the top of this module."""
    logits = calibration.slope * cosines.astype(np.float64)
    odds = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = odds / odds.sum()
    return shares


def classify(
    vector: Vectors, labels: Sequence[Label], classes: Vectors, calibration: Calibration | None, k: int
) -> list[Guess]:
    """The k likeliest labels of a picture, best first; equal scores in the order of the labels.

    Args:
        vector: of the picture, (dim,), unit length.
        labels: n classes.
        classes: their vectors, (n, dim).
        calibration: of the encoder.
        k: at most so many.
    """
    cosines = bounded(classes @ vector)
    shares = None if calibration is None else softmax(cosines, calibration)
    best = np.argsort(-cosines, kind="stable")[:k].tolist()
    return [Guess(labels[at].name, float(cosines[at]), None if shares is None else float(shares[at])) for at in best]


@dataclass(frozen=True)
class Matched:
    """Every text with every picture.

    Attributes:
        cosines: float32 (texts, images).
        chances: float64 (texts, images), that each pair is right; None where the encoder does not know.
    """

    cosines: Vectors
    chances: NDArray[np.float64] | None


def match(encoder: Encoder, texts: Sequence[str], images: Sequence[str | os.PathLike[str]]) -> Matched:
    """Every text against every picture.

    Raises:
        UsageError: an empty text, or a picture that cannot be read.
    """
    said = [take_text(text, "`texts`") for text in texts]
    named = [os.fspath(image) for image in images]
    known = embed_pictures(encoder, named)
    found = []
    for name in named:
        vector = known[name]
        if isinstance(vector, UsageError):
            raise vector
        found.append(vector)
    pictures, vectors = np.stack(found), encode_queries(encoder, said)
    cosines: Vectors = bounded(vectors @ pictures.T)
    each = [pair_chances(encoder, vector[None], pictures, row) for vector, row in zip(vectors, cosines, strict=True)]
    chances = [one for one in each if one is not None]
    return Matched(cosines, np.stack(chances) if chances else None)


def pair_chances(encoder: Encoder, texts: Vectors, pictures: Vectors, cosines: Vectors) -> NDArray[np.float64] | None:
    """The chance that each pair is right, float64 (n,), where as many pairs are as in its fit (`pair_prior`).

    Args:
        encoder: of the vectors.
        texts: (n, dim); or one of them for all pictures.
        pictures: (n, dim).
        cosines: (n,), of the pairs.

    Returns:
        None where the encoder knows no chances.
    """
    if (confidence := confidence_of(encoder)) is not None:
        return confidence.pairs(texts, pictures)
    if encoder.calibration is None:
        return None
    return np.array([encoder.calibration.probability(float(cosine)) for cosine in cosines])


def pair_prior(encoder: Encoder) -> float:
    """The share of pairs that were right where the chances of pairs were fitted."""
    confidence = confidence_of(encoder)
    return 0.5 if confidence is None else confidence.prior
