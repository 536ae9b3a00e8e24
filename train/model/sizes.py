"""The [model] table of a recipe: its keys, its values, and what it takes over from a checkpoint to start from."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.brivl.checkpoint import Checkpoint, FolderCheckpoint
from brivl_search.encoders.brivl.config import (
    BackboneConfig,
    HeadConfig,
    ImageTowerConfig,
    ModelConfig,
    TextTowerConfig,
)
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint
from brivl_search.encoders.registry import BUNDLED, bundled, is_hf
from brivl_search.errors import EncoderError

_TRAINING = re.compile(r"(mlp_|region_|feature_)?dropout|\w+_dropout_prob|classifier_dropout|freeze_bn")


class ModelTableError(ValueError):
    """The [model] table is wrong; the message names the key."""


def unknown(where: str, known: Sequence[str]) -> str:
    """That a key is not known, with the nearest one that is."""
    near = difflib.get_close_matches(where.rpartition(".")[2], known, 1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no {where}: {advice}"


def check_keys(model: dict[str, Any]) -> None:
    """Raises ModelTableError on a key that no size has."""
    image, text = model.get("image", {}), model.get("text", {})
    tables: list[tuple[str, Any, Any]] = [("model", model, ModelConfig), ("model.image", image, ImageTowerConfig)]
    tables += [("model.text", text, TextTowerConfig)]
    towers = [(name, tower) for name, tower in model.items() if isinstance(tower, dict)]
    tables += [(f"model.{name}.head", tower.get("head", {}), HeadConfig) for name, tower in towers]
    if isinstance(image, dict):
        tables.append(("model.image.pixels", image.get("pixels", {}), PixelSpec))
        backbones = image.get("backbones", [])
        each = enumerate(backbones if isinstance(backbones, list) else [])
        tables += [(f"model.image.backbones.{i}", one, BackboneConfig) for i, one in each]
    for where, table, kind in tables:
        known = [field.name for field in dataclasses.fields(kind)]
        for key in table if isinstance(table, dict) else ():
            if key not in known:
                raise ModelTableError(unknown(f"{where}.{key}", known))


def check_values(model: dict[str, Any]) -> None:
    """Raises ModelTableError on a value of another type, or out of range."""
    try:
        config = TypeAdapter(ModelConfig).validate_json(json.dumps(model, default=str), strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in ("model", *found["loc"]))
        said = str(found["ctx"]["error"]) if found["type"] == "value_error" else found["msg"]
        raise ModelTableError(f"{where} = {found['input']!r}: {said[:1].lower()}{said[1:]}") from None
    image, text = config.image, config.text
    for name, value, least in (
        ("dim", config.dim, 1), ("image.members", image.members, 1), ("image.max_boxes", image.max_boxes, 1),
        ("image.width", 1 if image.width is None else image.width, 1), ("text.max_length", text.max_length, 3),
        *((f"image.grids.{i}", grid, 1) for i, grid in enumerate(image.grids)),
        *(
            (f"{tower}.head.{key}", value, least)
            for tower, head in (("image", image.head), ("text", text.head))
            for key, value, least in (
                ("layers", head.layers, 0), ("heads", head.heads, 1), ("feedforward", head.feedforward, 1),
                ("hidden", 1 if head.hidden is None else head.hidden, 1),
            )
        ),
    ):  # fmt: skip
        if value < least:
            raise ModelTableError(f"model.{name} = {value}: it must be {least} or more")
    for name, share in (
        ("image.region_dropout", image.region_dropout), ("image.feature_dropout", image.feature_dropout),
        *((f"{tower}.head.{key}", getattr(head, key)) for tower, head in (("image", image.head), ("text", text.head))
          for key in ("dropout", "mlp_dropout")),
    ):  # fmt: skip
        if not 0 <= share < 1:
            raise ModelTableError(f"model.{name} = {share}: it must be at least 0 and less than 1")
    hidden = text.backbone.get("hidden_size")
    for name, width, head in (
        ("image.width", image.width, image.head),
        ("text.backbone.hidden_size", hidden, text.head),
    ):
        if head.layers and isinstance(width, int) and width % head.heads:
            raise ModelTableError(f"model.{name} = {width} is no multiple of head.heads = {head.heads}")
    if not image.grids or not image.backbones:
        raise ModelTableError(f"model.image.{'backbones' if image.grids else 'grids'} is empty: give one or more")
    for i, backbone in enumerate(image.backbones):
        for key in ("mean", "std"):
            values = getattr(backbone, key)
            if len(values) != 3 or (key == "std" and min(values) <= 0):
                raise ModelTableError(f"model.image.backbones.{i}.{key} = {values}: give three numbers, std above 0")
    positions = text.backbone.get("max_position_embeddings")
    if isinstance(positions, int) and text.max_length > positions:
        raise ModelTableError(
            f"model.text.max_length = {text.max_length} is more than text.backbone.max_position_embeddings = "
            f"{positions}"
        )


def checkpoint_folder(name: str, base: Path) -> Path:
    """The folder of `init.checkpoint`: a bundled encoder's, or one relative to the recipe. It need not exist."""
    return BUNDLED / name if name in bundled() else (base / name).resolve()


