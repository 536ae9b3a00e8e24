"""What a step of the third round draws from: pictures with cached maps, texts with cached tokens, names, classes."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
from brivl_search.encoders.brivl.text_tower import TextTower
from train.mini.head_recipe import HeadsRecipe, HeadTraining
from train.mini.labelled import Name, Picture, all_names, read_pictures
from train.mini.lessons import NameVectors, by_name
from train.mini.maps import Maps, load_maps
from train.mini.tokens import LastLayers, Texts, cached_tokens


def read_texts(recipe: HeadsRecipe, base: Path, texts: list[str], *, bf16: bool) -> tuple[Texts, TextTower]:
    """All texts by the text tower to begin with, without its correction of hubs; and that tower."""
    cfg, cache = recipe.train, Path(recipe.cache or recipe.run)
    checkpoint = FolderCheckpoint((base / (recipe.texts or str(recipe.init.checkpoint))).resolve())
    tokens = cached_tokens(checkpoint, texts, cfg.text_layers, cache, bf16=bf16)
    tower = TextTower(checkpoint.config.text, checkpoint.config.dim)
    checkpoint.fill("text", tower)
    last, of = LastLayers(tower, cfg.text_layers), checkpoint
    if recipe.go_on is not None and cfg.text_lr_factor:
        of = FolderCheckpoint((base / recipe.go_on).resolve())
        learnt = copy.deepcopy(tower)
        of.fill("text", learnt)
        last.load_state_dict(LastLayers(learnt, cfg.text_layers).state_dict())
    key = hashlib.sha256(json.dumps([of.fingerprint, cfg.text_layers, texts]).encode()).hexdigest()[:12]
    file = cache / f"texts-{key}.npy"
    if not file.is_file():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            np.save(file, last.embed(tokens, range(len(texts))))
    return Texts(tokens, last, np.load(file), learns=cfg.text_lr_factor > 0), tower


@dataclass
class Lessons:
    """All that a step draws from.

    Attributes:
        pictures, maps: of the recipe, and what the CNNs give for them.
        captioned, labelled: numbers of the pictures that are trained on, each as often as it is drawn in an epoch.
        texts, text: vectors of all texts, and the tower that makes them.
        captions, row: how many of the texts are captions, the first; and the row of each.
        names: vectors of the names; `shown` (pictures, names) and `among`, the names of its collection.
        known: bool (names,), those that pictures are trained with: a name that is kept must not be a wrong answer.
        classes: (classes, names), which name a classifier's class has.
    """

    pictures: list[Picture]
    maps: Maps
    captioned: np.ndarray
    labelled: np.ndarray
    texts: Texts
    text: TextTower
    captions: int
    row: dict[str, int]
    names: NameVectors
    shown: Tensor
    among: Tensor
    known: Tensor
    classes: Tensor

    def draw(self, numbers: np.ndarray, count: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
        """`count` of `numbers`: a slice of the epoch's permutation."""
        epoch, at = divmod(step, max(len(numbers) // count, 1))
        order = np.random.default_rng((*seed, epoch)).permutation(numbers)
        return order[at * count : (at + 1) * count]

    def said(self, texts: list[str]) -> np.ndarray:
        """Vectors of captions, (texts, dim)."""
        return self.texts.bank[[self.row[text] for text in texts]].numpy()

    def views(self, chosen: np.ndarray, cfg: HeadTraining, rng: np.random.Generator) -> list[Tensor]:
        """Maps of a view of each picture, some mirrored."""
        views = []
        for number in chosen:
            there = self.maps.views_of(int(number))
            plain = there == 1 or rng.random() < cfg.plain_view
            views.append(0 if plain else int(rng.integers(1, there)))
        flips = torch.from_numpy(rng.random(len(chosen)) < cfg.flip)
        maps = self.maps.take([int(n) for n in chosen], views)
        for part in maps:
            part[flips] = part[flips].flip(3)
        return maps


def read_lessons(recipe: HeadsRecipe, base: Path, *, bf16: bool) -> Lessons:
    """Reads pictures and maps, and embeds captions and names."""
    pictures = read_pictures(recipe, base)
    maps = load_maps(recipe, base, pictures)
    names = all_names(pictures)
    vectors = NameVectors(names, recipe.kinds)
    captions = [*dict.fromkeys(t for p in pictures for group in p.captions.values() for t in group)]
    texts, text = read_texts(recipe, base, [*captions, *vectors.texts], bf16=bf16)
    vectors.fill(texts.bank[len(captions) :])
    used = [i for i, p in enumerate(pictures) if not p.kept or recipe.everything]
    repeated = [i for i in used for _ in range(pictures[i].repeat)]
    shown = names.shown(pictures)
    own = {c: np.array([c in places for places in names.collections]) for c in {p.collection for p in pictures}}
    rows = [json.loads(line) for line in (base / recipe.names).read_text(encoding="utf-8").splitlines()]
    return Lessons(
        pictures=pictures,
        maps=maps,
        captioned=np.array([i for i in repeated if pictures[i].captions]),
        labelled=np.array([i for i in repeated if pictures[i].names]),
        texts=texts,
        text=text,
        captions=len(captions),
        row={text: at for at, text in enumerate(captions)},
        names=vectors,
        shown=torch.from_numpy(shown),
        among=torch.from_numpy(np.stack([own[p.collection] for p in pictures])),
        known=torch.from_numpy(shown[used].any(0)),
        classes=by_name([names.number(Name(row["zh"], row["en"])) for row in rows], len(names.names)),
    )
