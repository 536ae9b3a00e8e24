"""The config files of a two-tower model of transformers, read without transformers or torch.

`model_type` in config.json tells the family. How the families differ, and where that is documented:

    clip          77 tokens; short side to 224, centre cut out (openai/CLIP `_transform`)
    chinese_clip  52 tokens, lower case, “ ” become " (OFA-Sys/Chinese-CLIP `_preprocess_text`); squashed to a square
    altclip       77 tokens of XLM-R (FlagAI's examples); pictures as CLIP
    metaclip_2    77 tokens of XLM-V; pictures as its processor says
    siglip        64 tokens, lower case, always padded to 64 and padding seen (big_vision); squashed to a square
    siglip2       as siglip, but the "NaFlex" models of this type take pictures in their own aspect ratio, as patches
    fgclip2       as siglip2; short texts have 64 tokens and long ones 196, each kind with positions and a head of its
                  own; 128 to 1,024 patches by the size of the picture (README of 360CVGroup/FG-CLIP)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.corpus.patches import square_side
from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.hf.files import has_weights, read_json
from brivl_search.encoders.hf.layout import CONFIG
from brivl_search.errors import EncoderError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CLIP_PICTURES = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
_SIGLIP_PICTURES = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "resample": 3,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
KEPT = 20  # default of text_config.keep_len: positions of a long text that come from the first of its two tables
_FILTERS = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}


@dataclass(frozen=True)
class Family:
    """How one kind of model is used.

    Attributes:
        model_class: its class in transformers, with `get_text_features` and `get_image_features`.
        pictures: the defaults of its image processor.
        tokens: the length of texts it was trained with; None: its number of positions.
        positions: default of text_config.max_position_embeddings.
        special_positions: how many positions no token can have.
        pad_to_longest: False: every text is padded to the full length, and the model sees the padding.
        lower: texts are lowercased, whatever the tokenizer does.
        straight_quotes: “ and ” become ".
        dim_key: path of the embedding size in config.json.
        dim: default of the embedding size.
        patched: pictures are taken as patches, in their own aspect ratio.
        patch_steps: numbers of patches, of which a picture's size chooses one; empty: what the preprocessing says.
        long_positions: default of text_config.longtext_len: tokens of a long text; 0: all texts are read in one way.
    """

    model_class: str
    pictures: Mapping[str, Any]
    tokens: int | None = None
    positions: int = 77
    special_positions: int = 0
    pad_to_longest: bool = True
    lower: bool = False
    straight_quotes: bool = False
    dim_key: tuple[str, ...] = ("projection_dim",)
    dim: int = 512
    patched: bool = False
    patch_steps: tuple[int, ...] = ()
    long_positions: int = 0


_PATCHES = {**_SIGLIP_PICTURES, "resample": 2, "patch_size": 16, "max_num_patches": 256}
FAMILIES = {
    "clip": Family("CLIPModel", _CLIP_PICTURES),
    "chinese_clip": Family(
        "ChineseCLIPModel", _CLIP_PICTURES, tokens=52, positions=512, lower=True, straight_quotes=True
    ),
    "altclip": Family("AltCLIPModel", _CLIP_PICTURES, tokens=77, positions=514, special_positions=2, dim=768),
    "metaclip_2": Family("MetaClip2Model", _CLIP_PICTURES),
    "siglip": Family(
        "SiglipModel",
        _SIGLIP_PICTURES,
        positions=64,
        pad_to_longest=False,
        lower=True,
        dim_key=("text_config", "projection_size"),
        dim=768,
    ),
    "siglip2": Family(
        "Siglip2Model",
        _PATCHES,
        positions=64,
        pad_to_longest=False,
        lower=True,
        dim_key=("text_config", "projection_size"),
        dim=768,
        patched=True,
    ),
    "fgclip2": Family(
        "Siglip2Model",
        _PATCHES,
        positions=64,
        pad_to_longest=False,
        lower=True,
        dim_key=("text_config", "projection_size"),
        dim=768,
        patched=True,
        patch_steps=(128, 256, 576, 784, 1024),
        long_positions=196,
    ),
}


@dataclass(frozen=True)
class ModelFacts:
    """A model, as its config files describe it.

    Attributes:
        family: its family.
        dim: length of its vectors.
        max_length: most tokens of a text.
        pixels: how a picture becomes pixels.
        mean: per channel, subtracted from pixels 0..255.
        std: per channel, what the difference is divided by.
        matryoshka: lengths that its vectors can be cut to, if the config names them; empty: none.
        settings: everything in config.json and in the preprocessing that decides a vector.
        long_length: most tokens of a long text, for families with two walks; 0: there is no such walk.
    """

    family: Family
    dim: int
    max_length: int
    pixels: PixelSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    matryoshka: tuple[int, ...]
    settings: dict[str, Any]
    long_length: int = 0

    def clean(self, text: str) -> str:
        """The text in the form that the family was trained with."""
        if self.family.straight_quotes:
            text = text.replace("“", '"').replace("”", '"')
        return text.lower() if self.family.lower else text


def read_facts(folder: Path, patches: int | None = None) -> ModelFacts:
    """Reads the config files in `folder`.

    Args:
        folder: of the model.
        patches: most patches of a picture, for families that take patches; None: what the model says.

    Raises:
        EncoderError: a file is missing or damaged, or the kind of model or of preprocessing is not supported.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind is None and "image" in config and "text" in config:
        raise EncoderError(f"{folder} holds a checkpoint of BriVL's: write its path without hf:")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise EncoderError(
            f"{folder} holds a model of type {kind!r}; known are {known}, and what sentence-transformers loads "
            "(folders with modules.json)"
        )
    family = FAMILIES[kind]
    text, vision = _part(config, "text_config"), _part(config, "vision_config")
    if "projection_size" in family.dim_key:
        dim = int(text.get("projection_size") or text.get("hidden_size") or family.dim)
    else:
        dim = int(config.get("projection_dim") or family.dim)
    positions = int(text.get("max_position_embeddings") or family.positions) - family.special_positions
    length = min(family.tokens or positions, positions)
    pictures = {**family.pictures, **read_preprocessing(folder)}
    patch = int(vision.get("patch_size") or 16) if family.patched else None
    steps = family.patch_steps
    if steps or patches is not None:
        pictures["max_num_patches"] = patches or steps[-1]
    try:
        pixels = patch_spec(pictures, patch, steps) if patch else pixel_spec(pictures)
        mean, std = normalisation(pictures)
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"the image preprocessing of {folder} is not supported: {error}") from None
    _check_size(folder, kind, vision, pixels, patch)
    volatile = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
    settings = {
        "config": {key: value for key, value in config.items() if key not in volatile},
        "pixels": pixels.to_dict(),
        "mean": mean,
        "std": std,
        "max_length": length,
    }
    long_length = int(text.get("longtext_len") or family.long_positions) if family.long_positions else 0
    _check_walks(folder, text, dim, length, long_length)
    return ModelFacts(family, dim, length, pixels, mean, std, matryoshka(folder), settings, long_length)


