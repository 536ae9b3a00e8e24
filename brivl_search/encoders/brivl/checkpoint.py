"""Checkpoint folders: config.json, model.safetensors ("image.*" and "text.*" tensors), tokenizer.json, README.md.

A folder may also hold hubs.safetensors, the correction of `brivl_search.encoders.brivl.hubness`, and
confidence.safetensors, from which the chance of a hit is computed (`brivl_search.encoders.confidence`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.hubness import HUBNESS, Hubness
from brivl_search.encoders.brivl.weights import SCALE, names_of, scales_of, write_tensors
from brivl_search.encoders.confidence import CONFIDENCE, Confidence
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.brivl.tokenizer import TextTokenizer

TowerName = Literal["image", "text"]
_SHOWN = 200  # characters of a message of torch
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Checkpoint(Protocol):
    """Where the towers of a BriVL model come from.

    Attributes:
        config: the architecture.
        name: for messages and indexes.
        fingerprint: hash of all that decides a vector.
        folder: where NumPy can read the text tower without torch; None: only torch can read it.
    """

    config: ModelConfig
    name: str

    @property
    def fingerprint(self) -> str: ...

    @property
    def folder(self) -> Path | None: ...

    @property
    def hubness(self) -> Hubness | None:
        """The correction of the towers' vectors; None: there is none."""
        ...

    @property
    def confidence(self) -> Confidence | None:
        """What turns scores into chances; None: there is none."""
        ...

    def fill(self, tower: TowerName, module: torch.nn.Module) -> None:
        """Loads the weights of one tower into `module`. Those of the other are not read."""
        ...

    def tokenizer(self) -> TextTokenizer: ...


class FolderCheckpoint:
    """A checkpoint folder as a `Checkpoint`."""

    def __init__(self, folder: Path) -> None:
        """Reads the config.

        Raises:
            EncoderError: the folder is not a checkpoint, or its config.json is damaged.
        """
        self.folder = folder
        self.config = read_config(folder)
        self.name = str(folder)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.folder, self.config)

    @cached_property
    def hubness(self) -> Hubness | None:
        return Hubness.load(self.folder, self.config.dim)

    @cached_property
    def confidence(self) -> Confidence | None:
        return Confidence.load(self.folder, self.fingerprint, self.config.dim)

    def fill(self, tower: TowerName, module: torch.nn.Module) -> None:
        load_tower(self.folder, tower, module)

    def tokenizer(self) -> TextTokenizer:
        from brivl_search.encoders.brivl.tokenizer import TextTokenizer

        return TextTokenizer(self.folder, self.config.text.max_length)


def read_config(folder: Path) -> ModelConfig:
    """The architecture of the checkpoint in `folder`.

    Raises:
        EncoderError: the folder is not a checkpoint, or its config.json is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise EncoderError(f"{folder} is not a checkpoint: it has no {name}")
    return ModelConfig.from_dict(config_object(folder, "BriVL model"))


def config_object(folder: Path, what: str) -> dict[str, Any]:
    """The JSON object in the config.json of a folder that is to hold such a model.

    Raises:
        EncoderError: it cannot be read, or is none.
    """
    try:
        raw: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder / CONFIG} cannot be read: {error}") from None
    except RecursionError:
        raise EncoderError(f"{folder / CONFIG} cannot be read: it is nested too deeply") from None
    if not isinstance(raw, dict):
        raise EncoderError(f"{folder / CONFIG} does not describe a {what}: not a JSON object")
    return raw


M = TypeVar("M", bound="torch.nn.Module")


def built(folder: Path | None, make: Callable[[], M]) -> M:
    """What `make` builds by the folder's config.json, before its weights are loaded; None: by no such file.

    Raises:
        EncoderError: there is no memory for such sizes, or torch refuses a value.
    """
    try:
        return make()
    except (RuntimeError, ValueError, TypeError, MemoryError, OverflowError) as error:
        if folder is None:
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]
        raise EncoderError(
            f"{folder / CONFIG} describes a model that cannot be built ({why}): copy the folder again"
        ) from None


def fingerprint(folder: Path, config: ModelConfig) -> str:
    """Hash of all that decides a vector: weights, tokenizer, sizes, preprocessing; not of names or the model card."""
    digest = hashlib.sha256()
    digest.update(json.dumps(config.sizes(), sort_keys=True).encode())
    for name in (WEIGHTS, "tokenizer.json", "vocab.txt", HUBNESS):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return "brivl-" + digest.hexdigest()[:24]


def regions_fingerprint(folder: Path, config: ModelConfig) -> str:
    """Hash of all that decides the features of a picture's regions: CNNs, pixels and grids; not of the heads.

    Two checkpoints with one such fingerprint give the same `ImageTower.regions`.
    """
    image = config.sizes()["image"]
    decides = {name: image.get(name) for name in ("backbones", "grids", "roi", "max_boxes", "pixels")}
    return "regions-" + _digest(folder, "image.backbones.", decides)


def words_fingerprint(folder: Path, config: ModelConfig) -> str:
    """Hash of the text tower's words and layers; not of its head, nor of the tokenizer."""
    return "words-" + _digest(folder, "text.backbone.", config.sizes()["text"].get("backbone"))


