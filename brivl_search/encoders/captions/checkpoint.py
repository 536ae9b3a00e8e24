"""A captioner's folder: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.encoders import model_folder
from brivl_search.encoders.brivl.checkpoint import built
from brivl_search.encoders.captions.config import CaptionConfig

if TYPE_CHECKING:
    from brivl_search.encoders.captions.model import Captioner


def is_captioner(folder: Path) -> bool:
    """Whether a folder holds a captioner."""
    return model_folder.kind_of(folder) == CaptionConfig.KIND


def load_model(folder: Path, config: CaptionConfig) -> Captioner:
    """The captioner, in eval mode on the CPU.

    Raises:
        EncoderError: a tensor is missing, superfluous, of another shape, or not finite; the file is damaged; or
            no model of the config's sizes can be built.
    """
    from brivl_search.encoders.captions.model import Captioner

    model = built(folder, lambda: Captioner(config))
    model_folder.load_weights(folder, config, model)
    return model.eval()
