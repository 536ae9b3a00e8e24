"""How many processors there are to use."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """The CPUs that this process may run on, at least 1: fewer than the machine has inside a container, say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
