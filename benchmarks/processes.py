"""The surroundings of a measured process: as after `pip install`, whatever those of this one are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def as_installed() -> dict[str, str]:
    """The environment of a process that runs this checkout.

    pip compiles a package's modules once. A checkout whose files must not be written to (PYTHONDONTWRITEBYTECODE) would
    compile more than a hundred of them at each start, which takes longer than the rest of a query.
    """
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    place = os.path.join(tempfile.gettempdir(), f"brivl-search-compiled-{os.getuid()}")
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": place}
