"""Ctrl-C and SIGTERM (a scheduler's, a reboot's): the step that runs is finished and saved, then the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """While it is entered, `asked` is the number of a signal that came, else 0. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._came) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number


def deaf(worker: int) -> None:
    """For a worker of the loader: a signal to all processes of a terminal or a job is the trainer's to answer; its
    workers end when it does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
