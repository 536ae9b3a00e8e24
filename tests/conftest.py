"""Shared fixtures: a tiny random checkpoint and small drawn pictures; no network, no ../shared."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.site import Ended
    from tests.support.stub import StubEncoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for each other
os.environ["XDG_DATA_HOME"] = os.path.join(tempfile.gettempdir(), "brivl-search-tests-keep-nothing-here")
os.environ["BRIVL_SEARCH_EXPORTS"] = os.path.join(os.environ["XDG_DATA_HOME"], "exports")
for name in ("BRIVL_SEARCH_INDEX", "BRIVL_SEARCH_ENCODER", "BRIVL_SEARCH_RUNTIME"):
    os.environ.pop(name, None)  # a developer's own settings must not leak into tests


TOGETHER = ("tests/e2e/page/", "tests/e2e/test_cli")  # one browser, one index; else each file is one process' work


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a fixture runs in one process: the tests of a file, and those of `TOGETHER`.

    Marks of groups (`--dist loadgroup`) do nothing with pytest 9.2: pytest-xdist 3.8 writes them where nobody reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid.partition("::")[0])

    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The page and files with slow tests come first, so that no process waits for the last one."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: ("page" not in item.path.parts, -slow[item.path]))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-brivl")


@pytest.fixture
def encoder() -> StubEncoder:
    """Deterministic vectors without a model; counts what it embeds."""
    from tests.support.stub import StubEncoder

    return StubEncoder()


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line's entry point in this process."""
    from brivl_search.cli import main
    from tests.support.site import Ended

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["brivl-search", *arguments])
        capfd.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        got = capfd.readouterr()
        return Ended(code if isinstance(code, int) else int(code is not None), got.out, got.err)

    return call
