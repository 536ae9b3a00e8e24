"""What models beside the two towers have from the text tower's BERT: its words, and its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from brivl_search.encoders.brivl.text_tower import TextTower
    from brivl_search.encoders.captions.model import Captioner
    from brivl_search.encoders.one_tower.model import OneTower

_OF_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
    "fc1": "intermediate.dense", "fc2": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


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
    model.words.weight.data.copy_(words if kept is None else words[kept])
    model.positions.weight.data.copy_(state["embeddings.position_embeddings.weight"][:wanted])
    _fill(model.text_norm, state, "embeddings.LayerNorm")


def copy_layers(layers: Sequence[nn.Module], text: TextTower) -> None:
    """Fills layers with those of a text tower of their sizes, from its first on."""
    state = text.backbone.state_dict()
    for number, layer in enumerate(layers[: text.backbone.config.num_hidden_layers]):
        for ours, name in _OF_BERT.items():
            _fill(layer.get_submodule(ours), state, f"encoder.layer.{number}.{name}")


def copy_first(model: OneTower, text: TextTower, layers: int) -> None:
    """Fills a matcher's words and its first layers, text layers before joint ones.

    Raises:
        EncoderError: the text tower has other sizes, or is no BERT.
    """
    config, theirs = model.config, text.backbone.config
    sizes = {
        "vocab_size": theirs.vocab_size, "width": theirs.hidden_size, "heads": theirs.num_attention_heads,
        "feedforward": theirs.intermediate_size,
    }  # fmt: skip
    if wrong := [name for name, size in sizes.items() if getattr(config, name) != size]:
        raise EncoderError(f"matcher.{wrong[0]} = {getattr(config, wrong[0])}: the towers have {sizes[wrong[0]]}")
    copy_embeddings(model, text)
    first_type = text.backbone.state_dict()["embeddings.token_type_embeddings.weight"][0]
    model.types.weight.data[0].copy_(first_type)
    copy_layers([*model.text_layers, *model.joint_layers][:layers], text)


def shared_names(model: OneTower) -> list[str]:
    """Names of the tensors that a matcher has from the text tower and does not keep: see `shared_layers`."""
    count = model.config.shared_layers
    if not count:
        return []
    first = ("words.", "positions.", "text_norm.", *(f"text_layers.{number}." for number in range(count)))
    return [name for name in model.state_dict() if name.startswith(first)]


def _fill(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    module.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
