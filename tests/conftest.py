"""Shared fixtures: a tiny random checkpoint and small drawn pictures; no network, no ../shared."""

from __future__ import annotations

import gc
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

gc.disable()  # until all is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for each other
os.environ["XDG_DATA_HOME"] = os.path.join(tempfile.gettempdir(), "brivl-search-tests-keep-nothing-here")
os.environ["BRIVL_SEARCH_EXPORTS"] = os.path.join(os.environ["XDG_DATA_HOME"], "exports")
for name in ("BRIVL_SEARCH_INDEX", "BRIVL_SEARCH_ENCODER", "BRIVL_SEARCH_RUNTIME"):
    os.environ.pop(name, None)  # a developer's own settings must not leak into tests
# Hundreds of commands are started: without bytecode each would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# What shares a browser, an index, models or a library that is slow to import runs in one process; else a file does.
TOGETHER = {
    "tests/e2e/page/": "page",
    "tests/e2e/test_cli": "cli",
    "tests/encoders/hf/": "hf",
    "tests/encoders/immich/": "open_clip",
    "tests/encoders/open_clip/": "open_clip",
}
# The longest come first, so that no process waits for another's last one.
LONGEST = (
    "page",
    "cli",
    "tests/train/test_pretrain.py",
    "tests/train/test_tuning.py",
    "tests/models/test_brivl_mini.py",
    "tests/encoders/runtimes/test_exports.py",
    "tests/e2e/test_kill_random.py",
    "tests/train/test_distributed.py",
    "tests/docs/test_commands.py",
    "open_clip",
    "hf",
)


def together(nodeid: str) -> str:
    """What a test shares a process with: a name of `TOGETHER`, or its file."""
    return next((name for start, name in TOGETHER.items() if nodeid.startswith(start)), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a fixture runs in one process.

    Marks of groups (`--dist loadgroup`) do nothing with pytest 9.2: pytest-xdist 3.8 writes them where nobody reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first, then files with slow tests."""
    slow = Counter(together(item.nodeid) for item in items if item.get_closest_marker("slow"))
    place = {name: at - len(LONGEST) for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(together(item.nodeid), 0), -slow[together(item.nodeid)]))


@pytest.hookimpl
def pytest_collection_finish() -> None:
    """What was imported stays: a collector that looks through all of it again and again takes a part of each test."""
    gc.enable()
    gc.freeze()


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
