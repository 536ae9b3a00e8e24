"""Is the `probability` of `classify` right? Photos against n captions, one of them their own.

    python -m train.mini.holdout ../shared/data/flickr8k-cn 500 /tmp/val
    python benchmarks/label_probability.py /tmp/val

If it is, the mean probability of the likeliest caption equals the share of photos of which that is their own. Prints
both, and the expected calibration error, for each caption field and number of labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from brivl_search.embedding.batches import embed_images, embed_texts
from brivl_search.embedding.pictures import find_pictures
from brivl_search.embedding.zero_shot import softmax
from brivl_search.encoders import DEFAULT, load_encoder
from brivl_search.evaluation.calibrating import expected_calibration_error

DRAWS = 4  # of other photos' captions for each photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder with captions.jsonl")
    parser.add_argument("--encoder", default=DEFAULT)
    parser.add_argument("--fields", default="zh_mt_google,en")
    args = parser.parse_args()
    encoder = load_encoder(args.encoder)
    calibration = encoder.calibration
    if calibration is None:
        raise SystemExit(f"{args.encoder} has no calibration, so classify prints no probability")
    rows = [json.loads(line) for line in (args.dataset / "captions.jsonl").read_text("utf-8").splitlines()]
    paths = [str((args.dataset / row["image"]).absolute()) for row in rows]
    embedded = embed_images(find_pictures(paths).files, encoder)
    vector = {one.decoded.file.path: one.vector for one in embedded if one.vector is not None}
    images = np.stack([vector[path] for path in paths])
    for field in args.fields.split(","):
        texts = np.stack([v for _, v in embed_texts([row[field][0] for row in rows], encoder)])
        for labels in (2, 10, 50):
            rng = np.random.default_rng(0)
            sure, right = [], []
            for at in np.repeat(np.arange(len(rows)), DRAWS):
                others = rng.choice(np.delete(np.arange(len(rows)), at), labels - 1, replace=False)
                shares = softmax(texts[[at, *others]] @ images[at], calibration)
                sure.append(shares.max())
                right.append(shares.argmax() == 0)
            error = expected_calibration_error(np.array(sure), np.array(right))
            print(
                f"{field:14} {labels:3} labels: right {np.mean(right):.3f}, mean probability {np.mean(sure):.3f}, "
                f"ECE {error:.3f}"
            )


if __name__ == "__main__":
    main()
