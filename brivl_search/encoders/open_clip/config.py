"""open_clip's description of a model, read without open_clip or torch.

`model_cfg` has the architecture, `preprocess_cfg` how pictures are prepared. What a config leaves out has the
defaults of open_clip's `PreprocessCfg`, `CLIPVisionCfg` and `CLIPTextCfg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.hf.family import CLIP_MEAN, CLIP_STD
from brivl_search.encoders.hf.files import read_json
from brivl_search.encoders.hf.layout import CONFIG
from brivl_search.errors import EncoderError

TEXT_TOWERS = ("roberta", "xlm-roberta", "mt5", "bert", "m2m_100")  # of transformers, that open_clip can use
_CONTEXT = 77
_VOLATILE = {"hf_model_name", "hf_model_pretrained", "hf_tokenizer_name", "timm_model_pretrained"}
# Of tokenizer_kwargs, those that say how texts are read. Anything else would go to transformers, which may run a
# model's own program code if it is told to.
_READING = ("clean", "strip_sep_token", "language", "additional_special_tokens")

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Description:
    """A model, as its config describes it.

    Attributes:
        model: `model_cfg`, as open_clip takes it.
        dim: length of its vectors.
        context: most tokens of a text.
        pixels: how a picture becomes pixels.
        mean: per channel, subtracted from pixels 0..255.
        std: per channel, what the difference is divided by.
        matryoshka: lengths that its vectors can be cut to, if the config names them; empty: none.
    """

    model: dict[str, Any]
    dim: int
    context: int
    pixels: PixelSpec
    mean: Channels
    std: Channels
    matryoshka: tuple[int, ...] = ()

    @property
    def text(self) -> dict[str, Any]:
        """`text_cfg`."""
        return dict(self.model["text_cfg"])

    @property
    def reading(self) -> dict[str, Any]:
        """Those of the tokenizer's settings that say how texts are read."""
        given = self.text.get("tokenizer_kwargs") or {}
        return {key: given[key] for key in _READING if key in given}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything in the config that decides a vector, JSON-ready; names of places are left out."""
        return {
            "model": _steady(self.model),
            "pixels": self.pixels.to_dict(),
            "mean": self.mean,
            "std": self.std,
            "context": self.context,
        }


def read_description(folder: Path) -> Description:
    """Reads open_clip_config.json in `folder`.

    Raises:
        EncoderError: it is missing, damaged, or describes something that is not supported.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise EncoderError(f"{folder} is not a model of open_clip: it has no {CONFIG}")
    values = read_json(path)
    model = values.get("model_cfg")
    if not isinstance(model, dict):
        raise EncoderError(f"{path} does not describe a model: it has no model_cfg")
    pictures = values.get("preprocess_cfg")
    sizes = values.get("matryoshka_dimensions")
    if not isinstance(sizes, list) or not all(isinstance(size, int) and size > 0 for size in sizes):
        sizes = []
    return describe(str(path), model, pictures if isinstance(pictures, dict) else {}, sorted(sizes))


def describe(
    where: str, model: Mapping[str, Any], pictures: Mapping[str, Any], matryoshka: tuple[int, ...] | list[int] = ()
) -> Description:
    """A model's `model_cfg` and `preprocess_cfg` → what is needed of them.

    Args:
        where: where they come from, for messages.
        model: `model_cfg`.
        pictures: `preprocess_cfg`, or the settings of built-in weights.
        matryoshka: lengths that the vectors can be cut to.

    Raises:
        EncoderError: something is missing or not supported.
    """
    parts = [model.get("vision_cfg"), model.get("text_cfg")]
    if not all(isinstance(part, dict) for part in parts):
        raise EncoderError(f"{where} does not describe a model: it lacks vision_cfg or text_cfg")
    vision, text = parts
    assert vision is not None and text is not None
    try:
        dim, context = int(model["embed_dim"]), int(text.get("context_length") or _CONTEXT)
        pixels = _pixels(vision, pictures)
        mean, std = _channels(pictures.get("mean") or CLIP_MEAN), _channels(pictures.get("std") or CLIP_STD)
    except (KeyError, TypeError, ValueError) as error:
        missing = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise EncoderError(f"{where} is not supported: {missing}") from None
    return Description({**model}, dim, context, pixels, mean, std, tuple(matryoshka))


def _pixels(vision: Mapping[str, Any], pictures: Mapping[str, Any]) -> PixelSpec:
    """The resizing of `image_transform_v2`: the size is the tower's, whatever `preprocess_cfg` says."""
    size = vision.get("image_size") or 224
    if isinstance(size, list):
        if len(set(size)) != 1:
            raise ValueError(f"image_size is {size}, not a square")
        size = size[0]
    if (pictures.get("mode") or "RGB") != "RGB":
        raise ValueError(f"mode is {pictures['mode']}")
    filter_name: Any = pictures.get("interpolation") or "bicubic"
    if filter_name == "random":  # while training; bicubic otherwise
        filter_name = "bicubic"
    mode = pictures.get("resize_mode") or "shortest"
    if mode == "squash":
        return PixelSpec(int(size), "squash", filter_name)
    if mode != "shortest":
        raise ValueError(f"resize_mode is {mode!r}; known are shortest and squash")
    return PixelSpec(int(size), "crop", filter_name, centre="even")


def _channels(value: Any) -> Channels:
    numbers = tuple(float(one) * 255 for one in (value if isinstance(value, list | tuple) else [value] * 3))
    if len(numbers) != 3:
        raise ValueError("mean and std are not of three channels")
    return numbers


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(one) for key, one in value.items() if key not in _VOLATILE}
    return value
