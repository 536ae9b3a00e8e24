"""The stub encoder as a plug-in, for workers of a cluster: they load it by name, in processes of their own.

    install_stub(folder)        # then folder goes to PYTHONPATH, and `--encoder stub` works everywhere

Set by environment, besides what `tests.support.stub` reads:

    STUB_POISON   text; a picture whose path has it in it kills its worker, each time
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import plugins
from tests.support.stub import StubEncoder, _watched

CODE = "from tests.support.cluster_stub import make\n"


def install_stub(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plugins.install(folder, CODE, package="clusterstub", points="stub = clusterstub:make")


class Poisoned(StubEncoder):
    """Dies of some pictures."""

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Any]) -> np.ndarray:
        poison = os.environ.get("STUB_POISON")
        if poison and any(poison in os.path.basename(origin.path) for origin in origins):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.encode_images(pixels)


def make(argument: str, *, device: str, precision: str) -> Any:
    """The plug-in's factory."""
    return _watched(Poisoned())
