"""What is to be exported, and the process that does it: see `brivl_search.encoders.runtimes.make`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from brivl_search.encoders.runtimes import store
from brivl_search.encoders.runtimes.choice import Choice, Side
from brivl_search.errors import EncoderError


class UnexportableError(EncoderError):
    """The tower has no form in this runtime and precision, or another one: a second try would end the same way."""


@dataclass(frozen=True)
class Order:
    """What to make: one side of the encoder `name`, which has this `fingerprint`, for a runtime and a precision."""

    name: str
    fingerprint: str
    side: Side
    runtime: str
    precision: str

    @property
    def choice(self) -> Choice:
        return Choice(self.runtime, self.precision)  # type: ignore[arg-type]

    @property
    def place(self) -> Path:
        return store.place(self.fingerprint, self.side, self.choice)


def in_own_process(order: Order) -> store.Facts:
    """Makes an export, or says why it cannot be made.

    Raises:
        UnexportableError: the tower cannot be exported, or the export does not agree with torch.
        EncoderError: there is no place for it, or the process was killed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "brivl_search.encoders.runtimes.make"],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        answer = json.loads(done.stdout.strip().rpartition("\n")[2])
        reason, lasts = str(answer.get("error", "")), bool(answer.get("lasts"))
    except (ValueError, AttributeError):
        reason = (done.stderr.strip().rpartition("\n")[2] or f"its process ended with {done.returncode}")[:300]
        lasts = False
    facts = None if reason else store.read(order.place)
    if reason and lasts:
        raise UnexportableError(reason)
    if facts is None:
        raise EncoderError(reason or f"{order.place} cannot be read after it was made: is the disk full?")
    return facts
