"""Caches what the whole CNNs of a finished checkpoint give for several views of every photo of a recipe.

    python -m train.mini.maps train/recipes/brivl-mini-3.toml       # after a kill the same line goes on

View 0 is the plain picture, the others are crops with colour jitter (`train.data.photos.Augment`). The plain views of
all photos come first, so that training can begin with fewer views than the recipe names.

A feature map (C, H, W) of a CNN that ends in a ReLU is kept in one byte a number, as round(255 · √(x / highest)), with
one `highest` for each CNN and view: half of float16's space. What this loses is less than bfloat16 loses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from rich.progress import Progress
from torch import Tensor

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.brivl.checkpoint import WEIGHTS, FolderCheckpoint
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.data.photos import Augment
from train.mini.head_recipe import HeadsRecipe
from train.mini.labelled import Picture, read_pictures
from train.recipe import read_recipe

BATCH = 32


def squeeze(maps: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Feature maps (B, C, H, W) of each CNN → uint8 (B, Σ C, H, W) and `highest`, float32 (B, CNNs)."""
    highest = torch.stack([m.flatten(1).amax(1).float().clamp(min=1e-6) for m in maps], 1)
    parts = [
        (m.float().clamp(min=0) / highest[:, i, None, None, None]).sqrt_().mul_(255).round_().to(torch.uint8)
        for i, m in enumerate(maps)
    ]
    return torch.cat(parts, 1).contiguous().cpu().numpy(), highest.cpu().numpy()


def unsqueeze(kept: Tensor, highest: Tensor) -> list[Tensor]:
    """What `squeeze` made → float maps (B, C, H, W), one for each CNN, all of as many channels."""
    parts = kept.chunk(highest.shape[1], 1)
    scales = (highest.sqrt() / 255).unbind(1)
    return [(part.float() * scale[:, None, None, None]).square_() for part, scale in zip(parts, scales, strict=True)]


@dataclass(frozen=True)
class Maps:
    """The cached maps of a recipe's pictures.

    Attributes:
        kept, highest: of each view, as `squeeze` gives them; row r of view v is of picture `rows[v][r]`.
        place: int (pictures, views), the row of a picture in a view; -1 where it has no such view.
    """

    kept: list[np.ndarray]
    highest: list[np.ndarray]
    place: np.ndarray

    def views_of(self, picture: int) -> int:
        """How many views of a picture there are."""
        return int((self.place[picture] >= 0).sum())

    def take(self, pictures: Sequence[int], views: Sequence[int]) -> list[Tensor]:
        """Maps (B, C, H, W), one for each CNN, of these views of these pictures."""
        rows = [(self.kept[v], self.highest[v], self.place[p, v]) for p, v in zip(pictures, views, strict=True)]
        kept = torch.from_numpy(np.stack([k[r] for k, _, r in rows]))
        return unsqueeze(kept, torch.from_numpy(np.stack([h[r] for _, h, r in rows])))


def view(picture: Picture, number: int, recipe: HeadsRecipe) -> np.ndarray:
    """Pixels of a view, uint8 (S, S, 3); of a picture and a number always the same."""
    pixels, cfg = recipe.config.image.pixels, recipe.train
    if number == 0:
        return load_pixels(picture.path, pixels)
    seed = int(hashlib.sha256(f"{picture.path}\0{number}".encode()).hexdigest()[:7], 16)
    return Augment(pixels, cfg.crop_scale, cfg.jitter)(picture.path, seed)


