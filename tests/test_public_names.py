"""What `import brivl_search` offers: exactly `__all__`."""

from __future__ import annotations

import subprocess
import sys
import types

import brivl_search
from tests.support.folders import REPO


def test_exported_members() -> None:
    """As httpx tests it: whatever a person finds in the package by its names is exported, and nothing else."""
    assert brivl_search.__all__ == sorted(brivl_search.__all__)
    public = [name for name in dir(brivl_search) if not name.startswith("_")]
    assert public == ["Hit", "Index", "load_encoder", "open_index", "write_captions"]
    assert sorted([*public, "__version__"]) == brivl_search.__all__
    assert len(set(dir(brivl_search))) == len(dir(brivl_search)) and "__doc__" in dir(brivl_search)


def test_dir_shows_them_before_anything_is_loaded() -> None:
    code = "import brivl_search, sys; print(*dir(brivl_search)); assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert set(brivl_search.__all__) <= set(done.stdout.split())


def test_a_star_import_gives_the_same() -> None:
    names: dict[str, object] = {}
    exec("from brivl_search import *", names)
    assert {name for name in names if name != "__builtins__"} == set(brivl_search.__all__)
    assert not any(isinstance(names[name], types.ModuleType) for name in brivl_search.__all__)
