"""What a checkpoint knows of its own errors: from scores to the chance that a hit, or a pair, is right.

A cosine alone says little: it depends on the text, on the picture, and on what else there is. So a checkpoint may bring
groups of the pictures and of the texts that it was trained with (their means, as unit vectors). A text is compared with
the groups of pictures: so it is known what it scores among pictures in general, and how familiar it is itself. The same
is done with a picture. A hit is also compared with its collection: a sample of its rows, and their number, of which the
best is shown. A picture is also held to groups of strange ones. Such terms, and their products,
make the chance; the map is fitted by `train.mini.confidence`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.atomic import appearing
from brivl_search.errors import EncoderError

CONFIDENCE = "confidence.safetensors"  # the file in a checkpoint folder; no part of its fingerprint
Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Kind = Literal["pair", "image", "text"]  # a pair; hits that are images (of a text), or texts (of an image)
GROUPS = ("pictures", "texts", "strange")
KINDS: tuple[Kind, Kind, Kind] = ("pair", "image", "text")

PAIR_TERMS = (
    *("cosine", "lead among pictures", "lead among texts", "place among pictures", "place among texts"),
    *("picture known", "picture strange", "picture lead", "picture spread", "text known", "text lead", "text spread"),
)
HIT_TERMS = (*PAIR_TERMS, "place in collection", "spread of collection", "extreme of collection", "ahead of extreme")
_NEAREST = 3
_EDGE = 3.0  # spreads
_LEAST_SPREAD = 1e-3
COUNTED = 0.05


def terms_of(kind: Kind) -> tuple[str, ...]:
    """The names of a kind's terms."""
    return PAIR_TERMS if kind == "pair" else HIT_TERMS


@dataclass(frozen=True, eq=False)
class Chances:
    """From terms to a chance: logistic, in the terms and their products.

    Every term is scaled first, and what is farther out than the fit has seen counts as its edge.

    Attributes:
        centre, scale: (T,), of the terms.
        slopes: (T + T(T + 1)/2,), of the scaled terms, then of the product of each with itself and each later one.
        bias: what is added.
    """

    centre: Floats
    scale: Floats
    slopes: Floats
    bias: float

    @staticmethod
    def features(terms: Floats, centre: Floats, scale: Floats) -> Floats:
        """(n, T) → what the slopes belong to, (n, T + T(T + 1)/2)."""
        scaled = np.clip((terms - centre) / scale, -_EDGE, _EDGE)
        one, other = np.triu_indices(scaled.shape[1])
        both: Floats = np.concatenate([scaled, scaled[:, one] * scaled[:, other]], 1)
        return both

    def __call__(self, terms: Floats) -> Floats:
        """The chance of each row of (n, T)."""
        sums = self.features(terms, self.centre, self.scale) @ self.slopes + self.bias
        found: Floats = 1 / (1 + np.exp(-np.clip(sums, -60, 60)))
        return found

    def fits(self, terms: int) -> bool:
        """Whether these are finite numbers for so many terms."""
        right = len(self.centre) == len(self.scale) == terms and len(self.slopes) == terms + terms * (terms + 1) // 2
        numbers = (self.centre, self.scale, self.slopes, np.array([self.bias]))
        return right and all(np.isfinite(one).all() for one in numbers) and bool((self.scale > 0).all())


def how_many(chances: Floats) -> float:
    """About how many of some rows are right: the sum of their chances. Those below `COUNTED` are left out.

    They are many, and the little that each has is the error of the fit more than anything else.
    """
    return float(chances[chances >= COUNTED].sum())


@dataclass(frozen=True)
class Collection:
    """What hits are compared with.

    Attributes:
        mean, spread: of the query's scores with a sample of the rows.
        rows: that could have been found.
    """

    mean: float
    spread: float
    rows: int

    @classmethod
    def of(cls, scores: NDArray[Any], rows: int) -> Collection:
        """From the scores of a sample; an empty one stands for nothing."""
        if not len(scores):
            return cls(0.0, 1.0, rows)
        return cls(float(scores.mean()), float(scores.std()), rows)


@dataclass(frozen=True)
class Seen:
    """How unit vectors (n, dim) lie among groups of vectors.

    Attributes:
        known: cosine with the nearest group.
        lead: mean cosine with the three nearest.
        mean, spread: of the cosines with all.
    """

    known: Floats
    lead: Floats
    mean: Floats
    spread: Floats

    @classmethod
    def among(cls, vectors: Array, groups: Array) -> Seen:
        cosines = (vectors @ groups.T).astype(np.float64)
        nearest = np.partition(cosines, -_NEAREST, axis=1)[:, -_NEAREST:]
        return cls(nearest.max(1), nearest.mean(1), cosines.mean(1), np.maximum(cosines.std(1), _LEAST_SPREAD))


