"""brivl-search: cross-modal retrieval after WenLan/BriVL.

    from brivl_search import load_encoder, open_index

`open_index` and `load_encoder` import what they need when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brivl_search.api import Index, open_index
    from brivl_search.encoders.registry import load_encoder
    from brivl_search.search.hits import Hit

__version__ = "0.2.0"
__all__ = ["Hit", "Index", "__version__", "load_encoder", "open_index"]

_HOME = {"Hit": "search.hits", "Index": "api", "open_index": "api", "load_encoder": "encoders.registry"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