def is_open_clip(folder: Path) -> bool:
    """Whether open_clip loads a folder: it has open_clip's config, and no model that transformers loads here."""
    if not (folder / CONFIG).is_file() or (folder / "modules.json").is_file():
        return False
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except EncoderError:
        return True
    return kind not in FAMILIES or not has_weights(folder)


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _check_size(folder: Path, kind: str, vision: dict[str, Any], pixels: PixelSpec, patch: int | None) -> None:
    expected = int(vision.get("image_size") or 224)
    if patch is None and expected != pixels.size:
        raise EncoderError(
            f"{folder}: its image tower takes {expected} x {expected} pixels, and its preprocessing makes "
            f"{pixels.size} x {pixels.size}: one of config.json and preprocessor_config.json is of another model"
        )


def _check_walks(folder: Path, text: dict[str, Any], dim: int, short: int, long_length: int) -> None:
    if not long_length:
        return
    hidden, kept = int(text.get("hidden_size") or dim), text.get("keep_len", KEPT)
    if hidden != dim:
        raise EncoderError(f"{folder}: long texts would get vectors of {hidden} numbers, and short ones of {dim}")
    if not isinstance(kept, int) or not 0 <= kept <= long_length or long_length <= short:
        raise EncoderError(
            f"{folder / 'config.json'}: longtext_len {long_length} is to be more than the {short} positions of short "
            f"texts, and keep_len {kept} between 0 and it"
        )


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """The settings of a folder's image processor, from preprocessor_config.json or processor_config.json.

    Raises:
        EncoderError: neither file has them.
    """
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        values = read_json(folder / "processor_config.json").get("image_processor")
        if isinstance(values, dict):
            return values
    raise EncoderError(f"{folder} does not say how pictures are prepared: it has no preprocessor_config.json")


