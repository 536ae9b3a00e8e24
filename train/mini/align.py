"""Joins a text tower that knows language and an image tower that knows photos, before they are trained together.

    python -m train.mini.align train/recipes/brivl-mini-text.toml runs/brivl-mini-text/checkpoint \\
        runs/brivl-mini-image/checkpoint runs/brivl-mini-start

The image tower was trained with a text tower of its own, in one language. What that one says of a caption is the target
of the new text tower for the caption and its translations; of a caption without translation, the mean of what it says
of the photo's captions. Only the new tower's last layer is fitted, by ridge regression, so this takes a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import load_tower, read_config, save_checkpoint
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from train.data.photos import Photo, read_photos
from train.recipe import TextRecipe, read_recipe


def text_pairs(photos: Sequence[Photo], parallel: dict[str, str], spoken: str) -> list[tuple[str, list[str]]]:
    """A caption and the captions of field `spoken` that say what it says: itself, its translation, or all of them."""
    pairs: list[tuple[str, list[str]]] = []
    for photo in photos:
        known = photo.captions.get(spoken, [])
        for field, texts in photo.captions.items():
            translated = field == spoken or (parallel.get(field) == spoken and len(texts) == len(known))
            pairs += [(text, [known[i]] if translated else known) for i, text in enumerate(texts) if known]
    return pairs


def before_last_layer(tower: TextTower, tokenizer: TextTokenizer, texts: Sequence[str], batch: int = 256) -> Tensor:
    """What the tower's last layer is given for each text: (n, hidden), float32."""
    ids = tokenizer.ids(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = torch.empty(len(ids), tower.head.fc1.out_features)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            padded, mask = (torch.from_numpy(a) for a in tokenizer.batch([ids[i] for i in rows]))
            out[rows] = tower.hidden(padded, mask).float()
    return out


def ridge(x: Tensor, y: Tensor, strength: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weight (d, h) and bias (d,) of least squares y ≈ x Wᵀ + b, with `strength` · mean variance on the diagonal."""
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred / len(x)
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y) / len(x)).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def align(recipe: Path, text: Path, image: Path, target: Path, spoken: str) -> float:
    """Writes the joined checkpoint; the mean cosine that the fit reaches on the validation captions."""
    settings = read_recipe(recipe, [], TextRecipe)
    photos = read_photos(settings.data, recipe.resolve().parent)
    parallel = settings.parallel
    config, teacher = read_config(text), BriVLEncoder(image, device="cpu", precision="bf16")
    tower, tokenizer = TextTower(config.text, config.dim), TextTokenizer(text, config.text.max_length)
    load_tower(text, "text", tower)
    tower.eval()
    fitted = []
    for part in (photos.train, photos.val):
        pairs = text_pairs(part, parallel, spoken)
        said = sorted({other for _, others in pairs for other in others})
        row = {sentence: i for i, sentence in enumerate(said)}
        vectors = torch.from_numpy(teacher.encode_texts(said))
        wanted = F.normalize(torch.stack([vectors[[row[o] for o in others]].mean(0) for _, others in pairs]), dim=1)
        fitted.append((before_last_layer(tower, tokenizer, [sentence for sentence, _ in pairs]), wanted))
    weight, bias = ridge(*fitted[0])
    tower.head.fc2 = nn.Linear(weight.shape[1], weight.shape[0])
    tower.head.fc2.load_state_dict({"weight": weight, "bias": bias})
    pictures = ImageTower(teacher.config.image, teacher.dim)
    load_tower(image, "image", pictures)
    joined = replace(teacher.config, name=config.name, text=config.text, calibration=None)
    save_checkpoint(target, joined, pictures, tower, tokenizer, half=False)
    hidden, wanted = fitted[1]
    return float((F.normalize(hidden @ weight.T + bias, dim=1) * wanted).sum(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="recipe of the text tower: its [[data]] and [parallel]")
    parser.add_argument("text", type=Path, help="checkpoint of the text tower")
    parser.add_argument("image", type=Path, help="checkpoint of the image tower and the text tower it knows")
    parser.add_argument("target", type=Path)
    parser.add_argument("--spoken", default="en", help="caption field that the image tower was trained with")
    args = parser.parse_args()
    cosine = align(args.recipe, args.text, args.image, args.target, args.spoken)
    print(f"wrote {args.target}: mean cosine of the validation captions {cosine:.3f}")


if __name__ == "__main__":
    main()
