"""A multiprocessing context whose children do not run the parent's main script again.

`spawn` re-imports the parent's `__main__` in every child: a training script would load torch there, a script read from
stdin or without an `if __name__ == "__main__"` guard would fail. The children here need nothing of it. They also begin
with SIGINT blocked, so that Ctrl-C during their start leaves the parent, and only it, to act. And a child that is still
starting when the parent has no more use for it finds the parent's pipe and semaphores gone: it ends without a word.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_here = threading.local()
_preparation_data = spawn.get_preparation_data
_command_line = spawn.get_command_line
# What escapes from `spawn_main` happened before the child's own work: that reports its errors itself, and exits.
_WITHOUT_A_WORD = """try:
    {start}
except (EOFError, OSError, UnpicklingError):
    raise SystemExit(1) from None
"""


def _light_preparation_data(name: str) -> dict[str, Any]:
    """What `spawn` tells a child before it starts; without the main module where this thread asked for that."""
    data = dict(_preparation_data(name))
    if getattr(_here, "light", False):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


def _light_command_line(**handles: Any) -> list[str]:
    """The command that starts a child; where this thread asked for that, one that keeps quiet if it comes too late."""
    line = list(_command_line(**handles))
    if getattr(_here, "light", False) and "-c" in line:
        program = line.index("-c") + 1
        line[program] = "from pickle import UnpicklingError\n" + _WITHOUT_A_WORD.format(start=line[program])
    return line


class LightProcess(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        _here.light = True
        try:
            with _sigint_blocked():
                return SpawnProcess._Popen(process_obj)
        finally:
            _here.light = False


class LightContext(SpawnContext):
    Process = LightProcess


def light_context() -> LightContext:
    """The context to hand to a pool. Other users of multiprocessing notice nothing: the hook acts on our threads."""
    spawn.get_preparation_data = _light_preparation_data
    spawn.get_command_line = _light_command_line
    return LightContext()


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
