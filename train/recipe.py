"""A run's recipe: a TOML file, read into one strict, typed model.

Every key, its default and its range stand here. An unknown key is refused with the nearest known one, so that a typing
error cannot train another model than the one that was meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.brivl.config import (
    BackboneConfig,
    HeadConfig,
    ImageTowerConfig,
    ModelConfig,
    TextTowerConfig,
)
from brivl_search.errors import EncoderError, UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TowerName = Literal["image", "text"]
Captions = Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]


class Table(BaseModel):
    """A table of a recipe; unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Init(Table):
    """`[init]`: what the towers start from. Paths are relative to the recipe."""

    tokenizer: str = Field(description="folder with tokenizer.json or vocab.txt")
    cnn: list[str] | None = Field(None, description="timm weights (.safetensors), a file for each backbone")
    text: str | None = Field(None, description="transformers folder for the text backbone")
    checkpoint: str | None = Field(None, description="brivl-search checkpoint folder to start from")
    towers: list[TowerName] = Field(["image", "text"], description="towers taken from `checkpoint`")


class Data(Table):
    """`[[data]]`: a folder of photos with a caption file."""

    folder: str = Field(description="folder of the caption file, relative to the recipe")
    file: str = Field("captions.jsonl", description="the caption file in it: JSON lines")
    captions: Captions = Field(description="caption field → how often it is drawn")
    templates: dict[str, list[str]] = Field({}, description="field → sentences; {} is the field's text")
    hold_out_last: Count = Field(0, description="last rows, kept for validation")
    skip_every: Count = Field(0, description="every n-th row is left out; 0: none")
    repeat: Positive = Field(1, description="draws of each photo in an epoch")
    missing_ok: bool = Field(False, description="go on without the folder where it is absent")


class Shards(Table):
    """`[[shards]]`: pairs that `train.pairs.pack` packed."""

    folder: str = Field(description="folder of the shards, relative to the recipe")
    captions: Captions = Field(description="caption field → how often it is drawn")
    repeat: Positive = Field(1, description="draws of each pair in an epoch")


class Steps(Table):
    """What `[train]` says of every kind of training."""

    seed: int = Field(0, description="of weights, draws and dropout")
    steps: Positive = Field(description="updates of the weights")
    batch: Positive = Field(description="photos (or texts) in an update, over all processes")
    lr: Rate = Field(description="AdamW's highest learning rate; cosine to zero after the warm-up")
    warmup: Count = Field(100, description="steps of linear warm-up")
    weight_decay: Rate = Field(0.0, description="AdamW's; not on biases, norms and embeddings")
    token_dropout: Share = Field(0.0, description="share of tokens replaced by [MASK]")
    eval_every: Positive = Field(200, description="steps between validations and saved states")
    device: str = Field("auto", description='torch device; "auto": a GPU where there is one')
    bf16: bool | None = Field(None, description="bfloat16 autocast; by default where the device is fast at it")


class Training(Steps):
    """`[train]`: objective, schedule, what is frozen, augmentation, machine."""

    loss: Literal["moco", "clip"] = Field("moco", description="cross-modal MoCo, or CLIP's in-batch loss")
    captions_per_image: Positive = Field(1, description="captions paired with each photo of a batch")
    clip_grad: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient")
    cnn_lr_factor: Rate = Field(1.0, description="the CNNs' share of `lr`")
    text_lr_factor: Rate = Field(1.0, description="the text tower's share of `lr`")
    queue_size: Positive = Field(9600, description="keys in each queue")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="m in θm ← m·θm + (1−m)·θ")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="τ of InfoNCE")
    learned_temperature: bool = Field(False, description="CLIP's loss only: τ is trained too")
    in_batch_negatives: bool = Field(False, description="the batch's other keys are negatives as well")
    text_weight: Rate = Field(0.0, description="share of a third InfoNCE, caption to caption of one photo")
    cached_blocks: list[Count] = Field([], description="frozen blocks of each CNN whose output is cached")
    frozen_blocks: list[Count] | None = Field(None, description="frozen blocks of each CNN; as `cached_blocks`")
    frozen_cnn_modules: list[str] = Field([], description="further frozen modules, by timm's names")
    frozen_text_layers: Count = Field(0, description="the embeddings and so many layers are frozen; 0: nothing")
    frozen_towers: list[TowerName] = Field([], description="towers that do not learn at all")
    views: Positive = Field(1, description="cached crops of each photo")
    crop_scale: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="smallest share a crop shows; 1: no crop")
    jitter: Share = Field(0.3, description="strength of the colour jitter")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="hue jitter, of the circle")
    grey: Share = Field(0.0, description="share of grey views")
    flip: Share = Field(0.5, description="share of mirrored views")
    plain_view: Share = Field(0.2, description="share of views that are not cropped")
    accumulate: Positive = Field(1, description="parts that a batch is cut into")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    shuffle_buffer: Positive = Field(65_536, description="pairs of shards that are shuffled together")
    workers: Count = Field(2, description="processes that prepare batches")

    @property
    def frozen(self) -> list[int]:
        """Frozen blocks of each CNN."""
        return self.cached_blocks if self.frozen_blocks is None else self.frozen_blocks

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} is no multiple of accumulate = {self.accumulate}: change one")
        if self.loss == "clip" and self.accumulate > 1:
            raise ValueError('loss = "clip" needs the whole batch at once: leave `accumulate` out, or use "moco"')
        if self.learned_temperature and self.loss != "clip":
            raise ValueError('learned_temperature is for loss = "clip": leave it out')
        return self


