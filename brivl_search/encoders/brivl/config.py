"""The architecture of a BriVL model, as `config.json` of a checkpoint describes it.

The defaults are BriVL's own sizes where the paper fixes them: 4 self-attention layers with 4 heads and a feed-forward
of 2048, a 6 × 6 grid and the whole image. `brivl-mini` and the tests use the same code with smaller numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from brivl_search.corpus.images import PixelSpec
from brivl_search.errors import EncoderError

CONFIG_VERSION = 1
_LATER_FIELDS = {"antialias", "short_side", "roi", "max_boxes", "padding", "members", "classes", "class_backbones"}


@dataclass(frozen=True)
class HeadConfig:
    """The end of both towers: self-attention layers, masked mean, two-layer ReLU MLP (arXiv 2110.14378)."""

    layers: int = 4
    heads: int = 4
    feedforward: int = 2048
    dropout: float = 0.1
    hidden: int | None = None  # width of the MLP's hidden layer; None: the embedding size
    mlp_dropout: float = 0.0  # before the MLP and inside it
    normalize_tokens: bool = True  # L2-normalise every token before the self-attention, as BriVL does


@dataclass(frozen=True)
class BackboneConfig:
    """A CNN of the image tower.

    Attributes:
        name: timm model name; the released BriVL uses "tf_efficientnet_b5.ns_jft_in1k".
        args: further arguments of `timm.create_model`.
        identity: modules replaced by the identity (by path), for weights from other graphs.
        mean, std: of the pixels scaled to [0, 1], per channel.
    """

    name: str = "tf_efficientnet_b5.ns_jft_in1k"
    args: dict[str, Any] = field(default_factory=dict)
    identity: list[str] = field(default_factory=list)
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class ImageTowerConfig:
    """The image tower.

    Attributes:
        backbones: BriVL has one; with several, their channels are joined region by region.
        freeze_bn: keep BatchNorm statistics as loaded, also in training.
        grids: region grids. [6, 1] is BriVL 2.0's multi-scale patch pooling: 36 cells, then the whole image.
        width: token width; None: the backbones' channels, as in BriVL.
        members: heads on the same regions, each with its own projection. A picture's vector is the direction of the
            mean of theirs: an ensemble for the price of its heads. BriVL has 1.
        classes: how many classes a classifier beside the heads tells apart; what it sees is added to every head's
            vector (`seen.Seen`). 0, as BriVL: there is none.
        class_backbones: the backbones whose maps it reads, counted from 0.
        roi: where a box is sampled. "brivl": as the published code does, by a factor of W / (W − 1) too far right and
            down, with zeros outside the map. "aligned": where the box is.
        max_boxes: how many of a detector's boxes are used, best first. The whole image is added after them.
        pixels: how an image file becomes the tower's pixels.
        region_dropout: share of each picture's regions left out in training; small collections need it.
        feature_dropout: share of the CNNs' channels dropped from each picture in training.
    """

    backbones: list[BackboneConfig] = field(default_factory=lambda: [BackboneConfig()])
    freeze_bn: bool = True
    grids: list[int] = field(default_factory=lambda: [6, 1])
    width: int | None = None
    members: int = 1
    classes: int = 0
    class_backbones: list[int] = field(default_factory=list)
    roi: Literal["brivl", "aligned"] = "brivl"
    max_boxes: int = 36
    pixels: PixelSpec = field(default_factory=PixelSpec)
    region_dropout: float = 0.0
    feature_dropout: float = 0.0
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class TextTowerConfig:
    """The text tower.

    Attributes:
        backbone: a transformers config as a dict ("model_type": "bert", ...).
        max_length: tokens, [CLS] and [SEP] included.
        padding: "masked": the backbone does not see padding. "seen": every text is padded to `max_length` and the
            backbone gets no mask; the published weights were trained so.
    """

    backbone: dict[str, Any] = field(default_factory=lambda: {"model_type": "bert", "vocab_size": 21128})
    max_length: int = 80
    padding: Literal["masked", "seen"] = "masked"
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class ModelConfig:
    """Two towers that embed into one space of `dim` dimensions."""

    name: str = "brivl"
    dim: int = 2048
    image: ImageTowerConfig = field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    version: int = CONFIG_VERSION
    calibration: dict[str, float] | None = None
    training: dict[str, Any] = field(default_factory=dict)  # how the model was trained; for people, no code reads it

    def to_dict(self) -> dict[str, Any]:
        raw = dataclasses.asdict(self)
        raw["image"]["pixels"] = self.image.pixels.to_dict()
        return raw

    def sizes(self) -> dict[str, Any]:
        """What decides a vector apart from weights and tokenizer. The fingerprint hashes it.

        A field that was added later counts only if it is not at its default, so older checkpoints keep their
        fingerprint.
        """
        raw = {key: value for key, value in self.to_dict().items() if key in ("dim", "image", "text")}
        image, text = raw["image"], raw["text"]
        for part, default in ((image, ImageTowerConfig()), (image["pixels"], PixelSpec()), (text, TextTowerConfig())):
            for name in _LATER_FIELDS & part.keys():
                if part[name] == getattr(default, name):
                    del part[name]
        return raw

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        """Reads what `to_dict` wrote.

        Raises:
            EncoderError: an unknown field, a field of the wrong shape, or a newer config version.
        """
        try:
            if int(raw.get("version", CONFIG_VERSION)) > CONFIG_VERSION:
                raise EncoderError(
                    f"config.json is of version {raw['version']}, newer than this brivl-search: upgrade it"
                )
            image, text = dict(raw.get("image", {})), dict(raw.get("text", {}))
            if "pixels" in image:
                image["pixels"] = PixelSpec.from_dict(image["pixels"])
            if "backbones" in image:
                image["backbones"] = [BackboneConfig(**backbone) for backbone in image["backbones"]]
            for tower in (image, text):
                if "head" in tower:
                    tower["head"] = HeadConfig(**tower["head"])
            if image.get("roi", "brivl") not in ("brivl", "aligned"):
                raise EncoderError(f'config.json: image.roi is "brivl" or "aligned", not {image["roi"]!r}')
            if int(image.get("members", 1)) < 1:
                raise EncoderError(f"config.json: image.members is 1 or more, not {image['members']}")
            count, read = int(image.get("classes", 0)), image.get("class_backbones", [])
            if count < 0 or bool(count) != bool(read) or not set(read) <= set(range(len(image.get("backbones", [0])))):
                raise EncoderError(
                    "config.json: image.classes and image.class_backbones go together: a number of classes, and which "
                    f"of the backbones are classified, not {count} and {read}"
                )
            if text.get("padding", "masked") not in ("masked", "seen"):
                raise EncoderError(f'config.json: text.padding is "masked" or "seen", not {text["padding"]!r}')
            rest = {k: v for k, v in raw.items() if k not in ("image", "text")}
            return cls(image=ImageTowerConfig(**image), text=TextTowerConfig(**text), **rest)
        except (TypeError, ValueError, OverflowError) as error:
            raise EncoderError(f"config.json does not describe a BriVL model: {error}") from None
