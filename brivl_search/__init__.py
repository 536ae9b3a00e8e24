"""brivl-search: cross-modal retrieval after WenLan/BriVL.

    from brivl_search import load_encoder, open_index, write_captions

These import what they need when they are first asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brivl_search.api import Index, open_index
    from brivl_search.embedding.captioning import write_captions
    from brivl_search.encoders.registry import load_encoder
    from brivl_search.search.hits import Hit

__version__ = "0.2.0"
__all__ = ["Hit", "Index", "__version__", "load_encoder", "open_index", "write_captions"]

_HOME = {
    "Hit": "search.hits",
    "Index": "api",
    "load_encoder": "encoders.registry",
    "open_index": "api",
    "write_captions": "embedding.captioning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__") and name not in __all__)]


# Modules that moved in 0.2 → where their names are now. The old names go with 0.3, and all below with them.
_MOVED = {
    "build": ("ingest.run", "ingest.report", "ingest.options"),
    "calibration": ("encoders.calibration", "evaluation.calibrating"),
    "engine": ("search.engine", "search.options", "display"),
    "filters": ("search.filters", "search.allowed"),
    "hits": ("search.hits", "display"),
    "queries": ("search.queries",),
}


class _Moved:
    """Imports a module of `_MOVED`: it warns, and looks every name up in the module's new places."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> Any:
        package, _, module = fullname.rpartition(".")
        if package != __name__ or module not in _MOVED:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(fullname, _Moved)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: object) -> None: ...

    @staticmethod
    def exec_module(module: Any) -> None:
        from importlib import import_module
        from warnings import warn

        places = [f"{__name__}.{place}" for place in _MOVED[module.__name__.rpartition(".")[2]]]

        def look_up(name: str) -> Any:
            if not name.startswith("__"):
                for place in places:
                    if hasattr(found := import_module(place), name):
                        return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = look_up
        text = f"{module.__name__} moved to {' and '.join(places)}; the old name goes with brivl-search 0.3"
        warn(text, DeprecationWarning, stacklevel=2)


sys.meta_path.append(_Moved)
