"""Disks: which file system a path lies on."""

from __future__ import annotations

import os


def disk_of(path: str) -> int:
    """A number of the file system that a path lies on, 0 where there is none.

    It is the file system's own id where it has one. The number of the device is given to the next disk in the same
    socket again.
    """
    try:
        own = os.statvfs(path).f_fsid if hasattr(os, "statvfs") else 0
        return own or os.stat(path).st_dev
    except (OSError, ValueError):
        return 0
