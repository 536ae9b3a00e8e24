"""Zero-shot classification: each photo against the names of all classes, by a checkpoint that never saw the photo.

    python -m train.mini.zeroshot runs/zeroshot/checkpoint ../shared/data/imagenet-samples/labels.jsonl --skip-every 2

Every line of the labels file is a class: `image`, and its name in `zh` and `en`. `--skip-every n` takes the photos that
`skip_every = n` of a recipe's `[[data]]` left out of training; the names are always those of all lines. A class's
vector is that of its bare name, or the mean over the templates that the recipes train with. Equal names rank by line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from brivl_search.corpus.images import load_pixels
from brivl_search.embedding.zero_shot import TEMPLATES, class_vectors
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.registry import load_encoder
from brivl_search.metrics import ranks_exact, summarize

NAME = ("{}",)
KS = (1, 5)


def zeroshot(encoder: Encoder, labels: Path, every: int = 1, batch: int = 64) -> list[dict[str, object]]:
    """Top-1 and top-5 in percent, by language and templates.

    Args:
        encoder: the model.
        labels: labels.jsonl; images relative to its folder.
        every: only the photos of every n-th line.
        batch: photos decoded at a time.
    """
    rows = [json.loads(line) for line in labels.read_text(encoding="utf-8").splitlines()]
    photos = [i for i in range(len(rows)) if (i + 1) % every == 0]
    images = np.concatenate(
        [
            encoder.encode_images(
                np.stack([load_pixels(str(labels.parent / rows[i]["image"]), encoder.pixels) for i in part])
            )
            for part in (photos[start : start + batch] for start in range(0, len(photos), batch))
        ]
    )
    results: list[dict[str, object]] = []
    for language, forms in TEMPLATES.items():
        for kind, templates in (("name", NAME), ("templates", forms)):
            classes = class_vectors(encoder, [[row[language]] for row in rows], templates)
            recall = summarize(ranks_exact(images, classes, [[i] for i in photos]), KS, len(rows)).recall
            figures = {f"top{k}": round(recall[k], 1) for k in KS}
            results.append({"names": language, "as": kind, "photos": len(photos), "classes": len(rows), **figures})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint folder, or a bundled encoder's name")
    parser.add_argument("labels", type=Path, help="labels.jsonl")
    parser.add_argument("--skip-every", type=int, default=1, metavar="N", help="only the photos of every N-th line")
    args = parser.parse_args()
    for result in zeroshot(load_encoder(args.checkpoint), args.labels, args.skip_every):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
