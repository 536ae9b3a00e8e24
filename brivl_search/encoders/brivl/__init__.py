"""BriVL: two towers, their checkpoint folder, region boxes, and a correction for hubness.

WenLan/BriVL: arXiv 2103.06561 (version 1, 2021); Nature Communications 13, 3094 (version 2, 2022; arXiv 2110.14378).
The names below are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brivl_search.encoders.base import Precision
    from brivl_search.encoders.brivl.encoder import FEW_TOKENS, LENGTHS, BriVLEncoder

__all__ = ["FEW_TOKENS", "LENGTHS", "BriVLEncoder", "Precision"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "brivl_search.encoders.base" if name == "Precision" else f"{__name__}.encoder"
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