@dataclass(frozen=True, eq=False)
class Confidence:
    """The groups of a checkpoint, and the map of each kind.

    Attributes:
        pictures, texts: float32 (K, dim), unit length.
        strange: the same, of pictures that are no photos of everyday life: documents, drawings, micrographs.
        chances: of pairs, and of hits of both kinds.
        prior: the share of the pairs that were right where the map of "pair" was fitted.
    """

    pictures: Array
    texts: Array
    strange: Array
    chances: Mapping[Kind, Chances]
    prior: float = 0.5

    @classmethod
    def load(cls, folder: Path, fingerprint: str, dim: int) -> Confidence | None:
        """Reads the file of a checkpoint folder; None if it has none.

        Args:
            folder: the checkpoint.
            fingerprint: of its weights.
            dim: of its vectors.

        Raises:
            EncoderError: the file is damaged, of a newer version, or was fitted to other weights.
        """
        path = folder / CONFIDENCE
        if not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="np") as file:
                about = json.loads((file.metadata() or {})["confidence"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            groups = [tensors[name].astype(np.float32) for name in GROUPS]
            chances: dict[Kind, Chances] = {kind: _read(tensors, kind) for kind in KINDS}
            prior = float(about["prior"])
            right = all(group.ndim == 2 and group.shape[1] == dim and len(group) > _NEAREST for group in groups)
            right = right and all(chances[kind].fits(len(terms_of(kind))) for kind in KINDS)
            right = right and all(np.isfinite(one).all() for one in groups)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from None
        if about.get("terms") != [*PAIR_TERMS, *HIT_TERMS]:
            raise EncoderError(f"{path} is of another version of brivl-search: fit it again, or delete it")
        if not right or about.get("fingerprint") != fingerprint:
            raise EncoderError(f"{path} was fitted to other weights: fit it again, or delete it")
        return cls(groups[0], groups[1], groups[2], chances, prior)

    def save(self, folder: Path, fingerprint: str, found: Mapping[str, Any] | None = None) -> Path:
        """Writes the file of a checkpoint folder, whole or not at all; `found`: what was measured, for people."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {
            **{name: getattr(self, name).astype(np.float16) for name in GROUPS},
            **{name: value for kind in KINDS for name, value in _written(self.chances[kind], kind).items()},
        }
        about = {
            "fingerprint": fingerprint,
            "prior": self.prior,
            "terms": [*PAIR_TERMS, *HIT_TERMS],
            "found": dict(found or {}),
        }
        path = folder / CONFIDENCE
        with appearing(path) as (temporary,):
            temporary.write_bytes(save(tensors, {"confidence": json.dumps(about, ensure_ascii=False)}))
        return path

    def pairs(self, texts: Array, pictures: Array) -> Floats:
        """The chance of each pair: texts (n, dim) and pictures (n, dim) → (n,)."""
        return self.chances["pair"](self.pair_terms(texts, pictures))

    def hits(self, kind: Literal["image", "text"], query: Array, rows: Array, collection: Collection) -> Floats:
        """The chance of each hit of one query.

        Args:
            kind: what the hits are; the query is of the other kind.
            query: (dim,), unit length.
            rows: (n, dim), unit length.
            collection: that was searched, for this query.
        """
        return self.chances[kind](self.hit_terms(kind, query, rows, collection))

    def pair_terms(self, texts: Array, pictures: Array) -> Floats:
        """(n, PAIR_TERMS); one text may stand for many pictures, or one picture for many texts."""
        count = max(len(texts), len(pictures))
        score = (texts * pictures).sum(1).astype(np.float64)
        text, text_itself = Seen.among(texts, self.pictures), Seen.among(texts, self.texts)
        picture, picture_itself = Seen.among(pictures, self.texts), Seen.among(pictures, self.pictures)
        columns: tuple[Any, ...] = (
            score,
            score - text.lead,
            score - picture.lead,
            (score - text.mean) / text.spread,
            (score - picture.mean) / picture.spread,
            picture_itself.known,
            (pictures @ self.strange.T).max(1).astype(np.float64),
            picture.lead,
            picture.spread,
            text_itself.known,
            text.lead,
            text.spread,
        )
        return np.stack([np.broadcast_to(column, (count,)) for column in columns], 1)

    def hit_terms(self, kind: Literal["image", "text"], query: Array, rows: Array, collection: Collection) -> Floats:
        """(n, HIT_TERMS) of one query's hits; see `hits`."""
        one = query[None]
        terms = self.pair_terms(one, rows) if kind == "image" else self.pair_terms(rows, one)
        spread = max(collection.spread, _LEAST_SPREAD)
        place = (terms[:, 0] - collection.mean) / spread
        extreme = np.sqrt(2 * np.log(max(collection.rows, 2)))  # about what the best of so many normal numbers reaches
        columns = (
            place,
            np.full_like(place, np.log(spread)),
            np.full_like(place, extreme),
            np.maximum(place - extreme, 0),
        )
        return np.concatenate([terms, np.stack(columns, 1)], 1)


def _read(tensors: Mapping[str, NDArray[Any]], kind: Kind) -> Chances:
    centre, scale, slopes, bias = (
        tensors[f"{kind}.{name}"].astype(np.float64) for name in ("centre", "scale", "slopes", "bias")
    )
    return Chances(centre, scale, slopes, float(bias[0]))


def _written(chances: Chances, kind: Kind) -> dict[str, NDArray[Any]]:
    values = (chances.centre, chances.scale, chances.slopes, np.array([chances.bias]))
    names = (f"{kind}.{name}" for name in ("centre", "scale", "slopes", "bias"))
    return {name: value.astype(np.float32) for name, value in zip(names, values, strict=True)}
