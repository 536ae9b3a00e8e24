"""What a matcher has from a BERT of the text tower: its words and its first layers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError

_OF_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
    "fc1": "intermediate.dense", "fc2": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


def fill_words(model: OneTower, text: TextTower) -> None:
    """Gives a matcher the embeddings of the text tower's words, positions and first type.

    Raises:
        EncoderError: the sizes differ, or the text tower is no BERT.
    """
    config, theirs = model.config, text.backbone.config
    sizes = {
        "vocab_size": theirs.vocab_size, "width": theirs.hidden_size, "heads": theirs.num_attention_heads,
        "feedforward": theirs.intermediate_size,
    }  # fmt: skip
    if wrong := [name for name, size in sizes.items() if getattr(config, name) != size]:
        raise EncoderError(f"matcher.{wrong[0]} = {getattr(config, wrong[0])}: the towers have {sizes[wrong[0]]}")
    if theirs.model_type != "bert" or config.max_length > theirs.max_position_embeddings:
        raise EncoderError(
            f"a matcher starts from a BERT of at least max_length = {config.max_length} positions, not from "
            f"{theirs.model_type} of {theirs.max_position_embeddings}"
        )
    state = text.backbone.state_dict()
    model.words.weight.data.copy_(state["embeddings.word_embeddings.weight"])
    model.positions.weight.data.copy_(state["embeddings.position_embeddings.weight"][: config.max_length])
    model.types.weight.data[0].copy_(state["embeddings.token_type_embeddings.weight"][0])
    _fill(model.text_norm, state, "embeddings.LayerNorm")


def fill_layers(layers: Iterable[nn.Module], text: TextTower) -> None:
    """Gives the first of these layers the weights of the text tower's first layers, as many as it has."""
    state = text.backbone.state_dict()
    for number, layer in zip(range(text.backbone.config.num_hidden_layers), layers, strict=False):
        for ours, name in _OF_BERT.items():
            _fill(layer.get_submodule(ours), state, f"encoder.layer.{number}.{name}")


def shared_names(model: OneTower) -> list[str]:
    """Names of the tensors that are the text tower's: with `shared_layers`, words and layers; else none."""
    count = model.config.shared_layers
    if not count:
        return []
    first = ("words.", "positions.", "text_norm.", *(f"text_layers.{number}." for number in range(count)))
    return [name for name in model.state_dict() if name.startswith(first)]


def fill_shared(model: OneTower, text: TextTower) -> None:
    """Gives a matcher what `shared_names` says, from its text tower.

    Raises:
        EncoderError: the text tower has other sizes.
    """
    if count := model.config.shared_layers:
        fill_words(model, text)
        fill_layers(list(model.text_layers)[:count], text)


def _fill(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    module.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
