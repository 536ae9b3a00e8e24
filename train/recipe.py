"""A run's recipe: a TOML file, read into one strict, typed model.

Every key, its default and its range stand here. An unknown key is refused with the nearest known one, so that a typing
error cannot train another model than the one that was meant.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, overload

from pydantic import BaseModel, Field, ValidationError, model_validator

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.errors import EncoderError, UsageError
from train.model.sizes import (
    ModelTableError,
    check_keys,
    check_values,
    checkpoint_folder,
    inherited,
    open_checkpoint,
    unknown,
)
from train.tables import Captions, Count, Data, Init, Positive, Rate, Shards, Share, Table, TowerName

__all__ = ["Captions", "Count", "Data", "Init", "Positive", "Rate", "Shards", "Share", "Table", "TowerName"]


class Steps(Table):
    """What `[train]` says of every kind of training."""

    seed: int = Field(0, description="of weights, draws and dropout")
    steps: Positive = Field(description="updates of the weights")
    batch: Positive = Field(description="photos (or texts) in an update, over all processes")
    lr: Rate = Field(description="AdamW's highest learning rate; cosine to zero after the warm-up")
    warmup: Count = Field(100, description="steps of linear warm-up")
    weight_decay: Rate = Field(0.0, description="AdamW's; not on biases, norms and embeddings")
    token_dropout: Share = Field(0.0, description="share of tokens replaced by [MASK]")
    eval_every: Positive = Field(200, description="steps between validations")
    device: str = Field("auto", description='torch device; "auto": a GPU where there is one')
    bf16: bool | None = Field(None, description="bfloat16 autocast; by default where the device is fast at it")


class Training(Steps):
    """`[train]`: objective, schedule, what is frozen, augmentation, machine."""

    loss: Literal["moco", "clip", "siglip"] = Field("moco", description="cross-modal MoCo, or an in-batch loss")
    captions_per_image: Positive = Field(1, description="captions paired with each photo of a batch")
    clip_grad: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient")
    cnn_lr_factor: Rate = Field(1.0, description="the CNNs' share of `lr`")
    text_lr_factor: Rate = Field(1.0, description="the text tower's share of `lr`")
    queue_size: Positive = Field(9600, description="keys in each queue")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="m in θm ← m·θm + (1−m)·θ; θm is measured and kept"
    )
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(0.07, description="τ of InfoNCE")
    learned_temperature: bool = Field(False, description="τ is trained too")
    bias: Annotated[float, Field(allow_inf_nan=False)] = Field(-10.0, description="SigLIP's b at the start")
    in_batch_negatives: bool = Field(False, description="the batch's other keys are negatives as well")
    text_weight: Rate = Field(0.0, description="share of a third InfoNCE, caption to caption of one photo")
    caption_weight: Rate = Field(0.0, description="share of a captioner's loss on the same image tower, as WenLan's")
    cached_blocks: list[Count] = Field([], description="frozen blocks of each CNN whose output is cached")
    frozen_blocks: list[Count] | None = Field(None, description="frozen blocks of each CNN; as `cached_blocks`")
    frozen_cnn_modules: list[str] = Field([], description="further frozen modules, by timm's names")
    frozen_image_layers: Count = Field(0, description="of hf: and open_clip: models, as `frozen_text_layers`")
    frozen_text_layers: Count = Field(0, description="the embeddings and so many layers are frozen; 0: nothing")
    frozen_towers: list[TowerName] = Field([], description="towers that do not learn at all")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="a layer's rate, as a share of the next one's"
    )
    lora_rank: Count = Field(0, description="LoRA's r, for hf: and open_clip: models; 0: all that is not frozen learns")
    lora_alpha: Positive | None = Field(None, description="LoRA's α; None: 2 r")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="before LoRA's A")
    average: list[Share] = Field([], description="shares of what was learnt that are tried at the end (WiSE-FT)")
    average_within: Rate = Field(0.0, description="points of R@10 that a smaller share may cost")
    views: Positive = Field(1, description="cached crops of each photo")
    crop_scale: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="smallest share a crop shows; 1: no crop")
    jitter: Share = Field(0.3, description="strength of the colour jitter")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="hue jitter, of the circle")
    grey: Share = Field(0.0, description="share of grey views")
    flip: Share = Field(0.5, description="share of mirrored views")
    plain_view: Share = Field(0.2, description="share of views that are not cropped")
    save_every: Positive | None = Field(None, description="steps between saved states; None: as `eval_every`")
    accumulate: Positive = Field(1, description="parts that a batch is cut into")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    shuffle_buffer: Positive = Field(65_536, description="pairs of shards that are shuffled together")
    workers: Count = Field(2, description="processes that prepare batches")

    @property
    def frozen(self) -> list[int]:
        """Frozen blocks of each CNN."""
        return self.cached_blocks if self.frozen_blocks is None else self.frozen_blocks

    def unused(self) -> list[str]:
        """Keys that the recipe gives and that change nothing beside its other ones."""
        given = self.model_fields_set
        idle: list[str] = []
        if self.loss != "moco":
            idle += sorted(given & {"queue_size", "in_batch_negatives", "text_weight"})
        if not self.cached_blocks and self.views > 1:
            idle.append("views")
        if not self.lora_rank:
            idle += sorted(given & {"lora_alpha", "lora_dropout"})
        if not self.average:
            idle += sorted(given & {"average_within"})
        return idle

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} is no multiple of accumulate = {self.accumulate}: change one")
        if self.loss != "moco" and self.accumulate > 1:
            raise ValueError(
                f'loss = "{self.loss}" needs the whole batch at once: leave `accumulate` out, or use "moco"'
            )
        if self.loss != "siglip" and "bias" in self.model_fields_set:
            raise ValueError('bias is for loss = "siglip": leave it out')
        if self.text_weight and self.captions_per_image < 2:
            raise ValueError("text_weight ties captions of one image: set captions_per_image to 2 or more")
        if set(self.frozen_towers) == {"image", "text"}:
            raise ValueError("frozen_towers names both towers, so that nothing would learn: leave one out")
        if self.cached_blocks and len(self.frozen) != len(self.cached_blocks):
            raise ValueError("frozen_blocks and cached_blocks need a number for each CNN: make them equally long")
        return self


class Common(Table):
    """What every recipe has.

    Attributes:
        raw: the file as it was read, with `--set` applied; a checkpoint's config.json keeps it.
    """

    run: str = Field(description="folder of the run, relative to where you start")
    cache: str | None = Field(None, description="folder of cached features; by default in `run`")
    init: Init
    model: dict[str, Any] = Field({}, description="sizes: brivl_search/encoders/brivl/config.py, or the checkpoint's")
    data: list[Data] = Field([])
    raw: dict[str, Any] = Field({}, exclude=True)

    @property
    def config(self) -> ModelConfig:
        """Both towers' sizes."""
        return ModelConfig.from_dict(self.model)


