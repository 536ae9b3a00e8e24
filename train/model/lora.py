"""LoRA (Hu et al., 2021, arXiv 2106.09685) by peft: beside a frozen matrix W learns B·A of low rank, added to it.

B is zero at the start, so that the tower begins with its own vectors. `merged` gives plain weights W + (α / r)·B·A.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from brivl_search.errors import DependencyError, UsageError, install_hint

GROWS = "lora_B"  # in the names of the matrices that are zero at the start


def check_installed() -> None:
    """Raises DependencyError if peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise DependencyError(f"train.lora_rank needs peft: {install_hint('train')}")


def adapt(model: nn.Module, layers: Sequence[nn.Module], *, rank: int, alpha: int, dropout: float, what: str) -> None:
    """Puts LoRA beside the matrices of those `layers` that are not frozen; all else of the model is frozen.

    Args:
        model: a tower.
        layers: of the model.
        rank, alpha, dropout: r, α and the dropout before A.
        what: the tower's name, for messages.

    Raises:
        DependencyError: peft is not installed.
        UsageError: the layers hold no matrix that peft knows: they are convolutions. Or it has no dropout for them.
    """
    check_installed()
    from peft import LoraConfig, inject_adapter_in_model

    learning = {
        id(module)
        for layer in layers
        if any(parameter.requires_grad for parameter in layer.parameters())
        for module in layer.modules()
    }
    names = [name for name, module in model.named_modules() if id(module) in learning and _fits(module)]
    # The output of a MultiheadAttention is a matrix of its own, which peft adapts with it.
    attentions = [name for name in names if isinstance(model.get_submodule(name), nn.MultiheadAttention)]
    names = [name for name in names if not name.startswith(tuple(f"{one}." for one in attentions))]
    if not names:
        raise UsageError(
            f"train.lora_rank: {what} has no linear layers that learn (it is made of convolutions, or frozen): leave "
            "lora_rank out, or name the tower in train.frozen_towers"
        )
    if attentions and dropout:
        raise UsageError(f"train.lora_dropout: peft has none for the attention of {what}: leave it out")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says of MultiheadAttention that only some of it is adapted
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return bool(module._qkv_same_embed_dim)
    return isinstance(module, nn.Linear)


def has_lora(model: nn.Module) -> bool:
    return any("lora_" in name for name, _ in model.named_parameters())


def merged(model: nn.Module) -> nn.Module:
    """A copy with plain weights; the model itself where it has no LoRA."""
    if not has_lora(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    model.state_dict()  # peft's MultiheadAttention puts its weights back into their places
    plain: nn.Module = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if not isinstance(module, BaseTunerLayer) or _inside_attention(plain, name):
            continue
        parts: Any = module
        if hasattr(parts, "unload_and_optionally_merge_module"):
            left = parts.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            parts.merge()
            left = parts.get_base_layer()
        plain.set_submodule(name, left)
    return plain


def _inside_attention(model: nn.Module, name: str) -> bool:
    """Whether a module is the output of an attention, which is merged with it; or is not there any more."""
    from peft.tuners.lora.layer import MultiheadAttention

    parents = name.split(".")[:-1]
    try:
        above = [model.get_submodule(".".join(parents[:n])) for n in range(1, len(parents) + 1)]
    except AttributeError:
        return True
    return any(isinstance(one, MultiheadAttention | nn.MultiheadAttention) for one in above)