class Common(Table):
    """What every recipe has.

    Attributes:
        raw: the file as it was read, with `--set` applied; a checkpoint's config.json keeps it.
    """

    run: str = Field(description="folder of the run, relative to where you start")
    cache: str | None = Field(None, description="folder of cached features; by default in `run`")
    init: Init
    model: dict[str, Any] = Field(description="sizes of both towers: brivl_search/encoders/brivl/config.py")
    data: list[Data] = []
    raw: dict[str, Any] = Field({}, exclude=True)

    @property
    def config(self) -> ModelConfig:
        """Both towers' sizes."""
        return ModelConfig.from_dict(self.model)


class Recipe(Common):
    """A recipe of `train.pretrain`."""

    shards: list[Shards] = []
    train: Training

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if not self.data and not self.shards:
            raise ValueError("there is nothing to train on: add a [[data]] or a [[shards]] table")
        if self.shards and self.train.cached_blocks:
            raise ValueError("cached_blocks caches every photo, which [[shards]] are too many for: use frozen_blocks")
        return self


class Teacher(Table):
    """`[[teachers]]`: a sentence encoder that teaches the text tower."""

    name: str
    folder: str = Field(description="transformers folder, relative to the recipe")
    fields: list[str] = Field(description="caption fields in its language")


class Words(Table):
    """`[[words]]`: a list of single words, one a line."""

    file: str
    teacher: str = Field(description="name of its teacher")


class Dictionary(Table):
    """`[[dictionaries]]`: line k of one file translates line k of the other."""

    files: dict[str, str] = Field(description="teacher → file")
    repeat: Positive = 1


class TextTraining(Steps):
    """`[train]` of a text recipe."""

    weight_decay: Rate = 0.02


class TextRecipe(Common):
    """A recipe of `train.mini.distill`."""

    teachers: list[Teacher]
    parallel: dict[str, str] = Field({}, description="field → the field whose k-th caption translates its k-th")
    words: list[Words] = []
    dictionaries: list[Dictionary] = []
    train: TextTraining


class Captioned(Data):
    """`[[data]]` of a heads recipe: photos with captions, and how many views of each are cached."""

    views: Positive = Field(1, description="cached views of each photo; the first is the plain picture")


class Labelled(Table):
    """`[[labelled]]`: photos with the names of what they show, in two languages."""

    folder: str = Field(description="folder of the label file, relative to the recipe")
    file: str = Field("captions.jsonl", description="the label file in it: JSON lines")
    zh: str = Field("zh_label", description="field of the Chinese name; several are joined by 、")
    en: str = Field("en_label", description="field of the English name; several are joined by a comma")
    kind: str = Field(description="which of the `kinds` its names are: their sentences")
    views: Positive = 1
    repeat: Positive = Field(1, description="draws of each photo in an epoch")
    hold_photos: Share = Field(0.0, description="share of each class of 3 photos or more, kept for validation")
    hold_classes: Share = Field(0.0, description="share of the classes, kept for validation with all their photos")


class HeadTraining(Steps):
    """`[train]` of a heads recipe: photos with captions and photos with labels in every step."""

    labelled_batch: Positive = Field(description="labelled photos in an update, beside `batch` captioned ones")
    captions_per_image: Positive = 3
    negatives: Count = Field(4096, description="captions of other photos that each step draws")
    temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of captions")
    class_temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of class names")
    label_weight: Rate = Field(1.0, description="share of the labels' loss")
    teacher_weight: Rate = Field(1.0, description="share of the classifiers' loss")
    told_weight: Rate = Field(1.0, description="of that, the share on captioned photos")
    text_weight: Rate = Field(0.0, description="share of the names' own loss: a name and its translation")
    text_lr_factor: Rate = Field(0.0, description="the text tower's share of `lr`; 0: it does not learn")
    text_layers: Count = Field(1, description="last layers of the text backbone that learn with the text head")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(0.995, description="of the weights that are kept")
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    jitter: Share = 0.3
    plain_view: Share = 0.25
    flip: Share = 0.5