class Recipe(Common):
    """A recipe of `train.pretrain`."""

    shards: list[Shards] = Field([])
    general: list[Data] = Field([], description="pairs that nothing is chosen by; they tell what is forgotten")
    train: Training
    captioner: dict[str, Any] = Field({}, description="its sizes: brivl_search/encoders/captions/config.py")

    @model_validator(mode="after")
    def _has_a_captioner(self) -> Self:
        if self.captioner and not self.train.caption_weight:
            raise ValueError("[captioner] is for train.caption_weight: give that too, or leave it out")
        if self.train.caption_weight and "image" in self.train.frozen_towers:
            raise ValueError("caption_weight teaches the image tower, which is frozen: use train.captions.fit")
        return self

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if not self.data and not self.shards:
            raise ValueError("there is nothing to train on: add a [[data]] or a [[shards]] table")
        if self.shards and self.train.cached_blocks:
            raise ValueError("cached_blocks caches every photo, which [[shards]] are too many for: use frozen_blocks")
        return self

    @model_validator(mode="after")
    def _suits_the_model(self) -> Self:
        given = self.train.model_fields_set
        if self.init.foreign is None:
            if wrong := sorted(given & {"frozen_image_layers", "lora_rank"}):
                instead = "frozen_blocks freezes blocks of its CNNs" if "image" in wrong[0] else "leave it out"
                raise ValueError(
                    f"train.{wrong[0]} is for hf: and open_clip: models, and {self.init.brivl or 'this'!r} is BriVL's: "
                    f"{instead}; a model of another library is called hf:FOLDER or open_clip:FOLDER"
                )
            return self
        for name in ("cached_blocks", "frozen_blocks", "frozen_cnn_modules", "cnn_lr_factor"):
            if name in given:
                raise ValueError(
                    f"train.{name} is for BriVL's image tower, which {self.init.foreign} has not: leave it out "
                    "(frozen_image_layers and layer_decay are for all others)"
                )
        if self.train.caption_weight:
            raise ValueError(
                f"train.caption_weight reads the regions of BriVL's image tower, {self.init.foreign} has none"
            )
        if self.model:
            raise ValueError(
                f"[model] has the sizes of BriVL's towers, those of {self.init.foreign} are given: leave it out"
            )
        return self

    def check_blocks(self) -> None:
        """Raises ModelTableError if the numbers of frozen blocks or layers do not fit the model."""
        config, cfg = self.config, self.train
        cnns = len(config.image.backbones)
        for name in ("cached_blocks", "frozen_blocks"):
            if (blocks := getattr(cfg, name)) and len(blocks) != cnns:
                raise ModelTableError(
                    f"train.{name} = {blocks}: the image tower has {cnns} CNNs, give a number for each"
                )
        layers = config.text.backbone.get("num_hidden_layers")
        if isinstance(layers, int) and cfg.frozen_text_layers > layers:
            raise ModelTableError(
                f"train.frozen_text_layers = {cfg.frozen_text_layers}: the text backbone has {layers} layers"
            )


