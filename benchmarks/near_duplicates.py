"""What `--dedupe` folds with the bundled encoder: copies of photos and of pages, and what only means the same.

    python -m train.mini.holdout ../shared/data/flickr8k-cn 500 /tmp/val
    python benchmarks/near_duplicates.py /tmp/val --index DIR     # DIR: an index of different photos

Copies are saved at JPEG quality 40, or have something cut off each side. Pages are of random words in one layout. Of
each the share is told that is folded, and the share that the cosine alone would fold. Of the index's photos those are
counted that are folded with another. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import PixelSpec, decode, load_pixels, read_file
from brivl_search.corpus.phash import LOOK_SIDE, distance
from brivl_search.encoders import load_encoder
from brivl_search.index import IndexReader
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.looks import Looks, allowed_bits

WORDS = [
    "the",
    "a",
    "of",
    "and",
    "photo",
    "dog",
    "grass",
    "water",
    "street",
    "people",
    "red",
    "white",
    "old",
    "two",
    "house",
]
BITS = allowed_bits(ALIKE, ALIKE)


def copies(path: str) -> dict[str, bytes]:
    """The photo's copies by name."""
    photo = Image.open(path).convert("RGB")
    width, height = photo.size

    def without(part: int) -> Image.Image:
        x, y = width // part, height // part
        return photo.crop((x, y, width - x, height - y))

    return {
        "JPEG quality 40": saved(photo, 40),
        "2 % cut off each side": saved(without(50)),
        "5 % cut off each side": saved(without(20)),
        "a tenth cut off each side": saved(without(10)),
    }


def saved(picture: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def page(number: int) -> Image.Image:
    """A page of random words."""
    rng = np.random.default_rng(number)
    sheet = Image.new("RGB", (850, 1100), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for y in range(80, 1020, 20):
        pen.text((80, y), " ".join(rng.choice(WORDS, 18)), fill="black", font=font)
    return sheet


def look(source: str | bytes) -> str:
    return decode(read_file(source) if isinstance(source, str) else source, PixelSpec(LOOK_SIDE)).look


def tell(name: str, pairs: list[tuple[float, int]]) -> None:
    """`pairs`: cosine, and bits in which the hashes differ."""
    near = np.array([cosine >= ALIKE for cosine, _ in pairs])
    same = np.array([bits <= BITS for _, bits in pairs])
    print(f"{name}: {np.mean(near & same):.1%} of {len(pairs)} folded ({np.mean(near):.1%} by the cosine alone)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()
    encoder = load_encoder()
    pairs: dict[str, list[tuple[float, int]]] = {}
    for path in load_dataset(args.dataset).images[: args.limit]:
        made = copies(path)
        sources: list[str | bytes] = [path, *made.values()]
        photo, *others = encoder.encode_images(np.stack([load_pixels(source, encoder.pixels) for source in sources]))
        for name, other in zip(made, others, strict=True):
            pairs.setdefault(name, []).append((float(photo @ other), distance(look(path), look(made[name]))))
    pages = [saved(page(number)) for number in range(24)]
    vectors = encoder.encode_images(np.stack([load_pixels(one, encoder.pixels) for one in pages]))
    looks = [look(one) for one in pages]
    pairs["pages of different text"] = [
        (float(vectors[i] @ vectors[j]), distance(looks[i], looks[j])) for i in range(24) for j in range(i)
    ]
    for name, some in pairs.items():
        tell(name, some)
    if args.index:
        with IndexReader.open(args.index) as reader:
            blocks = list(reader.vectors("image"))
            vectors = np.concatenate([np.asarray(block, np.float32) for block, *_ in blocks])
            rows = [(shard, int(row)) for _, shard, some in blocks for row in some]
            alike = vectors @ vectors.T
            np.fill_diagonal(alike, 0)
            seen = Looks(reader)
            near = np.argwhere(alike >= ALIKE)
            folded = {i for i, j in near.tolist() if not seen.apart(rows[i], rows[j], BITS)}
            by_cosine = len(set(near[:, 0].tolist()))
        print(f"different photos: {len(folded)} of {len(vectors)} meet another ({by_cosine} by the cosine alone)")


if __name__ == "__main__":
    main()
