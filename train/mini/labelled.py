"""The pictures of a heads recipe: with captions, or with the names of what they show; and what is kept for validation.

Whether a picture or a class is kept depends on a hash of its name alone, so it is the same in every run. A class that
is kept is kept in all collections that keep classes: its name is never seen beside a picture.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from train.data.photos import Photo, read_folder
from train.mini.head_recipe import HeadsRecipe, Labelled
from train.mini.photos import read
from train.recipe import read_recipe

Kept = Literal["", "photo", "class"]
Language = Literal["zh", "en"]


@dataclass(frozen=True)
class Name:
    """What a picture shows, in both languages."""

    zh: str
    en: str


@dataclass(frozen=True)
class Picture:
    """A picture of a recipe.

    Attributes:
        path: the file.
        collection: its folder's name.
        captions, weights: field → captions, and how often a field is drawn; of captioned photos.
        names: what it shows; of labelled photos.
        kind: which of the recipe's kinds the names are.
        views: how many are cached.
        repeat: draws in an epoch.
        kept: for validation: the picture, or its whole class; empty: it is trained on.
    """

    path: str
    collection: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    names: tuple[Name, ...] = ()
    kind: str = ""
    views: int = 1
    repeat: int = 1
    kept: Kept = ""


def place(text: str) -> float:
    """A number from 0 to 1 that a text has always, and that says nothing of it."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def names_of(row: dict[str, str], table: Labelled) -> tuple[Name, ...]:
    """The names in a row: 公交车、人 and "bus, person" are two."""
    zh, en = row[table.zh].split("、"), row[table.en].split(", ")
    if len(zh) != len(en):
        zh, en = [row[table.zh]], [row[table.en]]
    return tuple(Name(*pair) for pair in zip(zh, en, strict=True))


def read_labelled(table: Labelled, base: Path) -> list[Picture]:
    """The pictures of a `[[labelled]]` table, in the file's order."""
    folder = (base / table.folder).resolve()
    rows = [json.loads(line) for line in (folder / table.file).read_text(encoding="utf-8").splitlines()]
    pictures = [
        Picture(
            str(folder / row["image"]), folder.name, names=names_of(row, table), kind=table.kind,
            views=table.views, repeat=table.repeat,
        )
        for row in rows
    ]  # fmt: skip
    groups: dict[tuple[Name, ...], list[int]] = defaultdict(list)
    for at, picture in enumerate(pictures):
        groups[picture.names].append(at)
    kept: dict[int, Kept] = {}
    for names, members in groups.items():
        if any(place(f"class {name.zh}") < table.hold_classes for name in names):
            kept |= dict.fromkeys(members, "class")
        elif table.hold_photos and len(members) >= 3:
            by_place = sorted(members, key=lambda at: place(f"photo {rows[at]['image']}"))
            kept |= dict.fromkeys(by_place[: max(round(len(members) * table.hold_photos), 1)], "photo")
    return [replace(p, kept=kept[at], views=1) if at in kept else p for at, p in enumerate(pictures)]


def read_pictures(recipe: HeadsRecipe, base: Path) -> list[Picture]:
    """All pictures of a recipe: those of its `[[data]]` tables, then those of its `[[labelled]]` ones."""
    pictures: list[Picture] = []
    for table in recipe.data:
        collection, photos = Path(table.folder).name, read_folder(table, base)
        kinds: list[tuple[list[Photo], Kept]] = [(photos.train, ""), (photos.val, "photo")]
        for group, kept in kinds:
            pictures += [
                Picture(
                    photo.path, collection, photo.captions, photo.weights, repeat=photo.repeat,
                    views=1 if kept else table.views, kept=kept,
                )
                for photo in group
            ]  # fmt: skip
    for labels in recipe.labelled:
        if labels.kind not in recipe.kinds:
            raise SystemExit(f"{labels.folder}: there is no kind {labels.kind!r}: the recipe has {[*recipe.kinds]}")
        pictures += read_labelled(labels, base)
    return pictures


@dataclass(frozen=True)
class Names:
    """All names that pictures of a recipe have, each once, and which a picture shows.

    Attributes:
        names: in order of their first picture; two pictures of one Chinese name share one.
        kinds: of each name: the kinds of the collections that have it.
        collections: of each name: the collections that have it.
    """

    names: list[Name]
    kinds: list[list[str]]
    collections: list[set[str]]

    def number(self, name: Name) -> int:
        """A name's place in `names`."""
        return self._numbers()[name.zh]

    def _numbers(self) -> dict[str, int]:
        return {name.zh: at for at, name in enumerate(self.names)}

    def shown(self, pictures: Sequence[Picture]) -> np.ndarray:
        """bool (pictures, names): what each shows."""
        numbers = self._numbers()
        table = np.zeros((len(pictures), len(self.names)), bool)
        for row, picture in enumerate(pictures):
            table[row, [numbers[name.zh] for name in picture.names]] = True
        return table


def all_names(pictures: Sequence[Picture]) -> Names:
    """The names of labelled pictures."""
    names: dict[str, Name] = {}
    kinds: dict[str, list[str]] = defaultdict(list)
    collections: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        for name in picture.names:
            names.setdefault(name.zh, name)
            collections[name.zh].add(picture.collection)
            if picture.kind not in kinds[name.zh]:
                kinds[name.zh].append(picture.kind)
    return Names([*names.values()], [kinds[zh] for zh in names], [collections[zh] for zh in names])


def kept_below(data: Path, recipe: Path) -> frozenset[str]:
    """The pictures that no round was trained with: kept by a heads recipe, and not of a collection of earlier rounds.

    Args:
        data: the folder of all collections.
        recipe: the recipe's file.

    Returns:
        Paths below `data`.
    """
    pictures = read_pictures(read_recipe(recipe, [], HeadsRecipe), recipe.resolve().parent)
    new = {photo.path for photo in read(data) if not photo.seen}  # to the rounds before
    paths = (Path(picture.path).relative_to(data.resolve()).as_posix() for picture in pictures if picture.kept)
    return frozenset(paths) & new
