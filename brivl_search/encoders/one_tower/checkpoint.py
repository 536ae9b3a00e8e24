"""A matcher's folder: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.encoders import model_folder
from brivl_search.encoders.one_tower.config import MatcherConfig

if TYPE_CHECKING:
    from brivl_search.encoders.one_tower.model import OneTower


def is_matcher(folder: Path) -> bool:
    """Whether a folder holds a one-tower matcher."""
    return model_folder.kind_of(folder) == MatcherConfig.KIND


def load_model(folder: Path, config: MatcherConfig) -> OneTower:
    """The matcher, in eval mode on the CPU.

    Raises:
        EncoderError: a tensor is missing, superfluous, or of another shape; or the file is damaged.
    """
    from brivl_search.encoders.one_tower.model import OneTower

    model = OneTower(config)
    model_folder.load_weights(folder, config, model)
    return model.eval()
