"""Fits what turns a checkpoint's scores into chances, measures it, and writes it into the checkpoint's folder.

    python -m train.mini.teachers runs/teachers
    python -m train.mini.confidence brivl_search/models/brivl-mini --data ../shared/data

It writes confidence.safetensors (`brivl_search.encoders.confidence`), and into config.json the map of cosines that
`classify` uses. Neither changes the fingerprint. For a model that was trained with other photos than the bundled one,
--unseen names those that it was not trained with, one a line, as paths below --data; for a third round, `--kept RECIPE`
takes those that its recipe keeps for validation.

Everything is measured on what was not fitted on: photos, things and names are in two halves, and each half is judged by
weights of the other; pictures of a strange kind by a fit of the other kinds alone, and others of the same kinds,
scikit-image's among them, by the whole fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.confidence import PAIR_TERMS, Chances, Collection, Confidence, how_many
from brivl_search.evaluation.calibrating import expected_calibration_error, fit_and_judge
from train.mini import strange
from train.mini.alike import Alike
from train.mini.calibrate import write_calibration
from train.mini.couples import Couples, couples, strangers_to
from train.mini.fitting import crossed, fit
from train.mini.hits import SIZES, Rows, World, described, searched
from train.mini.labelled import kept_below
from train.mini.photos import CAPTIONED, Photo, Vectors, read

GROUPS, STRANGE = 160, 32  # of pictures and of texts, and of strange pictures: 352 · 256 numbers of 2 bytes
MADE = 60  # strange pictures of each kind
DEEP = 0.3  # what a hit behind the tenth counts: they are many, and hardly anyone looks at them
HALF, REACHED = 0.5, 0.8


def groups(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, dim): means of groups of vectors, as unit vectors; fewer where there are fewer vectors."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(count, len(vectors))
    means = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=2048).fit(vectors).cluster_centers_
    unit: np.ndarray = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit.astype(np.float16).astype(np.float32)  # as they are kept


class Unsure(FolderCheckpoint):
    """A checkpoint folder without its old confidence, which may be of other weights."""

    @cached_property
    def confidence(self) -> Confidence | None:
        return None


class Fitted:
    """The weights of everything, and what was measured.

    Args:
        world: photos and queries.
        vectors: of the encoder.
        kinds: of the strange pictures, in the world's order.
        new: (kind, float32 (n, dim)) of strange pictures that are in no fit.
        rounds: how often every kind and size of collection is drawn.
        queries: of each.
        count: groups of pictures and of texts.
    """

    def __init__(
        self,
        world: World,
        vectors: Vectors,
        kinds: Sequence[str],
        new: Sequence[tuple[str, np.ndarray]],
        *,
        rounds: int = 6,
        queries: int = 90,
        count: int = GROUPS,
    ) -> None:
        seen = np.array([photo.seen for photo in world.photos])
        lessons = vectors.texts([world.said_of(one) for one in world.lessons])
        self._lessons = groups(world.vectors[: len(seen)][seen], count), groups(lessons, count)
        self.world, self.vectors = world, vectors
        bare = self._bare(np.ones(len(kinds), bool))
        self.kinds, self.new = np.array(kinds), new
        self.images = searched(world, vectors, bare, 0, rounds, queries)
        self.texts = described(world, vectors, bare, 1, max(rounds // 2, 1), queries)
        self.pairs = couples(world, vectors, bare, 2)
        self.confidence = Confidence(
            bare.pictures,
            bare.texts,
            bare.strange,
            {
                "pair": fit(self.pairs.terms, self.pairs.right, self.pairs.weight),
                "image": fit(self.images.terms, self.images.right, _weight(self.images)),
                "text": fit(self.texts.terms, self.texts.right, _weight(self.texts)),
            },
        )

    def _bare(self, known: np.ndarray) -> Confidence:
        """The groups alone; of the strange pictures only those that are known."""
        strange_ = self.world.vectors[self.world.strange][known]
        return Confidence(*self._lessons, groups(strange_, STRANGE), {})

    # -- what was measured ---------------------------------------------------------------------------------------

    def measured(self, slope: float, intercept: float) -> dict[str, Any]:
        """Figures of the chances, and of the map of cosines (`before`) on the same hits and pairs."""
        images = crossed(self.images.terms, self.images.right, _weight(self.images), self.images.half)
        texts = crossed(self.texts.terms, self.texts.right, _weight(self.texts), self.texts.half)
        couples_ = crossed(self.pairs.terms, self.pairs.right, self.pairs.weight, self.pairs.half)

        def before(terms: np.ndarray) -> np.ndarray:
            return 1 / (1 + np.exp(-np.clip(slope * terms[:, 0] + intercept, -60, 60)))

        return {
            "hits": of_hits(self.images, images),
            "hits before": of_hits(self.images, before(self.images.terms)),
            "captions": of_hits(self.texts, texts),
            "captions before": of_hits(self.texts, before(self.texts.terms)),
            "pairs": of_pairs(self.pairs, couples_) | self._strange(None),
            "pairs before": of_pairs(self.pairs, before(self.pairs.terms)) | self._strange((slope, intercept)),
        }

    def _strange(self, line: tuple[float, float] | None) -> dict[str, Any]:
        """The share of strange pictures' pairs that reach `REACHED`, by maps that do not know the kind."""
        pairs, found = self.pairs, {}
        is_strange = pairs.kind == "strange"
        kind_of = np.full(len(pairs.kind), "", dtype=self.kinds.dtype)
        kind_of[is_strange] = self.kinds[pairs.picture[is_strange] - len(self.world.photos)]
        for kind in dict.fromkeys(self.kinds.tolist()):
            judged = kind_of == kind
            terms = pairs.terms
            chances: Chances | tuple[float, float] | None = line
            if line is None:
                terms = pairs.terms.copy()
                place = PAIR_TERMS.index("picture strange")
                others = self._bare(self.kinds != kind).strange
                terms[:, place] = (self.world.vectors[pairs.picture] @ others.T).max(1)
                chances = fit(terms[~judged], pairs.right[~judged], pairs.weight[~judged])
            for name, home in (("captions", pairs.home), ("names", ~pairs.home)):
                found[f"unknown kind: {kind}, {name}"] = _reach(terms[judged & home], chances)
        captions = sorted({texts[0] for at in self.world.asking for texts in self.world.photos[at].captions.values()})
        names = sorted({name for at in strangers_to(self.world) for name in self.world.photos[at].labels})
        for kind, pictures in self.new:
            for said, texts in (("captions", captions), ("names", names)):
                vectors = self.vectors.texts(texts)
                terms = np.concatenate([self.confidence.pair_terms(vectors, one[None]) for one in pictures])
                chances = self.confidence.chances["pair"] if line is None else line
                found[f"new strange: {kind}, {said}"] = _reach(terms, chances)
        return found


