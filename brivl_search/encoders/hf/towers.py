"""Loads one tower of a two-tower model of transformers. The other one is not read and takes no memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brivl_search.encoders.hf.family import Family
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

Side = Literal["image", "text"]


def load_tower(folder: Path, family: Family, side: Side) -> torch.nn.Module:
    """The model with one tower only, in float32. `features` reads its outputs.

    `from_pretrained` builds the model on the meta device and then reads the tensors that it has. So a subclass that
    drops the other tower first is enough. All that transformers knows about its files still works: shards, tensors
    with old names, pickles.

    Raises:
        EncoderError: weights are missing, damaged, or do not fit the config.
    """
    import torch
    import transformers

    from brivl_search.encoders.hf.walks import siglip2_config, text_features, with_walks

    base = getattr(transformers, family.model_class, None)
    if base is None:
        raise EncoderError(f"this transformers ({transformers.__version__}) has no {family.model_class}: upgrade it")
    unwanted = "text_model" if side == "image" else "vision_model"
    walks = bool(family.long_positions)

    def init(self: Any, config: Any) -> None:
        base.__init__(self, config)
        delattr(self, unwanted)  # the projections are small and stay: transformers' own initialisation names them
        if walks and side == "text":
            with_walks(self, config)

    members: dict[str, Any] = {
        "__init__": init,
        "__module__": base.__module__,
        "_keys_to_ignore_on_load_unexpected": [rf"^{unwanted}\."],
    }
    if walks and side == "text":
        members["get_text_features"] = text_features
    tower: Any = type(base.__name__, (base,), members)  # transformers finds its renamings by this name
    try:
        with quiet():
            own: dict[str, Any] = {"config": siglip2_config(folder)} if walks else {}
            model, found = tower.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **own
            )
    except EncoderError:
        raise
    except Exception as error:  # transformers raises what its parts raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EncoderError(f"{folder} cannot be loaded as {family.model_class}: {reason}") from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise EncoderError(
            f"{folder} lacks {len(missing)} tensors of its {side} tower, such as {missing[0]}: download it again"
        )
    return model.eval()  # type: ignore[no-any-return]


def features(found: Any) -> torch.Tensor:
    """The tensor in a result of `get_text_features` or `get_image_features`, which transformers 5 wraps."""
    return getattr(found, "pooler_output", found)  # type: ignore[no-any-return]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers: no progress bars, no reports, and no thread that talks to the hub."""
    from transformers.utils import logging

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
