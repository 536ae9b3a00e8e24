"""The descriptions in a folder of immich's format, read without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.hf.files import digest, read_json
from brivl_search.encoders.immich.layout import (
    CONFIG,
    NEEDED,
    PICTURES,
    SPECIAL,
    TOKENIZER,
    TOWERS,
    external,
)
from brivl_search.errors import EncoderError

_CONTEXT = 77
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Description:
    """A model, as its folder describes it.

    Attributes:
        folder: where it lies.
        dim: length of its vectors.
        context: tokens of a text, padding included.
        pixels: how a picture becomes pixels.
        mean: per channel, subtracted from pixels 0..255.
        std: per channel, what the difference is divided by.
        canonical: texts lose their punctuation and capitals (SigLIP).
        padding: the token that fills texts up.
        unknown: the token of unknown words; "" if there is none.
        language: the language of NLLB that every text is in; "": that of its script.
    """

    folder: Path
    dim: int
    context: int
    pixels: PixelSpec
    mean: Channels
    std: Channels
    canonical: bool
    padding: str
    unknown: str
    language: str

    def fingerprint(self, dim: int) -> str:
        """The SHA-256 of all that decides a vector, shortened."""
        settings = {
            "dim": dim,
            "context": self.context,
            "pixels": self.pixels.to_dict(),
            "mean": self.mean,
            "std": self.std,
            "canonical": self.canonical,
            "padding": self.padding,
            "language": self.language,
        }
        towers = [self.folder / name for name in TOWERS]
        weights = [part for tower in towers for part in [tower, *external(tower)]]
        return "im-" + digest([*weights, self.folder / TOKENIZER], settings)[:24]


def read_description(folder: Path) -> Description:
    """Reads the settings in `folder`.

    Raises:
        EncoderError: a file is missing or damaged, or asks for something that is not supported.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise EncoderError(f"{folder} is not whole: it has no {', '.join(missing)}; download the model again")
    for name in TOWERS:
        lost = [part.name for part in external(folder / name) if not part.is_file()]
        if lost:
            raise EncoderError(f"{folder} is not whole: {name} has weights in {lost[0]}; download the model again")
    config, special = read_json(folder / CONFIG), read_json(folder / SPECIAL)
    text = config.get("text_cfg")
    if not isinstance(text, dict):
        raise EncoderError(f"{folder / CONFIG} does not describe a model of open_clip: it has no text_cfg")
    reading = text.get("tokenizer_kwargs") or {}
    pictures = read_json(folder / PICTURES)
    try:
        pixels, mean, std = _pixels(pictures), _channels(pictures["mean"]), _channels(pictures["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder / PICTURES} is not supported: {_reason(error)}") from None
    try:
        dim, context = int(config["embed_dim"]), int(text.get("context_length") or _CONTEXT)
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder / CONFIG} is not supported: {_reason(error)}") from None
    padding = _token(special.get("pad_token"))
    if not padding:
        raise EncoderError(f"{folder / SPECIAL} names no pad_token, and texts are filled up with it")
    return Description(
        folder,
        dim,
        context,
        pixels,
        mean,
        std,
        reading.get("clean") == "canonicalize",
        padding,
        _token(special.get("unk_token")),
        str(reading.get("language") or ""),
    )


def _pixels(pictures: Mapping[str, Any]) -> PixelSpec:
    """The resizing of immich's `OpenClipVisualEncoder`: cut out in the middle, rounded down, or squashed."""
    size = pictures["size"]
    if isinstance(size, Sequence) and not isinstance(size, str):
        if len(set(size)) != 1:
            raise ValueError(f"size is {size}, not a square")
        size = size[0]
    if (mode := pictures.get("mode") or "RGB") != "RGB":
        raise ValueError(f"mode is {mode}")
    filter_name: Any = str(pictures["interpolation"]).lower()
    if filter_name not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is {filter_name!r}; known are bilinear and bicubic")
    resize = pictures.get("resize_mode") or "shortest"
    if resize not in ("shortest", "squash"):
        raise ValueError(f"resize_mode is {resize!r}; known are shortest and squash")
    return PixelSpec(int(size), "squash" if resize == "squash" else "crop", filter_name)


def _channels(value: Any) -> Channels:
    red, green, blue = (float(one) * 255 for one in (value if isinstance(value, list) else [value] * 3))
    return red, green, blue


def _token(value: Any) -> str:
    """A special token: a text, or an object with it."""
    return str((value.get("content") if isinstance(value, dict) else value) or "")


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
