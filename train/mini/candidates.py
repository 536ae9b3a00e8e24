"""Recall of a checkpoint on held-out photos among further candidates: other photos, and their captions.

    python -m train.mini.candidates brivl_search/models/brivl-mini ../shared/data/flickr8k-cn

The last `--held-out` photos of the folder's captions.jsonl ask and are asked for; the first `--more` are candidates
alone. Where those were trained on, this is a stand-in for a larger test, not one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.metrics import partner_ranks, summarize

FIELDS = "zh_mt_google,zh_mt_baidu,zh,en"


def recalls(queries: np.ndarray, candidates: np.ndarray, partners: list[list[int]]) -> str:
    """R@1/5/10 in %, any true partner."""
    found = summarize(partner_ranks(queries, candidates, partners), (1, 5, 10))
    return "/".join(f"{value:.1f}" for value in found.recall.values())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--more", type=int, default=500)
    parser.add_argument("--captions", default=FIELDS, help="fields, comma-separated")
    args = parser.parse_args(argv)
    encoder = load_encoder(args.checkpoint)
    rows = [json.loads(line) for line in (args.folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = rows[-args.held_out :]
    chosen = [*asked, *rows[: args.more]]
    pixels = [load_pixels(str(args.folder / row["image"]), encoder.pixels) for row in chosen]
    images = np.concatenate([encoder.encode_images(np.stack(pixels[at : at + 64])) for at in range(0, len(pixels), 64)])
    for name in args.captions.split(","):
        groups = [row.get(name, []) for row in chosen]
        owners = [photo for photo, group in enumerate(groups) for _ in group]
        texts = encoder.encode_texts([text for group in groups for text in group])
        asking = sum(map(len, groups[: len(asked)]))
        own = [[at for at, owner in enumerate(owners) if owner == photo] for photo in range(len(asked))]
        to_image = recalls(texts[:asking], images, [[owner] for owner in owners[:asking]])
        to_text = recalls(images[: len(asked)], texts, own)
        print(f"{name:14} text→image {to_image}   image→text {to_text}", flush=True)


if __name__ == "__main__":
    main()
