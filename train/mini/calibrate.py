"""Fits the map from cosine to `match` on held-out pairs and writes it into a checkpoint's config.json.

    python -m train.mini.holdout ../shared/data/flickr8k-cn 500 /tmp/val
    python -m train.mini.calibrate brivl_search/models/brivl-mini /tmp/val

Every caption of the folder makes one pair with its own photo and one with another photo drawn at random. The expected
calibration error is measured across photos: the map fitted on each half is judged on the other; the map that is kept is
of all pairs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.dataset import load_dataset
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.evaluation.calibrating import fit_and_judge, true_and_random_pairs
from brivl_search.evaluation.dataset import ImageEmbedder


def pairs(
    encoder: BriVLEncoder, dataset: Path, fields: list[str], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine (n,), belongs (n,) bool and photo number (n,), of a true and a random pair for every caption."""
    data = load_dataset(dataset, fields)
    images = ImageEmbedder(data, encoder, lambda done: None, workers=None).vectors()
    texts, owners = data.pairs()
    return true_and_random_pairs(encoder.encode_texts(texts), images, np.asarray(owners), seed)


def write_calibration(folder: Path, found: dict[str, float]) -> Path:
    """Puts what was fitted into a checkpoint's config.json, whole or not at all; the file."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["calibration"] = found
    with appearing(file) as (temporary,):
        temporary.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset", type=Path, help="folder with captions.jsonl; photos never trained on")
    parser.add_argument("--captions", default="zh,zh_mt_google,en", help="caption fields, comma-separated")
    args = parser.parse_args(argv)
    found = fit_and_judge(*pairs(BriVLEncoder(args.checkpoint), args.dataset, args.captions.split(",")))
    file = write_calibration(args.checkpoint, found)
    print(f"{file}: match = σ({found['slope']:.2f} · cosine {found['intercept']:+.2f}), ECE {found['ece']:.3f}")


if __name__ == "__main__":
    main()
