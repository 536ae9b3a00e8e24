"""Fits a checkpoint's hubness correction (`brivl_search.encoders.brivl.hubness`) to its training pairs, and writes it.

    python -m train.mini.hubness train/recipes/brivl-mini.toml brivl_search/models/brivl-mini
    python -m train.mini.hubness train/recipes/brivl-mini-3.toml brivl_search/models/brivl-mini   # by its cached maps

Nothing of the towers changes. The banks are spherical k-means of captions, all fields alike, and of photos, both drawn
from the recipe's training pairs. It changes the checkpoint's vectors and fingerprint: calibrate it afterwards.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.brivl.checkpoint import load_tower, read_config, write_hubness
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.hubness import HUBNESS, Bank, Hubness
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.data.photos import Photo, read_photos
from train.mini.head_recipe import HeadsRecipe
from train.mini.labelled import read_pictures
from train.mini.maps import load_maps
from train.recipe import read_recipe


def captions_of(photos: list[Photo], count: int, rng: np.random.Generator) -> list[str]:
    """At most `count` different captions."""
    texts = sorted({text for photo in photos for group in photo.captions.values() for text in group})
    return [texts[i] for i in rng.permutation(len(texts))[:count]]


def cluster(
    vectors: np.ndarray, count: int, rng: np.random.Generator, rounds: int = 15
) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means: means (K, dim) of the clusters, shorter than 1 the more they spread, and shares (K,)."""
    means = vectors[rng.permutation(len(vectors))[:count]]
    shares = np.zeros(len(means))
    for _ in range(rounds):
        nearest = (vectors @ (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)).T).argmax(1)
        sizes = np.bincount(nearest, minlength=len(means))
        sums = np.zeros_like(means)
        np.add.at(sums, nearest, vectors)
        means = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], means)
        shares = sizes / len(vectors)
    return means[shares > 0], shares[shares > 0]


def fit_hubs(
    texts: np.ndarray,
    images: np.ndarray,
    *,
    centroids: tuple[int, int] = (4096, 256),
    weights: tuple[float, float] = (0.7, 0.4),
    temperatures: tuple[float, float] = (0.025, 0.05),
    constant: float = 0.4,
    seed: int = 0,
) -> Hubness:
    """The corrections for towers that gave these unit vectors, float32 (n, dim) each.

    Args:
        texts, images: of training pairs.
        centroids: of texts, by which images are judged, and of images.
        weights: of the correction of images, and of that of texts.
        temperatures: τ of both.
        constant, seed: a of `brivl_search.encoders.brivl.hubness`, and of k-means.
    """
    rng = np.random.default_rng(seed)
    some = min(len(texts), len(images))
    both = np.concatenate([images[:some], texts[:some]]).astype(np.float64)
    _, directions = np.linalg.eigh(both.T @ both)  # least first
    banks = []
    settings = zip((texts, images), centroids, weights, temperatures, (images, texts), strict=True)
    for bank, count, weight, temperature, judged in settings:
        means, shares = cluster(bank, count, rng)
        found = Bank(means.astype(np.float32), shares.astype(np.float32), weight, 0.0, temperature)
        banks.append(replace(found, mean=float(found.near(judged).mean())))
    return Hubness(np.ascontiguousarray(directions[:, 2:], np.float32), banks[0], banks[1], constant)


def by_reading(recipe: Path, checkpoint: Path, captions: int, photos: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of captions and photos of a recipe, by the whole checkpoint."""
    encoder, rng = BriVLEncoder(checkpoint), np.random.default_rng(0)
    given = read_photos(read_recipe(recipe, []).data, recipe.resolve().parent).train
    texts = encoder.encode_texts(captions_of(given, captions, rng))
    drawn = [given[i].path for i in rng.permutation(len(given))[:photos]]
    images = [
        encoder.encode_images(np.stack([load_pixels(path, encoder.pixels) for path in drawn[at : at + 64]]))
        for at in range(0, len(drawn), 64)
    ]
    return texts, np.concatenate(images)


def by_cache(recipe: HeadsRecipe, base: Path, checkpoint: Path, captions: int, photos: int) -> tuple[np.ndarray, ...]:
    """As `by_reading`, photos by the maps that a third round has cached: its CNNs are the checkpoint's too."""
    bf16 = has_fast_bf16(pick_device("cpu")) if recipe.train.bf16 is None else recipe.train.bf16
    pictures, rng = read_pictures(recipe, base), np.random.default_rng(0)
    maps = load_maps(recipe, base, pictures)
    tower = ImageTower(read_config(checkpoint).image, recipe.config.dim).eval()
    load_tower(checkpoint, "image", tower)
    used = [number for number, picture in enumerate(pictures) if picture.captions and not picture.kept]
    texts = sorted({text for number in used for group in pictures[number].captions.values() for text in group})
    said = BriVLEncoder(checkpoint).encode_texts([texts[row] for row in rng.permutation(len(texts))[:captions]])
    drawn, images = rng.permutation(used)[:photos].tolist(), []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for at in range(0, len(drawn), 64):
            some = drawn[at : at + 64]
            images.append(tower.embed(maps.take(some, [0] * len(some))).float().numpy())
    return said, np.concatenate(images)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="whose [[data]] hold the training photos and captions")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--captions", type=int, default=40_000, help="drawn for the bank")
    parser.add_argument("--photos", type=int, default=4_000, help="drawn for the other bank")
    args = parser.parse_args(argv)
    (args.checkpoint / HUBNESS).unlink(missing_ok=True)
    if "labelled" in tomllib.loads(args.recipe.read_text(encoding="utf-8")):
        recipe = read_recipe(args.recipe, [], HeadsRecipe)
        found = by_cache(recipe, args.recipe.resolve().parent, args.checkpoint, args.captions, args.photos)
    else:
        found = by_reading(args.recipe, args.checkpoint, args.captions, args.photos)
    texts, images = found
    write_hubness(args.checkpoint, fit_hubs(texts, images))
    print(f"{args.checkpoint / HUBNESS}: of {len(texts):,} captions and {len(images):,} photos; calibrate it now")


if __name__ == "__main__":
    main()
