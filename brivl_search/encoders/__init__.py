"""Image and text towers. `load_encoder(name)` returns an encoder; torch is imported when a tower is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brivl_search.encoders.base import Encoder
    from brivl_search.encoders.registry import DEFAULT, bundled, load_encoder

__all__ = ["DEFAULT", "Encoder", "bundled", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'base' if name == 'Encoder' else 'registry'}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
