"""Folders of models beside the two towers: config.json with a "kind", model.safetensors, tokenizer.json.

One-tower matchers and captioners are such folders. Nothing is read by torch's pickles.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.checkpoint import CONFIG, WEIGHTS, config_object
from brivl_search.encoders.brivl.weights import write_tensors
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.brivl.tokenizer import TextTokenizer

CONFIG_VERSION = 1


@dataclass(frozen=True)
class FolderConfig:
    """What describes such a model: a frozen dataclass, with a default for every field.

    Attributes:
        KIND: "kind" in its config.json.
        WHAT: the model in a word, for messages, and before its fingerprint and every tensor's name.
        BESIDE: fields that decide no output.
    """

    KIND: ClassVar[str]
    WHAT: ClassVar[str]
    BESIDE: ClassVar[tuple[str, ...]] = ("name", "training")

    def check(self) -> None:
        """Raises EncoderError: values of the right types that do not go together."""

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        return {"kind": self.KIND, "version": CONFIG_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Reads what `to_dict` wrote.

        Raises:
            EncoderError: it is of another kind, has an unknown field or a value that it cannot have, or is of a newer
                version.
        """
        if raw.get("kind") != cls.KIND:
            raise EncoderError(f'config.json is not of a {cls.WHAT}: it has no "kind": "{cls.KIND}"')
        if raw.get("version", CONFIG_VERSION) != CONFIG_VERSION:
            raise EncoderError(f"config.json is of version {raw['version']}: this brivl-search reads {CONFIG_VERSION}")
        values = {key: value for key, value in raw.items() if key not in ("kind", "version")}
        defaults = dataclasses.asdict(cls())
        for name, value in values.items():
            if name not in defaults:
                raise EncoderError(f"config.json: unknown field {name!r}")
            default = defaults[name]
            wanted = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise EncoderError(f"config.json: {name} = {value!r} is no {type(default).__name__}")
            if isinstance(default, float) and not math.isfinite(value):
                raise EncoderError(f"config.json: {name} = {value}: give a finite number")
            if name.endswith("dropout") and not 0 <= value < 1:
                raise EncoderError(f"config.json: {name} = {value}: give a share from 0 to below 1")
        found = cls(**values)
        found.check()
        return found

    def at_least_one(self, *names: str) -> None:
        """Raises EncoderError: one of these fields is below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise EncoderError(f"config.json: {name} = {getattr(self, name)}: give 1 or more")


C = TypeVar("C", bound=FolderConfig)


def kind_of(folder: Path) -> str:
    """The "kind" of the model in a folder; "" where it has none, as two towers, or there is no model."""
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    found = raw.get("kind") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else ""


def read_config(cls: type[C], folder: Path) -> C:
    """What the folder's config.json says.

    Raises:
        EncoderError: the folder holds no such model, or its config.json is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise EncoderError(f"{folder} is not a {cls.WHAT}: it has no {name}")
    raw = config_object(folder, cls.WHAT)
    try:
        return cls.from_dict(raw)
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from None


def fingerprint(folder: Path, config: FolderConfig) -> str:
    """Hash of all that decides an output: weights, tokenizer, sizes, and what the model reads of the towers."""
    decides = {key: value for key, value in dataclasses.asdict(config).items() if key not in config.BESIDE}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for name in (WEIGHTS, "tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"{config.WHAT}-" + digest.hexdigest()[:24]


def load_weights(
    folder: Path, config: FolderConfig, model: torch.nn.Module, *, elsewhere: Collection[str] = ()
) -> None:
    """Fills a model of the config's sizes, but for the tensors of these names, which the folder does not hold.

    Raises:
        EncoderError: a tensor is missing, superfluous, or of another shape; or the file is damaged.
    """
    from brivl_search.encoders.brivl.checkpoint import load_tensors

    load_tensors(folder, config.WHAT, model, elsewhere=elsewhere)


def load_tokenizer(folder: Path, config: FolderConfig, words: int, max_length: int) -> TextTokenizer:
    """The folder's tokenizer.

    Args:
        folder, config: of the model.
        words: of its vocabulary.
        max_length: tokens of a text.

    Raises:
        EncoderError: it is missing, damaged, or has other words than the model.
    """
    from brivl_search.encoders.brivl.tokenizer import TextTokenizer

    found = TextTokenizer(folder, max_length)
    if found.size > words:
        raise EncoderError(
            f"the tokenizer in {folder} has {found.size:,} words, and the {config.WHAT} {words:,}: it is another "
            "model's; copy the folder again"
        )
    return found


def save(
    folder: Path,
    config: FolderConfig,
    model: torch.nn.Module,
    tokenizer: TextTokenizer,
    *,
    int8: bool = True,
    elsewhere: Collection[str] = (),
) -> None:
    """Writes a model's folder without the tensors of `elsewhere`; config.json last: with a config it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{config.WHAT}.{name}": tensor for name, tensor in model.state_dict().items() if name not in elsewhere}
    write_tensors(folder / WEIGHTS, tensors, half=True, int8=int8)
    tokenizer.save(folder)
    write_config(folder, config)


def write_config(folder: Path, config: FolderConfig) -> None:
    """Writes config.json, whole or not at all."""
    with appearing(folder / CONFIG) as (temporary,):
        temporary.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
