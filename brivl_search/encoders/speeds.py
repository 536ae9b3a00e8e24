"""How fast encoders were on this machine, as `models bench` measured it: one small file in the user's cache folder.

A measurement is known by the encoder's fingerprint, the machine, and the settings (device, precision and the like).
Speed is compared with brivl-mini's in the same run: absolute numbers change with what else a machine does, ratios much
less.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders import places
from brivl_search.encoders.cpu import cpu_name

_KEPT = 200  # measurements remembered, the newest


@dataclass(frozen=True)
class Speed:
    """One measurement.

    Attributes:
        name: of the encoder.
        fingerprint: of the encoder.
        machine: as `cpu_name` calls it.
        device, precision: that it ran with.
        options: what else it was loaded with, by the names of `load_encoder`'s arguments.
        images: pictures/s of the image tower, in batches; decoding excluded.
        batch: pictures in a batch.
        texts: texts/s of the text tower, in batches.
        memory: bytes of the process at its peak, or None where the system does not say.
        gpu_memory: bytes that torch took of the GPU at its peak; None on a CPU.
        text_ready: seconds from the start of a process to the vector of its first text.
        image_ready: seconds from then to the vector of its first picture.
        relative: images / those of brivl-mini in the same run; None: brivl-mini was not measured.
        measured: the day, YYYY-MM-DD.
    """

    name: str
    fingerprint: str
    machine: str
    device: str
    precision: str
    images: float
    batch: int
    texts: float
    memory: int | None
    gpu_memory: int | None
    text_ready: float
    image_ready: float
    measured: str
    relative: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """By what it is known."""
        more = [f"{name}={value}" for name, value in sorted(self.options.items())]
        return "|".join([self.fingerprint, self.machine, self.device, self.precision, *more])

    def to_dict(self) -> dict[str, Any]:
        """What `--format json` prints."""
        return asdict(self)


def path() -> Path:
    """$XDG_CACHE_HOME/brivl-search/speeds.json; XDG_CACHE_HOME is ~/.cache where it is not set."""
    return places.cache_folder() / "speeds.json"


def read() -> list[Speed]:
    """All that was measured on this machine, oldest first; a file that cannot be read counts as none."""
    return [speed for speed in _all() if speed.machine == cpu_name()]


def _all() -> list[Speed]:
    try:
        values = json.loads(path().read_text(encoding="utf-8"))
        return [Speed(**one) for one in values]
    except (OSError, ValueError, TypeError):
        return []


def keep(speeds: Sequence[Speed]) -> None:
    """Remembers measurements; each takes the place of an older one with its key. Without a place, they are lost."""
    new = {speed.key for speed in speeds}
    kept = [one for one in _all() if one.key not in new] + list(speeds)
    with contextlib.suppress(OSError):
        path().parent.mkdir(parents=True, exist_ok=True)
        with appearing(path()) as (temporary,):
            temporary.write_text(json.dumps([asdict(one) for one in kept[-_KEPT:]], indent=1) + "\n", encoding="utf-8")