def open_checkpoint(name: str, base: Path) -> Checkpoint:
    """The BriVL checkpoint that `[init]` names: official:FILE.pth, a bundled encoder's, or a folder.

    Raises:
        EncoderError: there is none.
    """
    kind, _, path = name.partition(":")
    if kind == "official":
        return OfficialCheckpoint(str(base / Path(path).expanduser()))
    folder = checkpoint_folder(name, base)
    if not folder.is_dir():
        near = difflib.get_close_matches(name, bundled(), 1)
        raise EncoderError(
            f"init: no encoder {name!r}: {f'did you mean {near[0]}? ' if near else ''}there is no folder {folder}; "
            f"give {', '.join(bundled())}, a checkpoint folder, official:FILE.pth, hf:ORG/NAME or "
            "open_clip:NAME/PRETRAINED"
        )
    if is_hf(folder):
        raise EncoderError(f'{folder} holds a model of another library: write init.encoder = "hf:{name}"')
    return FolderCheckpoint(folder)


def inherited(
    model: dict[str, Any], checkpoint: Checkpoint, towers: Sequence[str], differs: Sequence[str]
) -> dict[str, Any]:
    """A recipe's [model] table, completed from the checkpoint that its towers start from.

    Dropout and whether BatchNorm is frozen are training's own, so the recipe decides. All else says what the weights
    mean, or what they fit.

    Args:
        model: the table; it may be empty.
        checkpoint: it.
        towers: those that are taken from it.
        differs: keys whose value is the recipe's although the checkpoint has another one.

    Raises:
        ModelTableError: another key differs, or one of `differs` does not.
    """
    raw = checkpoint.config.to_dict()
    kept = {key: raw[key] for key in ("name", "dim", *towers)}
    found: list[str] = []
    used: set[str] = set()

    def merge(where: str, old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{key: merge(f"{where}.{key}", old.get(key, _NONE), value) for key, value in new.items()}}
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and where.endswith(".backbones"):
            return [merge(f"{where}.{i}", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
        if old is _NONE and where.startswith("model.text.backbone."):
            old = _default(raw["text"]["backbone"].get("model_type", ""), where.rpartition(".")[2])
        key = where.removeprefix("model.")
        taken = key in ("name", "dim") or key.partition(".")[0] in towers
        if old != new and taken and key != "name" and not _TRAINING.fullmatch(where.rpartition(".")[2]):
            if key in differs:
                used.add(key)
            else:
                found.append(f"{where} is {_short(new)}, the checkpoint has {_short(old)}")
        return new

    merged: dict[str, Any] = merge("model", kept, model)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        key = found[0].split(" is ")[0].removeprefix("model.")
        raise ModelTableError(
            f"{found[0]}{more}: leave it out, then it is the checkpoint's ({checkpoint.name}), or allow it by "
            f'init.differs = ["{key}"]'
        )
    if idle := [key for key in differs if key not in used]:
        raise ModelTableError(f"init.differs names {idle[0]}, which is not different from the checkpoint: leave it out")
    return merged


_NONE = object()


@functools.cache
def _default(kind: str, key: str) -> Any:
    """What transformers takes for a key that a text backbone's config leaves out."""
    from transformers import AutoConfig

    try:
        return getattr(AutoConfig.for_model(kind), key, None)
    except (ValueError, KeyError) as error:
        raise EncoderError(f"transformers does not know a text backbone of model_type {kind!r}") from error


def _short(value: Any) -> str:
    text = "left out" if value is _NONE else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