def vectors_fingerprint(folder: Path, config: ModelConfig) -> str:
    """Hash of all that decides a picture's vector; another text tower beside it changes nothing."""
    decides = {"dim": config.dim, "image": config.sizes()["image"]}
    found = "vectors-" + _digest(folder, "image.", decides)
    if (folder / HUBNESS).is_file():
        with (folder / HUBNESS).open("rb") as file:
            found += "-" + hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return found


def _digest(folder: Path, prefix: str, decides: Any) -> str:
    """Hash of settings and of the tensors whose names begin with `prefix`. Raises: EncoderError."""
    from safetensors import SafetensorError, safe_open

    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    try:
        with safe_open(str(folder / WEIGHTS), framework="np") as file:
            for name in sorted(file.keys()):
                if name.startswith(prefix):
                    digest.update(name.encode() + file.get_tensor(name).tobytes())
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{folder / WEIGHTS} cannot be read: {error}") from None
    return digest.hexdigest()[:24]


def load_tower(folder: Path, tower: TowerName, module: torch.nn.Module, *, weights: str = WEIGHTS) -> None:
    """Fills `module` with the tensors called "<tower>.*". Those of the other tower are not read.

    Args:
        folder: the checkpoint.
        tower: "image" or "text".
        module: the tower, built with the checkpoint's sizes.
        weights: name of the file in the folder.

    Raises:
        EncoderError: a tensor is missing, superfluous, of another shape, or not finite; or the file is damaged.
    """
    absent = f"{folder} holds no {tower} tower: convert the checkpoint again with both towers"
    load_tensors(folder, tower, module, weights=weights, absent=absent)


def load_tensors(
    folder: Path,
    prefix: str,
    module: torch.nn.Module,
    *,
    weights: str = WEIGHTS,
    absent: str | None = None,
    elsewhere: Collection[str] = (),
) -> None:
    """As `load_tower`, with tensors called "<prefix>.*".

    Args:
        folder, prefix, module, weights: as there.
        absent: the message where there is no such tensor.
        elsewhere: names in `module` of what is not in the file; it stays as it is.

    Raises:
        EncoderError: a tensor is missing, superfluous, of another shape, or not finite; or the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    state: dict[str, torch.Tensor] = {}
    try:
        with safe_open(str(folder / weights), framework="pt") as file:
            scaled = scales_of(file)
            for name in names_of(file):
                if name.startswith(prefix + "."):
                    tensor = file.get_tensor(name)
                    if name in scaled:
                        tensor = tensor.float() * file.get_tensor(name + SCALE)
                    if tensor.is_floating_point() and not tensor.isfinite().all():
                        raise EncoderError(
                            f"{folder / weights} is damaged: {name} has numbers that are not finite; copy it again"
                        )
                    state[name[len(prefix) + 1 :]] = tensor.float() if tensor.is_floating_point() else tensor
        if not state:
            raise EncoderError(absent or f"{folder / weights} holds no {prefix}")
        if elsewhere:
            own = module.state_dict()
            state |= {name: own[name] for name in elsewhere}
        module.load_state_dict(state, strict=True)
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{folder / weights} cannot be read: {error}") from None
    except RuntimeError as error:
        first = str(error).split("\n")[1:2] or [str(error)]
        raise EncoderError(f"{folder / weights} does not fit {folder / CONFIG}: {first[0].strip()}") from None


def save_checkpoint(
    folder: Path,
    config: ModelConfig,
    image: torch.nn.Module,
    text: torch.nn.Module,
    tokenizer: TextTokenizer,
    *,
    half: bool = True,
    int8: bool = False,
) -> None:
    """Writes a checkpoint folder: weights in float16 if `half`, large matrices in int8 if `int8` (see `weights`)."""
    towers = (("image", image), ("text", text))
    tensors = {f"{tower}.{name}": t for tower, module in towers for name, t in module.state_dict().items()}
    write_checkpoint(folder, config, tensors, tokenizer, half=half, int8=int8)


def write_checkpoint(
    folder: Path,
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    tokenizer: TextTokenizer | None,
    *,
    half: bool = True,
    int8: bool = False,
) -> None:
    """Writes a checkpoint folder from the tensors of its towers, "image.*" and "text.*"; one tower may be missing.

    Every file is written under a temporary name and renamed, config.json last: a folder with a config is complete. Old
    hubs.safetensors and confidence.safetensors are deleted, because they were fitted to other weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HUBNESS).unlink(missing_ok=True)
    (folder / CONFIDENCE).unlink(missing_ok=True)
    write_tensors(folder / WEIGHTS, tensors, half=half, int8=int8)
    if tokenizer is not None:
        tokenizer.save(folder)
    with appearing(folder / CONFIG) as (temporary,):
        temporary.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_hubness(folder: Path, hubness: Hubness) -> None:
    """Writes hubs.safetensors into a checkpoint folder. It changes the folder's fingerprint.

    An old confidence.safetensors is deleted: it was fitted to other vectors.
    """
    import torch

    (folder / CONFIDENCE).unlink(missing_ok=True)
    tensors = {name: torch.from_numpy(values) for name, values in hubness.tensors().items()}
    write_tensors(folder / HUBNESS, tensors, half=False)
