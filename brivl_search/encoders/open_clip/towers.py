"""Builds a model with open_clip, reads its weights, and keeps one of its towers.

open_clip builds models whole, so both towers are in memory while one is read. Its loader converts the formats of other
publishers, which takes the whole model.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brivl_search.encoders.hf.layout import CONFIG
from brivl_search.encoders.hf.towers import quiet
from brivl_search.encoders.open_clip.files import OpenClipModel
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

Side = Literal["image", "text"]


def load_tower(model: OpenClipModel, side: Side) -> torch.nn.Module:
    """The model with one tower only, in float32: its `encode_image` or its `encode_text` works.

    Raises:
        EncoderError: the config describes no model of open_clip, or the weights are damaged or do not fit it.
    """
    built = load_whole(model)
    for name in list(built._modules):
        if (name == "visual") != (side == "image") or name == "text_decoder":
            delattr(built, name)
    if side == "image":
        for name in list(built._parameters):
            delattr(built, name)
    return built.eval()


def load_whole(model: OpenClipModel) -> torch.nn.Module:
    """The model with both towers, in float32. Raises EncoderError as `load_tower`."""
    import open_clip

    with quiet(), _silent():
        try:
            built: torch.nn.Module = _build(model)
        except Exception as error:  # open_clip raises what its parts raise
            raise EncoderError(f"{model.name}: open_clip cannot build it from its config: {_reason(error)}") from None
        try:
            open_clip.load_checkpoint(built, str(model.weights))
        except Exception as error:
            raise EncoderError(f"{model.weights} does not fit the config of {model.name}: {_reason(error)}") from None
    return built


def _build(model: OpenClipModel) -> Any:
    """The whole model with random weights. open_clip reads configs from folders, so it gets one."""
    import open_clip

    config = copy.deepcopy(model.about.model)
    config["text_cfg"].pop("tokenizer_kwargs", None)
    with tempfile.TemporaryDirectory(prefix="brivl-search-") as folder:
        if model.text_tower is not None:
            tower = json.loads(model.text_tower.read_text(encoding="utf-8"))
            tower.pop("auto_map", None)  # program code that came with it is not needed for these classes
            (Path(folder) / "config.json").write_text(json.dumps(tower), encoding="utf-8")
            config["text_cfg"]["hf_model_name"] = folder
        (Path(folder) / CONFIG).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        return open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_image=False, pretrained_text=False
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:240] or type(error).__name__


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silences open_clip, which warns by the root logger that a model without weights is random."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)  # without any, the first message would set up logging for the whole process
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)