def cache_name(recipe: HeadsRecipe, pictures: Sequence[Picture], number: int, fingerprint: str) -> str:
    """Names the file of a view after all that decides what is in it."""
    cfg = recipe.train
    how = [] if number == 0 else [number, cfg.crop_scale, cfg.jitter]
    key = json.dumps([fingerprint, recipe.config.image.pixels.to_dict(), how, [p.path for p in pictures]])
    return f"maps-{number}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def cnns_of(checkpoint: FolderCheckpoint) -> str:
    """Hash of a checkpoint's CNNs: another one with the same CNNs has the same maps."""
    from safetensors import safe_open

    digest = hashlib.sha256(json.dumps([repr(cnn) for cnn in checkpoint.config.image.backbones]).encode())
    with safe_open(str(checkpoint.folder / WEIGHTS), framework="pt") as file:
        for name in sorted(n for n in file.keys() if n.startswith("image.backbones.")):  # noqa: SIM118 - not a dict
            digest.update(name.encode() + file.get_tensor(name).numpy().tobytes())
    return digest.hexdigest()


def load_maps(recipe: HeadsRecipe, base: Path, pictures: Sequence[Picture]) -> Maps:
    """The views that there are; of an unfinished one, what is done.

    Raises:
        SystemExit: the plain views are not whole yet.
    """
    fingerprint = cnns_of(FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve()))
    folder, kept, highest, places = Path(recipe.cache or recipe.run), [], [], []
    for number in range(max(p.views for p in pictures)):
        some = [i for i, p in enumerate(pictures) if p.views > number]
        name = cache_name(recipe, [pictures[i] for i in some], number, fingerprint)
        done = folder / f"{name}.done"
        count = int(done.read_text()) if done.is_file() else 0
        if not count or (number == 0 and count < len(some)):
            break
        kept.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
        highest.append(np.load(folder / f"{name}-highest.npy"))
        place = np.full(len(pictures), -1)
        place[some[:count]] = np.arange(count)
        places.append(place)
    if not kept:
        raise SystemExit("the pictures' maps are not cached yet: run `python -m train.mini.maps RECIPE` first")
    return Maps(kept, highest, np.stack(places, 1))


def cache_maps(recipe: HeadsRecipe, base: Path, pictures: Sequence[Picture]) -> None:
    """Makes every view that is missing, in the recipe's cache folder."""
    checkpoint = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve())
    device = pick_device(recipe.train.device)
    bf16 = has_fast_bf16(device) if recipe.train.bf16 is None else recipe.train.bf16
    tower = ImageTower(checkpoint.config.image, checkpoint.config.dim)
    checkpoint.fill("image", tower)
    tower.eval().fuse()
    tower.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = Path(recipe.cache or recipe.run)
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = cnns_of(checkpoint)
    with ThreadPoolExecutor(2) as readers, Progress() as progress:
        for number in range(max(p.views for p in pictures)):
            some = [p for p in pictures if p.views > number]
            name = cache_name(recipe, some, number, fingerprint)
            data, ranges, done_file = (folder / f"{name}{end}" for end in (".npy", "-highest.npy", ".done"))
            done = int(done_file.read_text()) if done_file.is_file() else 0
            task = progress.add_task(f"view {number} of {len(some)} pictures", total=len(some), completed=done)
            for start in range(done, len(some), BATCH):
                part = some[start : start + BATCH]
                pixels = np.stack(list(readers.map(lambda p, n=number: view(p, n, recipe), part)))
                with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    kept, highest = squeeze([cnn(torch.from_numpy(pixels).to(device)) for cnn in tower.backbones])
                if not start:
                    open_memmap(data, mode="w+", dtype=np.uint8, shape=(len(some), *kept.shape[1:])).flush()
                    open_memmap(ranges, mode="w+", dtype=np.float32, shape=(len(some), highest.shape[1])).flush()
                if start in (0, done):
                    out, out_highest = np.load(data, mmap_mode="r+"), np.load(ranges, mmap_mode="r+")
                end = start + len(part)
                out[start:end], out_highest[start:end] = kept, highest
                if start // BATCH % 16 == 15 or end == len(some):
                    out.flush(), out_highest.flush()
                    done_file.write_text(str(end))
                progress.update(task, completed=end)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    args = parser.parse_args(argv)
    recipe, base = read_recipe(args.recipe, args.set, HeadsRecipe), args.recipe.resolve().parent
    cache_maps(recipe, base, read_pictures(recipe, base))


if __name__ == "__main__":
    main()
