"""First weights: what a tower knows before this training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from brivl_search.encoders.brivl.checkpoint import TowerName, load_tower
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.official.convert import MOMENTUM
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.errors import EncoderError
from train.model.towers import TwoTowers

_COMPUTES = (  # what changes the vectors of a text backbone and not the shapes of its weights
    "model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "position_embedding_type",
)  # fmt: skip
_WORDS = ["a Dog on grass, 2 CATS", "É ñ ü", "一只狗在草地上", "ＤＯＧ 🐶 ’"]


def first_of(error: Exception) -> str:
    """The first thing that an error of several lines complains of, cut to a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[min(1, len(lines) - 1)]
    return said if len(said) <= 200 else said[:199] + "…"


def check_tokenizer(tokenizer: TextTokenizer, vocab_size: int | None, folders: Sequence[Path]) -> None:
    """Refuses a tokenizer whose words have no vector, or other vectors than the weights of `folders` have learnt.

    Raises:
        EncoderError: it does not fit.
    """
    if vocab_size is not None and tokenizer.size > vocab_size:
        raise EncoderError(
            f"init.tokenizer has {tokenizer.size:,} words, model.text.backbone.vocab_size is {vocab_size:,}: the words "
            "beyond have no vector; give the tokenizer that the text backbone was made with"
        )
    for folder in folders:
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            continue
        theirs = TextTokenizer(folder, tokenizer.max_length)
        differs = theirs.words() != tokenizer.words() or theirs.ids(_WORDS) != tokenizer.ids(_WORDS)
        if differs:
            raise EncoderError(
                f"init.tokenizer is not the one of {folder}, whose weights the text tower starts from: the same words "
                "have other numbers there; leave init.tokenizer out, or name that folder"
            )


def load_cnns(tower: ImageTower, paths: list[Path]) -> None:
    """ImageNet weights by timm's key names; a classifier in the file is left out, anything else must fit.

    Raises:
        EncoderError: a file cannot be read, or is another network's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if len(paths) != len(tower.backbones):
        raise EncoderError(f"init.cnn names {len(paths)} files for {len(tower.backbones)} backbones: give one each")
    for backbone, path in zip(tower.cnns(), paths, strict=True):
        try:
            state = {k: v for k, v in load_file(str(path)).items() if not k.startswith("classifier.")}
        except (OSError, SafetensorError) as error:
            raise EncoderError(f"init.cnn: {path} cannot be read: {error}") from None
        try:
            missing, unexpected = backbone.net.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise EncoderError(f"init.cnn: {path} does not fit {backbone.name}: {first_of(error)}") from None
        if missing or unexpected:
            what = f"missing {missing[:3]}, unknown {unexpected[:3]}"
            raise EncoderError(f"init.cnn: {path} does not fit {backbone.name}: {what}")


def load_text_backbone(tower: TextTower, folder: Path) -> None:
    """The weights of a transformers folder; of a longer table of positions the tower has the start.

    Raises:
        SystemExit: there is no such model, or it is of other sizes, or computes otherwise.
    """
    from transformers import AutoModel

    if not (folder / "config.json").is_file():
        raise SystemExit(f"init.text = {folder} holds no transformers model: brivl-mini's is made by train.mini.graft")
    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"init.text: {folder} cannot be read: {first_of(error)}") from None
    ours, theirs = tower.backbone.config, model.config
    for key in _COMPUTES:
        old, new = getattr(theirs, key, None), getattr(ours, key, None)
        if old != new:
            raise SystemExit(f"model.text.backbone: {key} is {new!r}, {folder} has {old!r}: set it so")
    given = model.state_dict()
    wanted = tower.backbone.state_dict()
    state = {}
    for name, tensor in wanted.items():
        source = given.get(name)
        if source is not None and "position_embeddings" in name:
            source = source[: len(tensor)]
        if source is None or source.shape != tensor.shape:
            found = "nothing" if source is None else tuple(source.shape)
            raise SystemExit(f"{folder} does not fit model.text.backbone: {name} is {found}, not {tuple(tensor.shape)}")
        state[name] = source
    tower.backbone.load_state_dict(state)


def load_momentum(slow: TwoTowers, online: TwoTowers, folder: Path, towers: Sequence[TowerName]) -> bool:
    """Momentum towers go on where a conversion with `--keep-momentum` found them, not as copies of the online towers.

    What does not learn stays equal to the online towers, which the trainer counts on.

    Returns:
        Whether the folder keeps momentum copies.
    """
    if not (folder / MOMENTUM).is_file():
        return False
    for name in towers:
        load_tower(folder, name, slow.get_submodule(name), weights=MOMENTUM)
    _as_online(slow, online)
    return True


def fill_momentum(slow: TwoTowers, online: TwoTowers, copies: Mapping[TowerName, Mapping[str, Tensor]]) -> None:
    """As `load_momentum`, from the tensors of each tower's momentum copy."""
    for name, tensors in copies.items():
        slow.get_submodule(name).load_state_dict(dict(tensors))
    _as_online(slow, online)


@torch.no_grad()
def _as_online(slow: TwoTowers, online: TwoTowers) -> None:
    for copy, fast in zip(slow.parameters(), online.parameters(), strict=True):
        if not fast.requires_grad:
            copy.copy_(fast)
