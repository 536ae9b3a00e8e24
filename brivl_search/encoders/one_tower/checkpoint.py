"""A matcher's folder: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.encoders import model_folder
from brivl_search.encoders.brivl.checkpoint import built
from brivl_search.encoders.one_tower.config import MatcherConfig

if TYPE_CHECKING:
    from brivl_search.encoders.brivl.text_tower import TextTower
    from brivl_search.encoders.brivl.tokenizer import TextTokenizer
    from brivl_search.encoders.one_tower.model import OneTower


def is_matcher(folder: Path) -> bool:
    """Whether a folder holds a one-tower matcher."""
    return model_folder.kind_of(folder) == MatcherConfig.KIND


def load_model(folder: Path, config: MatcherConfig, text: Callable[[], TextTower]) -> OneTower:
    """The matcher, in eval mode on the CPU.

    Args:
        folder: of the matcher.
        config: its architecture.
        text: loads the text tower; it is asked if the matcher shares its first layers.

    Raises:
        EncoderError: a tensor is missing, superfluous, of another shape, or not finite; the file is damaged; or
            no model of the config's sizes can be built.
    """
    from brivl_search.encoders.from_bert import copy_first, shared_names
    from brivl_search.encoders.one_tower.model import OneTower

    model = built(folder, lambda: OneTower(config))
    if config.shared_layers:
        copy_first(model, text(), config.shared_layers)
    model_folder.load_weights(folder, config, model, elsewhere=shared_names(model))
    return model.eval()


def save_matcher(
    folder: Path, config: MatcherConfig, model: OneTower, tokenizer: TextTokenizer, *, int8: bool = True
) -> None:
    """Writes a matcher's folder. What is the text tower's is left out."""
    from brivl_search.encoders.from_bert import shared_names

    model_folder.save(folder, config, model, tokenizer, int8=int8, elsewhere=shared_names(model))
