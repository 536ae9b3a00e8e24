"""Module names of 0.1 that moved in 0.2: they can be imported for one release, and say where things are now."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest

from tests.support.folders import REPO

# Public names that the old modules defined, and the module that defines it now (None: it may move once more).
NAMES: dict[str, dict[str, str | None]] = {
    "build": {
        "build_index": "ingest.run",
        "add": "ingest.run",
        "BuildOptions": "ingest.options",
        "BuildReport": "ingest.report",
        "Progress": "ingest.report",
    },
    "calibration": {
        "Calibration": "encoders.calibration",
        "expected_calibration_error": None,
        "fit": None,
        "fit_and_judge": None,
        "true_and_random_pairs": None,
    },
    "engine": {"Engine": "search.engine", "SearchOptions": None, "Hit": "search.hits", "as_given": "display"},
    "filters": {"Filter": "search.filters", "allowed": "search.allowed", "parse_time": "search.filters"},
    "hits": {"Hit": "search.hits", "as_given": "display"},
    "queries": {
        "Query": "search.queries",
        "Term": "search.queries",
        "TARGETS": None,
        "compose": "search.queries",
        "image_term": "search.queries",
        "read_batch": "search.queries",
        "text_term": "search.queries",
    },
}


def old(module: str) -> Any:
    """Imports an old name afresh, so that it warns again."""
    sys.modules.pop(f"brivl_search.{module}", None)
    with pytest.warns(DeprecationWarning, match=rf"^brivl_search\.{module} moved to brivl_search\..*goes with") as told:
        found = importlib.import_module(f"brivl_search.{module}")
    assert len(told) == 1
    return found


@pytest.mark.parametrize("module", NAMES)
def test_old_modules_forward_to_the_new_ones(module: str) -> None:
    forwarded = old(module)
    for name, home in NAMES[module].items():
        found = getattr(forwarded, name)
        if home is not None:
            assert found is getattr(importlib.import_module(f"brivl_search.{home}"), name)
            assert getattr(found, "__module__", f"brivl_search.{home}") == f"brivl_search.{home}"
    with pytest.raises(AttributeError, match=f"module 'brivl_search.{module}' has no attribute 'nothing'"):
        forwarded.nothing  # noqa: B018


def test_both_ways_to_import() -> None:
    for name in ("engine", "calibration"):
        sys.modules.pop(f"brivl_search.{name}", None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        import brivl_search.calibration  # type: ignore[import-not-found]
        from brivl_search.engine import Engine, SearchOptions  # type: ignore[import-not-found]
    assert brivl_search.calibration.Calibration(1.0, 0.0).probability(0) == 0.5
    assert Engine.__module__ == "brivl_search.search.engine" and SearchOptions(3).k == 3
    assert [str(one.message).split()[0] for one in told] == ["brivl_search.calibration", "brivl_search.engine"]
    assert {one.filename for one in told} == {__file__}  # it is the importing line that is told
    with warnings.catch_warnings(), pytest.raises(ImportError, match="no_such_name"):
        warnings.simplefilter("ignore")
        from brivl_search.engine import no_such_name  # noqa: F401


def test_a_pickle_of_the_old_place_is_read() -> None:
    from brivl_search.encoders.calibration import Calibration

    now = pickle.dumps(Calibration(2.0, 1.0), protocol=0)
    then = now.replace(b"brivl_search.encoders.calibration", b"brivl_search.calibration")
    assert then != now and pickle.loads(then) == Calibration(2.0, 1.0)
    assert pickle.loads(now) == Calibration(2.0, 1.0)


def test_only_these_names_and_at_no_cost() -> None:
    """Other modules that do not exist stay unknown, real ones are never looked for here, nothing is imported early."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("brivl_search.nowhere")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("brivl_search.search.calibration")
    code = (
        "import sys, typing; before = set(sys.modules); import brivl_search; "
        "assert sys.meta_path[-1].__module__ == 'brivl_search'; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.split() == ["brivl_search"]
    code = "import brivl_search.calibration, sys; assert 'brivl_search.evaluation' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


def test_the_package_itself_does_not_use_them() -> None:
    """A run of the command line, with these warnings as errors."""
    command = [sys.executable, "-W", "error::DeprecationWarning:brivl_search", "-m", "brivl_search", "--help"]
    assert subprocess.run(command, capture_output=True, cwd=REPO).returncode == 0
    assert not {f"brivl_search.{name}" for name in NAMES} & set(_imported_names())


def _imported_names() -> list[str]:
    """Every `from X import` and `import X` in the package, the training code, the benchmarks and the tests."""
    import ast

    here = []
    for folder in ("brivl_search", "train", "benchmarks"):
        for path in (REPO / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    here += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                elif isinstance(node, ast.Import):
                    here += [alias.name for alias in node.names]
    return here
