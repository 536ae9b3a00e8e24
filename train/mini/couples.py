"""Pairs of a text and a picture whose rightness is known: what `match TEXT PICTURE` is fitted on.

Half of the weight is on pairs that are right: captions with their photos, names with labelled photos. The other half is
on texts with another photo of the same collection, with one of another collection, and with a picture of a strange
kind, and on texts that no photo fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brivl_search.encoders.confidence import Confidence
from train.mini import asked
from train.mini.hits import FIELDS, TEMPLATES, World, half
from train.mini.photos import Vectors

SHARES = {"right": 0.5, "other": 0.22, "elsewhere": 0.09, "strange": 0.12, "nonsense": 0.07}
# Labelled collections whose names no strange picture shows: no receipts, no paper, no fog.
_FAR = (
    *("everyday/animals", "everyday/based", "everyday/cars", "everyday/cats", "everyday/clothes", "everyday/flowers"),
    *("everyday/fruitveg", "everyday/houses", "everyday/imagenette", "everyday/panda", "everyday/voc"),
)


@dataclass
class Couples:
    """Pairs, one a row.

    Attributes:
        terms: float (n, PAIR_TERMS).
        cosine: float (n,).
        right: bool (n,).
        weight: float (n,).
        half: int (n,), of the text.
        kind: (n,) a key of SHARES.
        home: bool (n,): captions of photos as in training, not names of labelled ones.
        picture: int (n,), its number.
    """

    terms: np.ndarray
    cosine: np.ndarray
    right: np.ndarray
    weight: np.ndarray
    half: np.ndarray
    kind: np.ndarray
    home: np.ndarray
    picture: np.ndarray


def couples(world: World, vectors: Vectors, confidence: Confidence, seed: int, names: int = 2) -> Couples:
    """Every caption of the photos that are not trained on, and so many names a labelled photo."""
    rng = np.random.default_rng(seed)
    texts: list[tuple[str, int, bool]] = []  # text, its photo, at home
    for at in world.asking:
        photo = world.photos[at]
        texts += [(said, at, True) for name in FIELDS for said in photo.captions.get(name, [])]
    for at in world.labelled.tolist():
        for name in rng.permutation(sorted(world.photos[at].labels))[:names].tolist():
            forms = [form for form in TEMPLATES if form == "{}" or form.isascii() == name.isascii()]
            texts.append((str(rng.choice(forms)).format(name), at, False))
    strangers = set(strangers_to(world))
    pools = {True: np.array(world.asking), False: world.labelled}
    rows: list[tuple[str, int, bool, str, int, bool]] = []  # text, picture, right, kind, half, home
    for said, at, home in texts:
        photo = world.photos[at]
        number = half(photo.path if home else min(photo.labels))
        rows.append((said, at, True, "right", number, home))
        other = int(rng.choice(pools[home]))
        if other != at and not (photo.labels & world.photos[other].labels):
            rows.append((said, other, False, "other", number, home))
        other_pool = int(rng.choice(pools[not home]))
        if not _names(world, photo.labels or world.photos[other_pool].labels, at if home else other_pool):
            rows.append((said, other_pool, False, "elsewhere", number, home))
        if home or at in strangers:
            rows.append((said, int(rng.choice(world.strange)), False, "strange", number, home))
    nothing = [*asked.nonsense(), *(text for one in asked.absent() for text in (one.zh, one.en))]
    for said in nothing:
        for home, pool in pools.items():
            rows += [(said, int(at), False, "nonsense", half(said), home) for at in rng.choice(pool, 12)]
    said_vectors = vectors.texts([row[0] for row in rows])
    pictures = np.array([row[1] for row in rows])
    shown = world.vectors[pictures]
    kind = np.array([row[3] for row in rows])
    weight = np.zeros(len(rows))
    for name, share in SHARES.items():
        weight[kind == name] = share * len(rows) / max((kind == name).sum(), 1)
    return Couples(
        confidence.pair_terms(said_vectors, shown),
        (said_vectors * shown).sum(1).astype(np.float64),
        np.array([row[2] for row in rows]),
        weight,
        np.array([row[4] for row in rows]),
        kind,
        np.array([row[5] for row in rows]),
        pictures,
    )


def _names(world: World, labels: frozenset[str], captioned: int) -> bool:
    """Whether a caption of a photo holds one of the names."""
    said = [text.lower() for texts in world.photos[captioned].captions.values() for text in texts]
    return any(name.lower() in text for name in labels for text in said)


def strangers_to(world: World) -> list[int]:
    """Labelled photos whose names no strange picture shows."""
    return [at for at in world.labelled.tolist() if world.photos[at].collection in _FAR]
