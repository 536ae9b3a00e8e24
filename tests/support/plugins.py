"""Encoder plug-ins as packages: the one of docs/encoders.md, and others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.folders import REPO

DOCUMENT = REPO / "docs" / "encoders.md"


def plugin_source() -> str:
    """The whole plug-in that the documentation shows, so that it cannot go stale."""
    (code,) = re.findall(r"```python\n(# colours\.py.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def install(target: Path, code: str, *, package: str = "colours", points: str = "colours = colours:make") -> None:
    """What `pip install --target` leaves: a module, and a dist-info with its entry points."""
    (target / f"{package}.py").write_text(code, encoding="utf-8")
    info = target / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[brivl_search.encoders]\n{points}\n")
