"""Hits whose rightness is known: queries of many kinds in collections of many sizes, searched as an index is.

A collection is a random draw of photos. Photos that the model was trained with are in it only beside others: captions
of theirs are never asked. Deep ranks are drawn too, so that what is hardly right is seen as well.

kinds of collections    everyday photos with captions; labelled photos, a third of whose names are left out; both and
                        strange pictures together
kinds of queries        captions of a photo that is there, or that is not; things by name, there or not; nonsense
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from brivl_search.encoders.confidence import Collection, Confidence
from train.mini import asked
from train.mini.alike import Alike
from train.mini.photos import CAPTIONED, Photo, Vectors

SIZES = (50, 150, 400, 1000, 2500, 6000)
RANKS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 19, 29, 49, 79, 129, 199, 319, 499, 999, 1999])
FIELDS = ("en", "zh", "zh_mt_google")
SAMPLE = 2048  # as of an index
TEMPLATES = ("{}", "{}", "a photo of {}", "一张{}的照片")
LEFT_OUT = 1 / 3


def half(text: str) -> int:
    """0 or 1, always the same for a text: what is judged by the other half."""
    return sha256(text.encode()).digest()[0] % 2


@dataclass(frozen=True)
class Asked:
    """A query of a collection.

    Attributes:
        text: what is asked.
        kind: "caption", "caption absent", "thing", "thing absent", "label", "label absent", "nonsense".
        half: of the truth it is about.
        right: float (photos,), the chance that each photo of the collection fits.
    """

    text: str
    kind: str
    half: int
    right: np.ndarray


@dataclass
class Rows:
    """Hits, one a row.

    Attributes:
        terms: float (n, HIT_TERMS).
        right: float (n,), 0 to 1.
        rank: int (n,), from 0.
        half: int (n,).
        kind: (n,) of the query.
        size: int (n,) of the collection.
        query: int (n,), its number.
        world: (n,) kind of the collection.
    """

    terms: np.ndarray
    right: np.ndarray
    rank: np.ndarray
    half: np.ndarray
    kind: np.ndarray
    size: np.ndarray
    query: np.ndarray
    world: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


class World:
    """All photos with their vectors, and what is asked of them.

    Args:
        photos: all.
        vectors: float32 (n, dim), of them.
        alike: of the captioned photos, in their order in `photos`; None: only its own photo fits a caption.
        strange: float32 (m, dim), of pictures that fit no query.
    """

    def __init__(self, photos: Sequence[Photo], vectors: np.ndarray, alike: Alike | None, strange: np.ndarray) -> None:
        self.photos, self.alike = photos, alike
        self.vectors = np.concatenate([vectors, strange])
        self.strange = np.arange(len(photos), len(self.vectors))
        self.captioned = np.array([at for at, one in enumerate(photos) if one.collection in CAPTIONED], int)
        self.labelled = np.array([at for at, one in enumerate(photos) if one.labels and not one.seen], int)
        self.asking = [at for at in self.captioned.tolist() if not photos[at].seen]
        self._number = {at: number for number, at in enumerate(self.captioned.tolist())}
        self.lessons = self._lessons()
        self.said = [[text for name in ("en",) for text in photos[at].captions.get(name, [])] for at in self.captioned]
        self.names = sorted({name for at in self.labelled for name in photos[at].labels})
        things, absent = asked.concepts(), asked.absent()
        self.things, self.absent = things, absent
        self._shown = {
            one.zh: row for one, row in zip([*things, *absent], asked.table([*things, *absent], self.said), strict=True)
        }

    def _lessons(self) -> list[tuple[int, str, int]]:
        """(photo, field, number) of a caption of every captioned photo that the model was trained with."""
        rng, found = np.random.default_rng(0), []
        for at in self.captioned.tolist():
            fields = [name for name in FIELDS if self.photos[at].captions.get(name)]
            if self.photos[at].seen and fields:
                name = str(rng.choice(fields))
                found.append((at, name, int(rng.integers(len(self.photos[at].captions[name])))))
        return found

    def said_of(self, caption: tuple[int, str, int]) -> str:
        """The text of one of `lessons`."""
        at, name, number = caption
        return self.photos[at].captions[name][number]

    # -- collections ---------------------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
        """int (n,): numbers of pictures; fewer than `size` where there are no more."""
        if kind == "labels":
            left = {name for name in self.names if rng.random() < LEFT_OUT}
            pool = np.array([at for at in self.labelled if not self.photos[at].labels & left], int)
            return rng.permutation(pool)[:size]
        unseen = rng.permutation(self.asking)[: max(size // 2, 20)]
        seen = rng.permutation([at for at in self.captioned.tolist() if self.photos[at].seen])[: size - len(unseen)]
        drawn = np.concatenate([unseen, seen]).astype(int)
        if kind == "mixed":
            others = np.concatenate(
                [rng.permutation(self.labelled)[: size // 3], rng.permutation(self.strange)[: size // 8]]
            )
            drawn = np.concatenate([drawn[: size - len(others)], others]).astype(int)
        return drawn

    def fits(self, caption: tuple[int, str, int], photo: int) -> float:
        """The chance that a caption fits a photo; NaN where nobody knows."""
        at, name, number = caption
        if self.alike is None:
            return float(at == photo)
        return float(self.alike.chance(name, self._number[at], number, [self._number[photo]])[0])

    # -- queries -------------------------------------------------------------------------------------------------

    def ask(self, rng: np.random.Generator, kind: str, there: np.ndarray, count: int) -> Iterator[Asked]:
        """About so many queries of a collection."""
        chance = {"labels": (("label", 0.5), ("label absent", 0.25), ("nonsense", 0.25))}.get(
            kind, (("caption", 0.35), ("caption absent", 0.1), ("thing", 0.3), ("nonsense", 0.25))
        )
        for name, share in chance:
            for _ in range(round(count * share)):
                one = self._asked(rng, kind, name, there)
                if one is not None:
                    yield one

    def _asked(self, rng: np.random.Generator, kind: str, name: str, there: np.ndarray) -> Asked | None:
        if name.startswith("caption"):
            return self._caption(rng, there, absent=name != "caption", known=kind == "everyday")
        if name == "nonsense":
            if rng.random() < 0.4:
                said = str(rng.choice(asked.nonsense()))
                return Asked(said, name, half(said), np.zeros(len(there)))
            return self._thing(rng, there, self.absent)
        if name == "thing":
            return self._thing(rng, there, self.things)
        return self._label(rng, there, absent=name != "label")

    def _caption(self, rng: np.random.Generator, there: np.ndarray, *, absent: bool, known: bool) -> Asked | None:
        inside = set(there.tolist())
        pool = [at for at in self.asking if (at not in inside) == absent]
        if not pool:
            return None
        at = int(rng.choice(pool))
        fields = [name for name in FIELDS if self.photos[at].captions.get(name)]
        name = str(rng.choice(fields))
        said = self.photos[at].captions[name]
        caption = int(rng.integers(len(said)))
        right = np.full(len(there), 0.0 if known else np.nan)
        places = [place for place, other in enumerate(there.tolist()) if other in self._number]
        others = [self._number[int(there[place])] for place in places]
        if self.alike is not None:
            right[places] = self.alike.chance(name, self._number[at], caption, others)
        else:
            right[places] = np.asarray(others) == self._number[at]
        right[there >= len(self.photos)] = 0
        return Asked(said[caption], "caption absent" if absent else "caption", half(self.photos[at].path), right)

    def _thing(self, rng: np.random.Generator, there: np.ndarray, among: Sequence[asked.Concept]) -> Asked:
        one = among[int(rng.integers(len(among)))]
        right = np.full(len(there), np.nan)
        row = self._shown[one.zh]
        for place, other in enumerate(there.tolist()):
            if other in self._number:
                right[place] = row[self._number[other]]
            elif other >= len(self.photos):
                right[place] = 0
            elif one.labels & self.photos[other].labels:
                right[place] = 1
            elif among is self.absent:
                right[place] = any(one.words.search(label.lower()) for label in self.photos[other].labels)
        kind = "nonsense" if among is self.absent else "thing" if (right == 1).any() else "thing absent"
        return Asked(one.zh if rng.random() < 0.5 else one.en, kind, half(one.zh), right)

    def _label(self, rng: np.random.Generator, there: np.ndarray, *, absent: bool) -> Asked | None:
        shown = {name for at in there.tolist() for name in self.photos[at].labels}
        pool = sorted((set(self.names) - shown) if absent else shown)
        if not pool:
            return None
        name = str(rng.choice(pool))
        chinese = not name.isascii()
        form = str(rng.choice([form for form in TEMPLATES if form == "{}" or form.isascii() != chinese]))
        right = np.array([name in self.photos[at].labels for at in there.tolist()], float)
        one = next(self.photos[at] for at in self.labelled if name in self.photos[at].labels)
        truth = min(one.labels)  # both languages' names are of one half
        return Asked(form.format(name), "label absent" if absent else "label", half(truth), right)


def searched(world: World, vectors: Vectors, confidence: Confidence, seed: int, rounds: int, queries: int) -> Rows:
    """Text → image: every kind and size of collection, so many times, with so many queries each."""
    rng = np.random.default_rng(seed)
    parts, number = [], 0
    for _ in range(rounds):
        for kind in ("everyday", "labels", "mixed"):
            for size in SIZES:
                there = world.draw(rng, kind, size)
                rows = world.vectors[there]
                sample = rows[rng.permutation(len(rows))[:SAMPLE]]
                found = list(world.ask(rng, kind, there, queries))
                for one, query in zip(found, vectors.texts([one.text for one in found]), strict=True):
                    parts.append(_rows(confidence, "image", query, rows, sample, one, number, kind))
                    number += 1
    return Rows.joined(parts)


def _rows(
    confidence: Confidence,
    target: str,
    query: np.ndarray,
    rows: np.ndarray,
    sample: np.ndarray,
    one: Asked,
    number: int,
    world: str,
) -> Rows:
    scores = rows @ query
    best = np.argsort(-scores)
    ranks = RANKS[len(best) > RANKS]
    places = best[ranks]
    known = ~np.isnan(one.right[places])
    places, ranks = places[known], ranks[known]
    count = len(ranks)
    against = Collection.of(sample @ query, len(rows))
    terms = confidence.hit_terms("image" if target == "image" else "text", query, rows[places], against)
    return Rows(
        terms, one.right[places], ranks, np.full(count, one.half), np.full(count, one.kind, dtype="U16"),
        np.full(count, len(rows)), np.full(count, number), np.full(count, world, dtype="U16"),
    )  # fmt: skip


def described(world: World, vectors: Vectors, confidence: Confidence, seed: int, rounds: int, queries: int) -> Rows:
    """Image → text: a photo with and without its own captions, or a strange picture, among captions of many photos."""
    rng = np.random.default_rng(seed)
    parts, number = [], 0
    for _ in range(rounds):
        for size in SIZES:
            asking = rng.permutation(world.asking)
            inside, outside = asking[: min(size // 4, len(asking) // 2)].tolist(), asking[len(asking) // 2 :].tolist()
            captions = [
                (at, name, at_number)
                for at in inside
                for name in FIELDS
                for at_number in range(min(len(world.photos[at].captions.get(name, [])), 2))
            ]
            more = rng.permutation(len(world.lessons))[: max(size - len(captions), 0)]
            captions = [*captions, *(world.lessons[at] for at in more.tolist())][:size]
            rows = vectors.texts([world.said_of(one) for one in captions])
            sample = rows[rng.permutation(len(rows))[:SAMPLE]]
            asked_with = [
                *((int(at), "photo") for at in rng.permutation(inside)[:queries]),
                *((int(at), "photo absent") for at in rng.permutation(outside)[: queries // 3]),
                *((int(at), "strange") for at in rng.permutation(world.strange)[: queries // 4]),
            ]
            for picture, kind in asked_with:
                query = world.vectors[picture]
                right = np.zeros(len(captions))
                best = np.argsort(-(rows @ query))
                for place in best[RANKS[len(best) > RANKS]].tolist() if kind != "strange" else []:
                    right[place] = world.fits(captions[place], picture)
                path = world.photos[picture].path if kind != "strange" else str(picture)
                one = Asked("", kind, half(path), right)
                parts.append(_rows(confidence, "text", query, rows, sample, one, number, "captions"))
                number += 1
    return Rows.joined(parts)