def pixel_spec(pictures: Mapping[str, Any]) -> PixelSpec:
    """The resizing of an image processor as a `PixelSpec`.

    Raises:
        KeyError, TypeError, ValueError: `PixelSpec` cannot express it.
    """
    if not pictures.get("do_resize", True):
        raise ValueError("do_resize is false")
    filter_name = _FILTERS.get(pictures["resample"])
    if filter_name is None:
        raise ValueError(f"resample is {pictures['resample']}")
    size, crop = pictures["size"], None
    if pictures.get("do_center_crop"):
        crop = _square(pictures["crop_size"], "crop_size")
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    if edge is None:
        side = _square(size, "size")
        if crop not in (None, side):
            raise ValueError(f"squashed to {side} and then cropped to {crop}")
        return PixelSpec(side, "squash", filter_name)  # type: ignore[arg-type]
    if crop is None:
        raise ValueError(f"size is {size} without a crop: pictures would not be squares")
    return PixelSpec(crop, "crop", filter_name, short_side=0 if edge == crop else edge)  # type: ignore[arg-type]


def patch_spec(pictures: Mapping[str, Any], patch: int, steps: tuple[int, ...] = ()) -> PixelSpec:
    """As `pixel_spec`, for models that take a picture as patches (SigLIP 2 NaFlex).

    Args:
        pictures: the processor's settings.
        patch: side of the model's patches.
        steps: numbers of patches of which the size of a picture chooses one; those from `max_num_patches` on fall away.
    """
    if int(pictures["patch_size"]) != patch:
        raise ValueError(f"patch_size is {pictures['patch_size']}, and the model's is {patch}")
    most = int(pictures["max_num_patches"])
    filter_name = _FILTERS[pictures["resample"]]
    return PixelSpec(
        square_side(patch, most),
        "patches",
        filter_name,  # type: ignore[arg-type]
        patch=patch,
        max_patches=most,
        patch_steps=(*(step for step in steps if step < most), most) if steps else (),
    )


def _square(size: Any, what: str) -> int:
    if isinstance(size, int):
        return size
    if size["height"] != size["width"]:
        raise ValueError(f"{what} is {size['height']} x {size['width']}, not a square")
    return int(size["height"])


Channels = tuple[float, float, float]


def normalisation(pictures: Mapping[str, Any]) -> tuple[Channels, Channels]:
    """a and b per channel, so that (x − a) / b is the processor's (x · rescale_factor − mean) / std for x = 0..255."""
    factor = float(pictures.get("rescale_factor", 1 / 255)) if pictures.get("do_rescale", True) else 1.0
    if not pictures.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1 / factor, 1 / factor, 1 / factor)
    mean, std = (tuple(float(value) / factor for value in pictures[key]) for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("image_mean and image_std are not of three channels")
    return mean, std


def matryoshka(folder: Path) -> tuple[int, ...]:
    """Lengths that vectors can be cut to, if the model's config names them; empty: none."""
    for name in ("config.json", "config_sentence_transformers.json"):
        values = read_json(folder / name) if (folder / name).is_file() else {}
        sizes = values.get("matryoshka_dimensions") or values.get("matryoshka_dims")
        if isinstance(sizes, list) and all(isinstance(size, int) and size > 0 for size in sizes):
            return tuple(sorted(sizes))
    return ()
