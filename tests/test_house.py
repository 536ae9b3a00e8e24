"""The plan of the house holds: few rooms, imports in one direction, no circle, no module with two ideas' length.

    python -m tests.test_house      prints the figures

A room is a child of `brivl_search` (a folder or a loose module) or `train`. An arrow is a pair of rooms where one
imports the other. Which room may import which is written in pyproject.toml and checked by `lint-imports`.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.folders import REPO

LOOSE = {"__init__", "__main__", "api", "display", "errors", "steps"}
COMING = {"ocr"}  # rooms of later issues
MOST_ROOMS, MOST_LINES = 20, 400

grimp = pytest.importorskip("grimp")


@cache
def imports() -> dict[str, set[str]]:
    """module → the project's own modules that it imports, also inside functions."""
    sys.path.insert(0, str(REPO))
    try:
        graph = grimp.build_graph("brivl_search", "train", cache_dir=None)
    finally:
        sys.path.remove(str(REPO))
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def room(module: str) -> str:
    parts = module.split(".")
    return "train" if parts[0] == "train" else ".".join(parts[:2])


@cache
def arrows() -> dict[str, set[str]]:
    """room → other rooms that it imports."""
    found: dict[str, set[str]] = {room(module): set() for module in imports()}
    for module, targets in imports().items():
        found[room(module)] |= {room(target) for target in targets} - {room(module)}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names that import each other in a circle, first and last the same; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def python_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=REPO, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := REPO / name).is_file()]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_few_rooms_and_six_loose_modules() -> None:
    loose = {path.stem for path in (REPO / "brivl_search").glob("*.py")}
    assert loose == LOOSE
    rooms = set(arrows()) - {f"brivl_search.{name}" for name in COMING}
    assert len(rooms) <= MOST_ROOMS, sorted(rooms)


def test_no_circle_of_modules_or_rooms() -> None:
    assert circle(imports()) == []
    assert circle(arrows()) == []


def test_the_library_never_imports_its_training() -> None:
    assert [name for name, targets in arrows().items() if name != "train" and "train" in targets] == []


def test_no_module_is_longer_than_400_lines() -> None:
    assert [(str(path), lines(path)) for path in python_files() if lines(path) > MOST_LINES] == []


def test_tests_lie_where_modules_lie() -> None:
    """Every folder of tests/ below the first level of e2e, docs and support mirrors a folder of the project."""
    own = {"e2e", "docs", "support", "soak"}
    mirrored = {path.parent.relative_to(REPO / "tests") for path in python_files() if "tests" in path.parts}
    homes = [folder for folder in mirrored if folder.parts and folder.parts[0] not in own]
    strays = [str(f) for f in homes if not (REPO / f).is_dir() and not (REPO / "brivl_search" / f).is_dir()]
    assert strays == []


if __name__ == "__main__":
    found = arrows()
    longest = max(python_files(), key=lines)
    print(f"{len(found)} rooms, {sum(map(len, found.values()))} arrows, {len(LOOSE)} loose modules")
    print(f"circle: {circle(imports()) or circle(found) or 'none'}")
    print(f"longest module: {longest.relative_to(REPO)}, {lines(longest)} lines")
    for name, targets in sorted(found.items()):
        print(f"    {name} -> {', '.join(sorted(target.removeprefix('brivl_search.') for target in targets))}")
