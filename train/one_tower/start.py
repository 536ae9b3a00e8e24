"""First weights of a matcher: a text tower's layers, and the image tower's projection of the regions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError

_OF_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
    "fc1": "intermediate.dense", "fc2": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


def from_towers(model: OneTower, text: TextTower, image: ImageTower) -> None:
    """Fills a matcher with what the two towers know. BERT's first layers become text layers, the next joint ones.

    What the towers have no weights for stays random: places, the heads, and joint layers beyond BERT's last.

    Raises:
        EncoderError: the sizes differ, or the text tower is no BERT.
    """
    config, bert = model.config, text.backbone
    theirs = bert.config
    sizes = {
        "vocab_size": theirs.vocab_size, "width": theirs.hidden_size, "heads": theirs.num_attention_heads,
        "feedforward": theirs.intermediate_size, "region_size": image.project.in_features,
    }  # fmt: skip
    if wrong := [name for name, size in sizes.items() if getattr(config, name) != size]:
        raise EncoderError(f"matcher.{wrong[0]} = {getattr(config, wrong[0])}: the towers have {sizes[wrong[0]]}")
    copy_embeddings(model, text)
    _copy(model.types.weight[0], bert.state_dict()["embeddings.token_type_embeddings.weight"][0])
    copy_layers([*model.text_layers, *model.joint_layers], text)
    if image.project.out_features == config.width:
        model.feature.load_state_dict(image.project.state_dict())


def copy_embeddings(model: OneTower | Captioner, text: TextTower, kept: Tensor | None = None) -> None:
    """Fills a model's `words`, `positions` and `text_norm` with a text tower's.

    Args:
        model: of the tower's width.
        text: the tower.
        kept: int64, which of the tower's words the model has; None: all.

    Raises:
        EncoderError: the text tower is no BERT, or has fewer positions.
    """
    theirs, wanted = text.backbone.config, len(model.positions.weight)
    if theirs.model_type != "bert" or wanted > theirs.max_position_embeddings:
        raise EncoderError(
            f"it starts from a BERT of at least max_length = {wanted} positions, not from {theirs.model_type} of "
            f"{theirs.max_position_embeddings}"
        )
    state = text.backbone.state_dict()
    words = state["embeddings.word_embeddings.weight"]
    _copy(model.words.weight, words if kept is None else words[kept])
    _copy(model.positions.weight, state["embeddings.position_embeddings.weight"][:wanted])
    _fill(model.text_norm, state, "embeddings.LayerNorm")


def copy_layers(layers: Sequence[nn.Module], text: TextTower) -> None:
    """Fills layers with those of a text tower of their sizes, from its first on."""
    state = text.backbone.state_dict()
    for number, layer in enumerate(layers[: text.backbone.config.num_hidden_layers]):
        for ours, name in _OF_BERT.items():
            _fill(layer.get_submodule(ours), state, f"encoder.layer.{number}.{name}")


def known(model: OneTower, layers: int) -> set[str]:
    """Names of the parameters that `from_towers` fills from a text tower of so many layers."""
    found = {"words.weight", "positions.weight", "text_norm.weight", "text_norm.bias"}
    every = [f"text_layers.{i}." for i in range(len(model.text_layers))]
    every += [f"joint_layers.{i}." for i in range(len(model.joint_layers))]
    return found | {name for name, _ in model.named_parameters() if name.startswith(tuple(every[:layers]))}


def freeze(model: OneTower, text_layers: int) -> None:
    """Freezes the embeddings of words and the first text layers; 0: nothing.

    Raises:
        EncoderError: the matcher has fewer text layers.
    """
    if text_layers > len(model.text_layers):
        raise EncoderError(
            f"train.frozen_text_layers = {text_layers}: the matcher has {len(model.text_layers)} text layers"
        )
    if text_layers:
        frozen: list[nn.Module] = [model.words, model.positions, model.text_norm, *model.text_layers[:text_layers]]
        for module in frozen:
            module.requires_grad_(False)


def _copy(into: Tensor, values: Tensor) -> None:
    into.data.copy_(values)


def _fill(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    module.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