class Teacher(Table):
    """`[[teachers]]`: a sentence encoder that teaches the text tower."""

    name: str
    folder: str = Field(description="transformers folder, relative to the recipe")
    fields: list[str] = Field([], description="caption fields in its language")


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
    words: list[Words] = Field([])
    dictionaries: list[Dictionary] = Field([])
    train: TextTraining


class WordsTraining(Steps):
    """`[train]` of a words recipe: entries of dictionaries, and captions that are to stay."""

    captions: Positive = Field(192, description="captions in an update, beside `batch` entries")
    longest: Positive = Field(32, description="characters of a translation; entries with longer ones are left out")
    temperature: Annotated[float, Field(gt=0)] = Field(0.05, description="τ of likenesses and of translations")
    relation_weight: Rate = Field(0.5, description="share of the sentence encoders' loss")
    translation_weight: Rate = Field(0.5, description="share of translations' loss")
    keep_weight: Rate = Field(10.0, description="share of the captions' loss, 1 − cosine")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="of the weights that are kept")


class WordsRecipe(Common):
    """A recipe of `train.mini.words`."""

    teachers: list[Teacher]
    dictionaries: list[Dictionary]
    train: WordsTraining


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
        return _with_sizes(recipe, path.resolve().parent)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first(error, kind)}") from None
    except ModelTableError as error:
        raise UsageError(f"{path}: {error}") from None
    except EncoderError as error:
        raise UsageError(f"{path}: [model]: {str(error).removeprefix('config.json: ')}") from None


def _with_sizes(recipe: R, base: Path) -> R:
    """The recipe with its [model] table checked, and completed from the checkpoint that `[init]` names.

    Where that checkpoint is not made yet (an earlier step's) the table stands for itself.

    Raises:
        ModelTableError, EncoderError: what is wrong with the table.
    """
    model, init = recipe.model, recipe.init
    if init.foreign is not None:
        return recipe
    check_keys(model)
    if init.brivl is not None and (init.encoder is not None or _is_there(init.brivl, base)):
        model = inherited(model, open_checkpoint(init.brivl, base), init.towers, init.differs)
    if not model and "model" not in recipe.raw:
        where = init.brivl or "init.checkpoint"
        raise ModelTableError(f"model is missing, and there is no checkpoint {where}: sizes come from one of them")
    check_values(model)
    recipe = recipe.model_copy(update={"model": model})
    recipe.config  # noqa: B018 - reads and checks what is left
    if isinstance(recipe, Recipe):
        recipe.check_blocks()
    return recipe


def _is_there(name: str, base: Path) -> bool:
    return name.startswith("official:") or (checkpoint_folder(name, base) / "config.json").is_file()


def _set(raw: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {change}: write SECTION.KEY=VALUE, such as train.steps=200")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = name.split(".")
    if any(part.startswith("-") for part in (*parents, last)):  # -1 would be the last table
        raise UsageError(f"--set {change}: tables are counted from 0: data.0, data.1")
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
        return unknown(where, known)
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
