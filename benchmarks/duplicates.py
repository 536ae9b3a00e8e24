"""Duplicates over a library: which made copies are found, which different photos are taken for one, and the time.

    python benchmarks/duplicates.py copies FOLDER [--most 200]     # a folder of different photos
    python benchmarks/duplicates.py time [--rows 100000]           # made vectors and hashes, a tenth of them copies

Recall: the share of a photo's copies of a kind that stand in the group of the photo. Precision: of all pairs that were
grouped, the share that are one photo. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from brivl_search.encoders import load_encoder
from brivl_search.index import IndexReader, IndexWriter, Item
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import Silent
from brivl_search.ingest.run import build_index
from brivl_search.search.duplicates import Kind, find

KINDS: tuple[Kind, ...] = ("same", "similar")


def save_copies(path: Path, out: Path) -> None:
    """The photo and its copies, as NUMBER.KIND.ENDING."""
    photo = Image.open(path).convert("RGB")
    width, height = photo.size

    def cut(part: float) -> Image.Image:
        x, y = round(width * part), round(height * part)
        return photo.crop((x, y, width - x, height - y))

    photo.save(f"{out}.photo.png")
    for quality in (90, 40, 10):
        photo.save(f"{out}.jpeg-{quality}.jpg", quality=quality)
    photo.save(f"{out}.webp-60.webp", quality=60)
    photo.resize((width // 2, height // 2)).save(f"{out}.half.png")
    photo.resize((width // 4, height // 4)).save(f"{out}.quarter.jpg")
    cut(0.01).save(f"{out}.cut-1.png")
    cut(0.05).save(f"{out}.cut-5.png")
    ImageOps.expand(photo, (0, height // 10), "black").save(f"{out}.screenshot.png")
    ImageOps.mirror(photo).save(f"{out}.mirrored.png")


def judge_copies(folder: Path, most: int) -> None:
    """Builds an index of the photos and their copies, and prints recall by kind, and precision."""
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:most]
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        (place / "photos").mkdir()
        for number, path in enumerate(photos):
            save_copies(path, place / "photos" / str(number))
        build_index([place / "photos"], place / "index", load_encoder("brivl-mini"), BuildOptions(), Silent())
        total = Counter(path.name.split(".")[1] for path in (place / "photos").iterdir())
        with IndexReader.open(place / "index") as reader:
            for kind in KINDS:
                met: Counter[str] = Counter()
                right = pairs = 0
                for group in find(reader, kind).groups:
                    names = [Path(one.path).name.split(".") for one in (group.best, *(o.photo for o in group.others))]
                    of = Counter(name[0] for name in names)
                    pairs += len(names) * (len(names) - 1) // 2
                    right += sum(n * (n - 1) // 2 for n in of.values())
                    originals = {name[0] for name in names if name[1] == "photo"}
                    met.update(name[1] for name in names if name[0] in originals)
                recall = {name: round(met[name] / count, 3) for name, count in total.items() if name != "photo"}
                print(kind, "photos", len(photos), "precision", round(right / max(1, pairs), 4), pairs, recall)


def take_time(rows: int, dim: int = 256) -> None:
    """Prints seconds and the highest resident memory for an index of made rows."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as made:
        index = Path(made) / "index"
        with IndexWriter(index, encoder_name="made", fingerprint="f", dim=dim) as writer:
            for begin in range(0, rows, 1000):
                vectors = rng.standard_normal((1000, dim)).astype(np.float32)
                vectors[900:] = vectors[:100]
                looks = [rng.bytes(32).hex() for _ in range(900)]
                looks += looks[:100]
                names = [f"{begin + at:08d}" for at in range(1000)]
                writer.stage_vectors("image", names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
                for name, look in zip(names, looks, strict=True):
                    record = {"path": f"/{name}", "width": 10, "height": 10, "phash": look}
                    writer.put("image", Item(f"/{name}", name, 9, 1, record))
            writer.commit()
        with IndexReader.open(index) as reader:
            for kind in KINDS:
                before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
                found = find(reader, kind)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                seconds = time.perf_counter() - began
                print(kind, rows, "rows", len(found.groups), "groups", f"{seconds:.1f} s")
                print(f"    peak {peak / 1024:.0f} MiB, {before / 1024:.0f} MiB before")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("copies", "time"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    if given.what == "time":
        take_time(given.rows)
    elif given.folder is None:
        parser.error("copies wants a FOLDER of photos")
    else:
        judge_copies(given.folder, given.most)
