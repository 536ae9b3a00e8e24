"""What open_clip said of its built-in models, so that a query by name need not import it, and torch with it.

One small file in the user's cache folder. It counts for the version of open_clip that said it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders import places


@dataclass(frozen=True)
class Named:
    """A built-in model.

    Attributes:
        model: its name.
        tag: of its weights.
        config: `model_cfg`.
        weights: open_clip's settings of the weights: where they are, and how pictures are prepared.
        file: of the weights, where open_clip itself keeps it; "": the hub's cache has it, or it is not known yet.
    """

    model: str
    tag: str
    config: dict[str, Any]
    weights: dict[str, Any]
    file: str = ""


def read(name: str) -> Named | None:
    """What was kept of NAME/PRETRAINED; None: nothing, or by another version."""
    values = _read().get(name)
    try:
        return None if values is None else Named(**values)
    except TypeError:
        return None


def keep(name: str, model: Named) -> None:
    """Keeps it. Where the cache cannot be written, open_clip is asked again next time."""
    known = {**_read(), name: asdict(model)}
    with contextlib.suppress(OSError, TypeError):  # a setting that JSON does not have
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as (temporary,):
            temporary.write_text(json.dumps({"version": _version(), "models": known}), encoding="utf-8")


def _file() -> Path:
    return places.cache_folder() / "open_clip.json"


def _version() -> str:
    try:
        return version("open_clip_torch")
    except PackageNotFoundError:
        return ""


def _read() -> dict[str, Any]:
    try:
        values = json.loads(_file().read_text(encoding="utf-8"))
        models = values["models"] if values["version"] == _version() else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return models if isinstance(models, dict) else {}
