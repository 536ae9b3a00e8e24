"""Where things lie: the repository, and the shared data beside it that a clone need not have."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SHARED = REPO.parent / "shared"