class HeadsRecipe(Common):
    """A recipe of `train.mini.maps` and `train.mini.heads`."""

    data: list[Captioned] = []  # type: ignore[assignment]
    labelled: list[Labelled] = []
    kinds: dict[str, dict[Literal["zh", "en"], list[str]]] = Field(description="kind → sentences about a name")
    classifiers: list[str] = Field(description="each CNN's ImageNet weights; empty: not read")
    names: str = Field(description="the classifiers' classes: JSON lines with zh and en, relative to the recipe")
    go_on: str | None = Field(None, description="checkpoint of an earlier run whose weights are taken")
    everything: bool = Field(False, description="held-out pictures are trained on too; for the last run alone")
    train: HeadTraining


R = TypeVar("R", bound=Common)


@overload
def read_recipe(path: Path, changes: list[str]) -> Recipe: ...


@overload
def read_recipe(path: Path, changes: list[str], kind: type[R]) -> R: ...


def read_recipe(path: Path, changes: list[str], kind: type[Common] = Recipe) -> Common:
    """Reads a recipe.

    Args:
        path: the TOML file.
        changes: of `--set section.key=value`; values are TOML, `data.2.key` is of the third [[data]] table.
        kind: `Recipe`, or `TextRecipe` for the text tower's lessons.

    Raises:
        UsageError: the file cannot be read, or a key or a value is wrong; one line that names it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: give a recipe, such as train/recipes/brivl-mini.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for change in changes:
        _set(raw, change)
    try:
        recipe = kind.model_validate({**raw, "raw": raw})
        _check_model(recipe.model)
        recipe.config  # noqa: B018 - reads and checks the values of [model]
    except ValidationError as error:
        raise UsageError(f"{path}: {_first(error, kind)}") from None
    except _UnknownKey as error:
        raise UsageError(f"{path}: {error}") from None
    except EncoderError as error:
        raise UsageError(f"{path}: [model]: {str(error).removeprefix('config.json: ')}") from None
    return recipe


def _set(raw: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {change}: write SECTION.KEY=VALUE, such as train.steps=200")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = name.split(".")
    table: Any = raw
    try:
        for parent in parents:
            table = table[int(parent)] if isinstance(table, list) else table.setdefault(parent, {})
        if isinstance(table, list):
            table[int(last)] = parsed
        else:
            table[last] = parsed
    except (ValueError, IndexError, AttributeError, TypeError):
        raise UsageError(f"--set {change}: the recipe has no table {'.'.join(parents) or last}") from None


def _first(error: ValidationError, kind: type[Common]) -> str:
    """The first thing that is wrong, in a line: where it stands, what is wrong, and the nearest right name."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        known = _known(kind, found["loc"][:-1])
        return _unknown(where, known)
    if found["type"] == "missing":
        return f"{where} is missing: every recipe needs it"
    if found["type"] == "value_error":
        return f"{where + ': ' if where else ''}{found['ctx']['error']}"
    message = found["msg"][:1].lower() + found["msg"][1:]
    return f"{where} = {found['input']!r}: {message}"


def _known(kind: type[Common], where: tuple[int | str, ...]) -> list[str]:
    """Names of the keys of a table."""
    table: Any = kind
    for part in where:
        if isinstance(part, str) and part in table.model_fields:
            annotation = table.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))
            table = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), table)
    return [name for name in table.model_fields if name != "raw"]


def _unknown(where: str, known: list[str]) -> str:
    near = difflib.get_close_matches(where.rpartition(".")[2], known, 1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no {where}: {advice}"


class _UnknownKey(ValueError):
    pass


def _check_model(model: dict[str, Any]) -> None:
    """Refuses unknown keys of [model]; its values are checked by `ModelConfig`."""
    image, text = model.get("image", {}), model.get("text", {})
    tables: list[tuple[str, Any, Any]] = [("model", model, ModelConfig), ("model.image", image, ImageTowerConfig)]
    tables += [("model.text", text, TextTowerConfig)]
    tables += [(f"model.{name}.head", tower.get("head", {}), HeadConfig) for name, tower in model.items() if _is(tower)]
    tables += [("model.image.pixels", image.get("pixels", {}), PixelSpec)]
    tables += [(f"model.image.backbones.{i}", one, BackboneConfig) for i, one in enumerate(image.get("backbones", []))]
    for where, table, kind in tables:
        known = [field.name for field in dataclasses.fields(kind)]
        for key in table if _is(table) else ():
            if key not in known:
                raise _UnknownKey(_unknown(f"{where}.{key}", known))


def _is(table: object) -> bool:
    return isinstance(table, dict)
