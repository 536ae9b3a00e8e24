"""How fast encoders are on this machine: each is measured in a process of its own, beside brivl-mini."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from brivl_search.encoders.registry import DEFAULT
from brivl_search.encoders.speeds import Speed as Speed
from brivl_search.encoders.speeds import this_machine

REFERENCE = DEFAULT  # measured in every run: what others are compared with
SECONDS = 8.0  # that the pictures of an encoder are measured for
MOST_PICTURES = 256  # of a folder


@dataclass(frozen=True)
class Failed:
    """An encoder that could not be measured, and why, in a line."""

    name: str
    why: str

    def to_dict(self) -> dict[str, str]:
        """What `--format json` prints."""
        return {"name": self.name, "error": self.why}


def measure_all(
    names: Sequence[str],
    options: Mapping[str, str],
    *,
    pictures: Sequence[Path] = (),
    seconds: float = SECONDS,
    told: Callable[[str], None] = lambda name: None,
) -> list[Speed | Failed]:
    """Measures encoders one after another, brivl-mini first; one that cannot be had spoils no other.

    Args:
        names: as `load_encoder` takes them.
        options: its other arguments: device, precision and the like.
        pictures: files that are shown to the towers; none: made ones.
        seconds: that the image tower is measured for; texts take a quarter of that.
        told: called with the name of the encoder whose turn it is.

    Returns:
        brivl-mini's, then one for each of the other names, in their order.
    """
    done: list[Speed | Failed] = []
    for name in dict.fromkeys([REFERENCE, *names]):
        told(name)
        one = measure(name, options, pictures=pictures, seconds=seconds)
        reference = done[0] if done else one
        if isinstance(one, Speed) and isinstance(reference, Speed):
            one = replace(one, relative=one.images / reference.images)
        done.append(one)
    return done


def measure(
    name: str, options: Mapping[str, str], *, pictures: Sequence[Path] = (), seconds: float = SECONDS
) -> Speed | Failed:
    """One encoder in a fresh process, so that its memory and its start are its own; see `measure_all`."""
    wanted = {"name": name, "options": dict(options), "pictures": [os.fspath(one) for one in pictures]}
    with tempfile.TemporaryDirectory(prefix="brivl-speed-") as folder:
        out = Path(folder) / "speed.json"
        asked = json.dumps({**wanted, "seconds": seconds, "out": str(out), "began": time.time()})
        done = subprocess.run(
            [sys.executable, "-m", "brivl_search.evaluation.speed_worker"],
            input=asked,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
        )
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    if "error" in found:
        return Failed(name, found["error"])
    if not found:
        return Failed(name, _why(done))
    known = {key: value for key, value in options.items() if key not in ("device", "precision")}
    return Speed(name=name, machine=this_machine(), measured=date.today().isoformat(), options=known, **found)


def _environment() -> dict[str, str]:
    """This process's, with this very copy of the package first."""
    here = Path(__file__).resolve().parent.parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH", "")]))}


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """Of a process that ended without an answer."""
    if done.returncode < 0:
        killed = " (killed: the memory may not have been enough)" if done.returncode == -9 else ""
        return f"its process ended with signal {-done.returncode}{killed}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"its process failed: {said[-1] if said else f'exit code {done.returncode}'}"
