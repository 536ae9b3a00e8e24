"""What `--dedupe` folds with the bundled encoder: copies of photos at its threshold, and photos that only look alike.

    python -m train.mini.holdout ../shared/data/flickr8k-cn 500 /tmp/val
    python benchmarks/near_duplicates.py /tmp/val --index DIR     # DIR: an index of different photos

Copies are saved at JPEG quality 40, or have a tenth cut off each side; of the index's photos those are counted that
have another within the threshold. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.index import IndexReader
from brivl_search.search.dedupe import ALIKE


def copies(path: str) -> dict[str, bytes]:
    """The photo's copies by name."""
    photo = Image.open(path).convert("RGB")
    width, height = photo.size
    cut = photo.crop((width // 10, height // 10, width - width // 10, height - height // 10))
    found = {}
    for name, picture, quality in (("JPEG quality 40", photo, 40), ("a tenth cut off each side", cut, 92)):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        found[name] = buffer.getvalue()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()
    encoder = load_encoder()
    cosines: dict[str, list[float]] = {}
    for path in load_dataset(args.dataset).images[: args.limit]:
        made = copies(path)
        sources: list[str | bytes] = [path, *made.values()]
        photo, *others = encoder.encode_images(np.stack([load_pixels(source, encoder.pixels) for source in sources]))
        for name, other in zip(made, others, strict=True):
            cosines.setdefault(name, []).append(float(photo @ other))
    for name, values in cosines.items():
        print(f"{name}: {np.mean(np.array(values) >= ALIKE):.1%} of {len(values)} copies at {ALIKE} or above")
    if args.index:
        with IndexReader.open(args.index) as reader:
            vectors = np.concatenate([np.asarray(block, np.float32) for block, *_ in reader.vectors("image")])
        alike = vectors @ vectors.T
        np.fill_diagonal(alike, 0)
        print(f"different photos: {np.mean(alike.max(1) >= ALIKE):.1%} of {len(vectors)} meet another")


if __name__ == "__main__":
    main()
