"""Figures on the kept pictures of a heads recipe: recall of captions, and top-1/top-5 of Chinese names.

    python -m train.mini.progress train/recipes/brivl-mini-3.toml brivl_search/models/brivl-mini

The command measures a checkpoint as its users have it. While heads train, the same figures are of cached maps and
without the correction of hubs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from brivl_search.corpus.images import load_pixels
from brivl_search.embedding.zero_shot import class_vectors
from brivl_search.encoders.brivl.image_tower import ImageTower, mean_direction
from brivl_search.encoders.registry import load_encoder
from brivl_search.metrics import ranks_exact, summarize
from train.mini.head_recipe import HeadsRecipe
from train.mini.labelled import Names, Picture, all_names, read_pictures
from train.mini.lessons import NameVectors
from train.mini.maps import Maps
from train.recipe import read_recipe

MIXED = ("place", "animal", "food", "goods", "clothes")


def tops(pictures: np.ndarray, names: np.ndarray, shown: np.ndarray) -> str:
    """Top-1/top-5 in %: pictures (n, dim) among names (m, dim), any of those that `shown` (n, m) says."""
    ranks = ranks_exact(pictures, names, [np.flatnonzero(row).tolist() for row in shown])
    recall = summarize(ranks, (1, 5), len(names)).recall
    return "/".join(f"{recall[k]:.1f}" for k in (1, 5))


def recalls(pictures: np.ndarray, texts: np.ndarray, owner: np.ndarray, among: np.ndarray) -> str:
    """R@1/5/10 of texts → their pictures among `among`, whose first are `pictures`, and of pictures → texts."""
    to_image = summarize(ranks_exact(texts, among, [[i] for i in owner]), (1, 5, 10), len(among)).recall
    partners = [np.flatnonzero(owner == i).tolist() for i in range(len(pictures))]
    to_text = summarize(ranks_exact(pictures, texts, partners), (1, 5, 10), len(texts)).recall
    return " | ".join("/".join(f"{found[k]:.1f}" for k in (1, 5, 10)) for found in (to_image, to_text))


def figures(
    kept: Sequence[Picture], names: Names, images: np.ndarray, zh: np.ndarray, said: Callable[[list[str]], np.ndarray]
) -> dict[str, str]:
    """Figures by name; those of "photo" are of pictures kept from known classes, of "class" from kept classes.

    Args:
        kept: the pictures.
        names: all names of the recipe.
        images: vectors of the pictures, (kept, dim).
        zh: vectors of the Chinese names, (names, dim).
        said: texts → their vectors.
    """
    found = {}
    told = [i for i, picture in enumerate(kept) if picture.captions]
    for collection in dict.fromkeys(kept[i].collection for i in told):
        mine = [i for i in told if kept[i].collection == collection]
        others = [i for i in told if kept[i].collection != collection and len(mine) < len(told) / 2]
        among = images[[*mine, *others]]  # the photos of a small collection among all
        for field in dict.fromkeys(f for i in mine for f in kept[i].captions):
            texts = [(text, at) for at, i in enumerate(mine) for text in kept[i].captions.get(field, [])]
            owner = np.array([at for _, at in texts])
            found[f"{collection} {field}"] = recalls(images[mine], said([t for t, _ in texts]), owner, among)
    shown = names.shown(kept)
    labelled = [i for i, picture in enumerate(kept) if picture.names]

    def add(title: str, members: list[int], asked: np.ndarray) -> None:
        for what in ("photo", "class"):
            mine = [i for i in members if kept[i].kept == what]
            if mine and asked.sum() > 1:
                count = f"{len(mine)} of {asked.sum()}"
                found[f"{title} {what}, {count}"] = tops(images[mine], zh[asked], shown[mine][:, asked])

    for collection in dict.fromkeys(kept[i].collection for i in labelled):
        mine = [i for i in labelled if kept[i].collection == collection]
        add(collection, mine, np.array([collection in places for places in names.collections]))
    groups = {
        "mixed": [i for i in labelled if kept[i].kind in MIXED],
        "objects": [i for i in labelled if kept[i].kind not in MIXED and kept[i].collection != "imagenet-samples"],
        "imagenet-samples among kept": [i for i in labelled if kept[i].collection == "imagenet-samples"],
    }
    for title, members in groups.items():
        add(title, members, np.asarray(shown[members].any(0)))
    return found


class Progress:
    """What a tower says of the kept pictures, by their cached maps."""

    def __init__(self, pictures: Sequence[Picture], maps: Maps, names: Names, vectors: NameVectors) -> None:
        """`vectors`: of the names."""
        self.maps, self.names, self.vectors = maps, names, vectors
        self.numbers = [i for i, picture in enumerate(pictures) if picture.kept]
        self.kept = [pictures[i] for i in self.numbers]

    def measure(
        self, tower: ImageTower, said: Callable[[list[str]], np.ndarray], *, bf16: bool, batch: int = 64
    ) -> dict[str, str]:
        """`figures` of a tower; `said`: texts → their vectors."""
        found = []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for at in range(0, len(self.numbers), batch):
                some = self.numbers[at : at + batch]
                found.append(mean_direction(tower.embed_members(self.maps.take(some, [0] * len(some))).float()))
        return figures(self.kept, self.names, torch.cat(found).numpy(), self.vectors.mean("zh").numpy(), said)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoint", help="checkpoint folder, or a bundled encoder's name")
    args = parser.parse_args(argv)
    recipe, base = read_recipe(args.recipe, [], HeadsRecipe), args.recipe.resolve().parent
    pictures, encoder = read_pictures(recipe, base), load_encoder(args.checkpoint)
    kept, names = [picture for picture in pictures if picture.kept], all_names(pictures)
    images = np.concatenate(
        [
            encoder.encode_images(np.stack([load_pixels(p.path, encoder.pixels) for p in kept[at : at + 64]]))
            for at in range(0, len(kept), 64)
        ]
    )
    zh = class_vectors(encoder, [[name.zh] for name in names.names])
    for title, value in figures(kept, names, images, zh, encoder.encode_texts).items():
        print(f"{title:45} {value}")


if __name__ == "__main__":
    main()
