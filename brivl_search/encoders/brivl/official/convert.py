"""Official BriVL checkpoints → checkpoint folders: half the size, optionally one tower, without momentum copies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.encoders.brivl.checkpoint import WEIGHTS, TowerName, write_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.official.checkpoint import TOWERS, OfficialCheckpoint
from brivl_search.encoders.brivl.weights import write_tensors
from brivl_search.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

MOMENTUM = "momentum.safetensors"


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote. `parameters` and `bytes` are those of the towers, without momentum copies."""

    folder: Path
    config: ModelConfig
    parameters: dict[TowerName, int]
    momentum: bool
    bytes: int


def corrected(config: ModelConfig) -> ModelConfig:
    """The same model without the published code's quirks.

    The text tower does not see padding, pictures are scaled with antialiasing, boxes are sampled where they are. Its
    vectors differ from BriVL's.
    """
    pixels = dataclasses.replace(config.image.pixels, antialias=True)
    image = dataclasses.replace(config.image, pixels=pixels, roi="aligned")
    return dataclasses.replace(config, image=image, text=dataclasses.replace(config.text, padding="masked"))


def expected(config: ModelConfig, tower: TowerName) -> dict[str, torch.Tensor]:
    """The tensors that a tower of `config` has, on the meta device: shapes without memory."""
    import torch

    from brivl_search.encoders.brivl.image_tower import ImageTower
    from brivl_search.encoders.brivl.text_tower import TextTower

    with torch.device("meta"):
        built = ImageTower(config.image, config.dim) if tower == "image" else TextTower(config.text, config.dim)
    return built.state_dict()


def convert(
    checkpoint: OfficialCheckpoint,
    folder: Path,
    *,
    towers: Sequence[TowerName] = ("image", "text"),
    half: bool = True,
    parity: bool = True,
    keep_momentum: bool = False,
) -> Converted:
    """Writes a checkpoint folder. The state dict is read tensor by tensor from the memory-mapped file.

    Args:
        checkpoint: the .pth.
        folder: a new or empty folder.
        towers: which towers to write.
        half: weights in float16; BatchNorm statistics stay float32.
        parity: keep the quirks that the weights were trained with; else see `corrected`.
        keep_momentum: also write the momentum copies, by the same names, to momentum.safetensors.

    Raises:
        UsageError: the folder is not empty.
        EncoderError: a tower is missing, or does not fit the config.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: give a new folder for the checkpoint")
    config = checkpoint.config if parity else corrected(checkpoint.config)
    tokenizer = checkpoint.tokenizer() if "text" in towers else None
    online: dict[str, torch.Tensor] = {}
    copies: dict[str, torch.Tensor] = {}
    parameters: dict[TowerName, int] = {}
    state = checkpoint.state()
    for tower in towers:
        wanted = expected(config, tower)
        for target, momentum in ((online, False), (copies, True)) if keep_momentum else ((online, False),):
            tensors = checkpoint.tensors(tower, momentum=momentum, state=state)
            _compare(checkpoint, tower, momentum, tensors, wanted)
            target |= {f"{tower}.{name}": tensor for name, tensor in tensors.items()}
        parameters[tower] = sum(t.numel() for n, t in wanted.items() if not _is_buffer(n))
    origin = {"converted_from": checkpoint.path.name, "fingerprint": checkpoint.fingerprint, "towers": list(towers)}
    config = dataclasses.replace(config, training={**config.training, **origin})
    folder.mkdir(parents=True, exist_ok=True)
    if keep_momentum:
        write_tensors(folder / MOMENTUM, copies, half=half)
    (folder / "README.md").write_text(_card(config, towers, half, parity, keep_momentum), encoding="utf-8")
    write_checkpoint(folder, config, online, tokenizer, half=half)
    return Converted(folder, config, parameters, keep_momentum, (folder / WEIGHTS).stat().st_size)


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _compare(
    checkpoint: OfficialCheckpoint,
    tower: TowerName,
    momentum: bool,
    tensors: dict[str, torch.Tensor],
    wanted: dict[str, torch.Tensor],
) -> None:
    copy = "momentum copy of the " if momentum else ""
    if not tensors:
        prefix = TOWERS[tower] + ("_mom" if momentum else "")
        raise EncoderError(f"{checkpoint.path} holds no {copy}{tower} tower: it has no tensors {prefix}.*")
    where = f"{checkpoint.path} does not fit {checkpoint.config.name}: {copy}{tower} tower"
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise EncoderError(f"{where}: {name} is missing")
        if name not in wanted:
            raise EncoderError(f"{where}: there is no place for {name}")
        if tensors[name].shape != wanted[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
            raise EncoderError(f"{where}: {name} is {shapes}")


def _card(config: ModelConfig, towers: Sequence[TowerName], half: bool, parity: bool, momentum: bool) -> str:
    lines = [
        f"# {config.name}",
        "",
        f"Converted by brivl-search from `{config.training['converted_from']}`: {' and '.join(towers)} tower, "
        f"{config.dim} dimensions, {'float16' if half else 'as stored'}.",
        "Preprocessing: " + ("as published, quirks included." if parity else "without the published code's quirks."),
        f"`{MOMENTUM}` holds the momentum copies." if momentum else "Momentum copies were dropped.",
        "The weights are their authors'; their terms stay with them.",
        "",
        "```json",
        json.dumps(config.training, indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)
