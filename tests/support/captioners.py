"""Folders of tiny captioners with random weights: real code, words without sense."""

from __future__ import annotations

from pathlib import Path

import torch

from brivl_search.encoders import model_folder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.captions.words import choose_words


def make_captioner(folder: Path, checkpoint: Path, seed: int = 0, **changes: object) -> Path:
    """The folder of a captioner for the towers of `checkpoint`."""
    encoder = BriVLEncoder(checkpoint, device="cpu", precision="fp32")
    torch.manual_seed(seed)
    kept = choose_words(encoder.tokenizer, ["a red dog on grass with the blue circle", "一只狗在草地上"], 1)
    settings = {
        "name": "tiny-captioner", "words": len(kept), "tokenizer_size": encoder.tokenizer.size,
        "region_size": encoder.image_tower.project.in_features, "vector_size": encoder.dim, "width": 16, "heads": 2,
        "feedforward": 16, "layers": 1, "max_length": 8, "beams": 3, "no_repeat": 2,
        "regions": encoder.regions_fingerprint, "vectors": encoder.vectors_fingerprint, "cosine_weight": 1.5,
    }  # fmt: skip
    config = CaptionConfig(**{**settings, **changes})  # type: ignore[arg-type]
    model = Captioner(config)
    for parameter in model.parameters():  # so that pictures make a difference
        parameter.data += 0.6 * torch.randn_like(parameter)
    model.kept.copy_(torch.tensor(kept))
    model_folder.save(folder, config, model, encoder.tokenizer, int8=False)
    return folder
