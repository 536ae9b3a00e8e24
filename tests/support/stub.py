"""An encoder that needs no model and counts its work, and the real command line running with it.

    python -m tests.support.stub build-index FOLDER ...

It understands `tests/support/pictures.py`: a text that names a colour and a shape gets the vector of that drawing. All
that is embedded is flushed at once, so that a kill has something to leave behind. Set by environment:

    STUB_LOG      a file to which every call appends how many images it embedded
    STUB_SLEEP    seconds per call
    STUB_KILL_AT  number of the call that ends in SIGKILL
    STUB_REAL     count, sleep and die the same way around the encoder that --encoder names
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders.calibration import Calibration
from tests.support.folders import REPO
from tests.support.pictures import COLOURS, SHAPES, draw

SIDE = 32


def environment(**more: str) -> dict[str, str]:
    """For processes that run the command line: this code, one thread, wide tables."""
    return {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


class Silent:
    """The progress of a build, unseen."""

    def phase(self, name: str, total: int | None) -> None: ...
    def advance(self, steps: int) -> None: ...
    def note(self, line: str) -> None: ...


class StubEncoder:
    """Deterministic unit vectors: a random projection of a picture's 8×8 thumbnail."""

    def __init__(self, name: str = "stub", fingerprint: str = "stub-fingerprint", dim: int = 32) -> None:
        self.name, self.fingerprint, self.dim = name, fingerprint, dim
        self.pixels = PixelSpec(size=SIDE)
        self.calibration: Calibration | None = None
        self.images = 0
        self.calls = 0
        self.texts: list[str] = []
        self._projection = np.random.default_rng(0).standard_normal((8 * 8 * 3, dim)).astype(np.float32)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (SIDE, SIDE, 3)
        self.images += len(pixels)
        self.calls += 1
        return self._vectors(pixels)

    def warm_up(self) -> None:
        pass

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return np.concatenate([np.zeros((0, self.dim), np.float32), *(self._text(text) for text in texts)])

    def cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return [max(len(text) - 40, 0) for text in texts]

    def _vectors(self, pixels: np.ndarray) -> np.ndarray:
        cells = pixels.reshape(-1, 8, SIDE // 8, 8, SIDE // 8, 3).mean(axis=(2, 4), dtype=np.float32)
        rows = cells.reshape(len(pixels), -1) - 240
        # One product a picture: BLAS rounds a row differently in batches of different sizes.
        vectors = np.stack([row @ self._projection for row in rows])
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _text(self, text: str) -> np.ndarray:
        colour = next((en for en, (zh, _) in COLOURS.items() if en in text or zh in text), None)
        shape = next((en for en, zh in SHAPES.items() if en in text or zh in text), None)
        if colour and shape:
            return self._vectors(np.asarray(draw(colour, shape).resize((SIDE, SIDE)))[None])
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        vector = np.random.default_rng(seed).standard_normal((1, self.dim)).astype(np.float32)
        return vector / np.linalg.norm(vector)


def _watched(encoder: Any) -> Any:
    """The encoder counting its calls for images, sleeping and dying in them as the environment says."""
    name = "encode_pictures" if hasattr(encoder, "encode_pictures") else "encode_images"
    inner, calls = getattr(encoder, name), 0

    def encode(pixels: np.ndarray, *origins: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        time.sleep(float(os.environ.get("STUB_SLEEP", "0")))
        if os.environ.get("STUB_KILL_AT") == str(calls):
            os.kill(os.getpid(), signal.SIGKILL)
        vectors: np.ndarray = inner(pixels, *origins)
        if log := os.environ.get("STUB_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{len(pixels)}\n")
        return vectors

    setattr(encoder, name, encode)
    return encoder


def main() -> None:
    from brivl_search import encoders
    from brivl_search.cli import main as real_main
    from brivl_search.encoders import registry
    from brivl_search.ingest import run as build

    real = registry.load_encoder

    def load_encoder(name: str = "stub", **options: Any) -> Any:
        return _watched(real(name, **options) if os.environ.get("STUB_REAL") else StubEncoder())

    registry.load_encoder = encoders.load_encoder = load_encoder
    build.FLUSH_SECONDS = -1.0
    sys.argv[0] = "brivl-search"
    real_main()


if __name__ == "__main__":
    main()