def _reach(terms: np.ndarray, chances: Chances | tuple[float, float] | None) -> float:
    """The share of pairs that reach `REACHED`; by the map of cosines, if (slope, intercept) are given."""
    if isinstance(chances, tuple):
        chance = 1 / (1 + np.exp(-(chances[0] * terms[:, 0] + chances[1])))
    else:
        assert chances is not None
        chance = chances(terms)
    return round(float((chance >= REACHED).mean()), 4) if len(terms) else 0.0


def _weight(rows: Rows) -> np.ndarray:
    return np.where(rows.rank < 10, 1.0, DEEP)


def of_hits(rows: Rows, chance: np.ndarray) -> dict[str, Any]:
    """ECE of the first ten; and of each kind of query the first five: right, mean match, queries that reach half."""
    first, best = rows.rank < 10, rows.rank < 5
    found: dict[str, Any] = {"ece": round(expected_calibration_error(chance[first], rows.right[first]), 4)}
    for world in dict.fromkeys(rows.world.tolist()):
        of = first & (rows.world == world)
        found[f"ece {world}"] = round(expected_calibration_error(chance[of], rows.right[of]), 4)
    for world, kind in dict.fromkeys(zip(rows.world.tolist(), rows.kind.tolist(), strict=True)):
        of = best & (rows.world == world) & (rows.kind == kind)
        highest = [chance[of & (rows.query == number)].max() for number in np.unique(rows.query[of])]
        found[f"{world}: {kind}"] = {
            "queries": len(highest),
            "right": round(float(rows.right[of].mean()), 3),
            "match": round(float(chance[of].mean()), 3),
            "reach half": round(float(np.mean(np.array(highest) >= HALF)), 3),
        }
    return found


def of_pairs(pairs: Couples, chance: np.ndarray) -> dict[str, Any]:
    """ECE of all pairs, weighted to the prior; of those at home, and of those off home."""
    found = {}
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(chance), len(chance), p=pairs.weight / pairs.weight.sum())
    for name, of in (
        ("ece", drawn),
        ("ece at home", drawn[pairs.home[drawn]]),
        ("ece off home", drawn[~pairs.home[drawn]]),
    ):
        found[name] = round(expected_calibration_error(chance[of], pairs.right[of].astype(float)), 4)
    return found


