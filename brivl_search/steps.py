"""Where a query's time goes: functions name their step, and whoever wants to know collects.

    with steps.collect() as seconds:
        engine.query(...)
    seconds  # {"encode": 0.004, "search": 0.0003, "rerank": 0.0002, "records": 0.0001}

Each thread collects for itself. The time of a step inside another one counts for the inner one alone. Where nobody
collects, a step costs a look at one attribute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Here(threading.local):
    seconds: dict[str, float] | None = None
    inner = 0.0  # of steps that ended inside the one under way


_here = _Here()


@contextmanager
def collect() -> Iterator[dict[str, float]]:
    """Seconds of each step that this thread takes inside the `with`."""
    before, _here.seconds = _here.seconds, {}
    try:
        yield _here.seconds
    finally:
        _here.seconds = before


def step(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that is a step, or a part of one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            seconds = _here.seconds
            if seconds is None:
                return function(*args, **kwargs)
            outside, _here.inner = _here.inner, 0.0
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                seconds[name] = seconds.get(name, 0.0) + spent - _here.inner
                _here.inner = outside + spent

        return timed

    return decorate