def counted(fitted: Fitted, seed: int = 3) -> dict[str, dict[str, float]]:
    """How far `how_many` is from the number of right pictures, for things that are there, and for others."""
    world, rng = fitted.world, np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {}
    for kind in ("labels", "everyday"):
        for size in SIZES[1:5]:
            there = world.draw(rng, kind, size)
            rows = world.vectors[there]
            for one in world.ask(rng, kind, there, 60):
                if one.kind.startswith("caption") or np.isnan(one.right).any():
                    continue
                (query,) = fitted.vectors.texts([one.text])
                chance = fitted.confidence.hits("image", query, rows, Collection.of(rows @ query, len(rows)))
                name = f"{kind}: {'there' if one.kind in ('label', 'thing') else 'absent'}"
                found.setdefault(name, []).append((float(one.right.sum()), how_many(chance)))
    return {name: _apart(np.array(pairs)) for name, pairs in found.items()}


def _apart(pairs: np.ndarray) -> dict[str, float]:
    right, said = pairs.T
    factor = np.maximum((said + 1) / (right + 1), (right + 1) / (said + 1))
    return {
        "queries": len(right),
        "right": round(float(right.mean()), 1),
        "said": round(float(said.mean()), 1),
        "within a factor of 2": round(float((factor <= 2).mean()), 3),
        "median factor": round(float(np.median(factor)), 2),
    }


# -- the command -------------------------------------------------------------------------------------------------


def world_of(
    photos: Sequence[Photo], vectors: Vectors, teachers: Path | None, cache: Path
) -> tuple[World, list[str], list[tuple[str, np.ndarray]]]:
    """The world, the kinds of its strange pictures, and others that are in no fit: made ones, and scikit-image's."""
    captioned = [photo for photo in photos if photo.collection in CAPTIONED]
    alike = None if teachers is None else Alike(captioned, teachers, cache)
    made, new = list(strange.made(MADE)), list(strange.made(MADE // 2, seed=1))
    world = World(photos, vectors.photos(photos), alike, vectors.pictures([picture for _, picture in made]))
    of: dict[str, list[Image.Image]] = {}
    for kind, picture in [*new, *(("scikit-image", picture) for _, picture in strange.brought())]:
        of.setdefault(kind, []).append(picture)
    return world, [kind for kind, _ in made], [(kind, vectors.pictures(pictures)) for kind, pictures in of.items()]


def line_of(pairs: Couples) -> dict[str, float]:
    """The map of cosines alone, of true and other pairs at home, for config.json."""
    chosen = pairs.home & np.isin(pairs.kind, ("right", "other"))
    return fit_and_judge(pairs.cosine[chosen], pairs.right[chosen], pairs.half[chosen])


def write(encoder: BriVLEncoder, confidence: Confidence, line: dict[str, float], measured: dict[str, Any]) -> None:
    """Both files of the checkpoint's folder, each whole or not at all."""
    assert encoder.folder is not None
    file = write_calibration(encoder.folder, line)
    path = confidence.save(encoder.folder, encoder.checkpoint.fingerprint, measured)
    print(f"wrote {path} ({path.stat().st_size / 1000:,.0f} kB) and {file}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--teachers", type=Path, default=Path("runs/teachers"), help="of train.mini.teachers")
    parser.add_argument("--own-only", action="store_true", help="no other photo than its own fits a caption")
    parser.add_argument("--unseen", type=Path, help="photos that the model was not trained with, a path a line")
    parser.add_argument("--kept", type=Path, help="or the recipe of a third round that kept some")
    parser.add_argument("--cache", type=Path, default=Path("runs/confidence"), help="for vectors")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--report", type=Path, help="also write what was measured to this JSON file")
    args = parser.parse_args(argv)
    unseen = None
    if args.unseen is not None:
        unseen = frozenset(args.unseen.read_text(encoding="utf-8").split("\n"))
    elif args.kept is not None:
        unseen = kept_below(args.data, args.kept)
    encoder = BriVLEncoder(Unsure(args.checkpoint))
    vectors = Vectors(encoder, args.data, args.cache)
    photos = read(args.data, unseen)
    world, kinds, new = world_of(photos, vectors, None if args.own_only else args.teachers, args.cache)
    fitted = Fitted(world, vectors, kinds, new, rounds=args.rounds)
    line = line_of(fitted.pairs)
    before = encoder.config.calibration or line
    measured = fitted.measured(before["slope"], before["intercept"]) | {"count": counted(fitted)}
    text = json.dumps(measured, indent=1, ensure_ascii=False)
    if args.report is not None:
        args.report.write_text(text + "\n", encoding="utf-8")
    print(text)
    write(encoder, fitted.confidence, line, measured)


if __name__ == "__main__":
    main()
