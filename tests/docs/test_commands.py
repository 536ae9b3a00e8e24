"""Every command in the documentation is run, in a small made-up world with the file names that it uses.

What cannot run here stands in `ELSEWHERE` with its reason. Of such a line every option is still looked up in its verb.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.documents import Block, blocks, commands
from tests.support.pictures import draw, write_corpus
from tests.support.site import Ended

# A line that begins so is not run; the reason says why, and what does run it.
ELSEWHERE = {
    "python3 -m venv": "an environment of its own: .ci/run",
    ".venv/bin/": "an environment of its own: .ci/run",
    ". .venv/bin/activate": "an environment of its own: .ci/run",
    "pip install": "the network: .ci/run",
    "make ": "runs the whole suite or a build: .ci/run runs the same commands",
    "bash .ci/run": "is what runs this",
    "curl ": "needs a server: tests/server, tests/e2e/test_cli_serve.py",
    "torchrun ": "several processes: tests/train/test_distributed.py",
    "python -m train.": "training: tests/train",
    "brivl-search demo": "tests/e2e/test_cli.py",
    "brivl-search serve": "stays open: tests/e2e/test_cli_serve.py",
}
WORDS = {  # the same for a line that holds this
    " hf:": "a model of the hub: tests/encoders/hf",
    "official:": "published weights: tests/encoders/brivl/official",
    "coco/": "a dataset that is not here: tests/corpus/readers",
    "laion": "a dataset that is not here: tests/corpus/readers",
    "Flickr30k-CN": "a dataset that is not here: tests/corpus/readers",
    "/tmp/val": "photos that are not here: tests/models",
    "annotations.json": "a dataset that is not here: tests/corpus/readers",
}


def elsewhere(line: str) -> str:
    """Why a line is not run here; "" if it is."""
    reasons = [why for start, why in ELSEWHERE.items() if line.startswith(start)]
    reasons += [why for word, why in WORDS.items() if word in line]
    return reasons[0] if reasons else ""


def program(line: str) -> list[str]:
    """The arguments of a `brivl-search` line, without a comment or what it is piped into."""
    words = shlex.split(line, comments=True)
    return words[1 : words.index("|")] if "|" in words else words[1:]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("world")
    write_corpus(folder / "images", 12)
    for name in ("photos/2024", "photos/private"):
        write_corpus(folder / name, 6)
    shutil.copy(folder / "photos/2024/captions.jsonl", folder / "photos/captions.jsonl")
    lines = [json.loads(line) for line in (folder / "photos/captions.jsonl").read_text("utf-8").splitlines()]
    rows = [
        json.dumps({**line, "image": f"2024/{line['image']}", "split": "test"}, ensure_ascii=False) for line in lines
    ]
    (folder / "photos/captions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "photos/2024/captions.jsonl").unlink()
    for name, colour in (
        ("a.jpg", "red"),
        ("b.jpg", "blue"),
        ("holiday.jpg", "green"),
        ("new.jpg", "red"),
        ("one.jpg", "blue"),
    ):
        draw(colour, "circle").save(folder / name)
    write_corpus(folder / "new", 2)
    (folder / "labels.txt").write_text("红色\tred\nblue\n", encoding="utf-8")
    (folder / "queries.txt").write_text('a dog\n{"text": "狗", "k": 3}\n', encoding="utf-8")
    (folder / "more.txt").write_text("一只猫\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("bash")}))
def test_the_commands_of_a_page_run(
    page: str,
    world: Path,
    tmp_path: Path,
    tiny_checkpoint: Path,
    run_here: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("BRIVL_SEARCH_ENCODER", str(tiny_checkpoint))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    run = [line for block in blocks("bash") if block.page == page for line in commands(block) if not elsewhere(line)]
    if any(line.startswith("brivl-search") for line in run):  # a page may begin in the middle of the story
        built = run_here("build-index", "images", "photos")
        assert built.code == 0, built
    for line in run:
        if line.startswith("brivl-search"):
            ended = run_here(*program(line))
            assert ended.code == 0 and "Traceback" not in ended.err, (line, ended)
        else:
            assert shlex.split(line)[0] in {"brivl-search"}, f"{page}: {line}: run it, or say in ELSEWHERE why not"


def test_options_of_lines_that_are_not_run_exist(run_here: Callable[..., Ended]) -> None:
    known: dict[tuple[str, ...], str] = {}
    for block in blocks("bash"):
        for line in commands(block):
            if not (line.startswith("brivl-search") and elsewhere(line)):
                continue
            words = program(line)
            verb = tuple(words[:2] if words[0] == "models" else words[:1])
            if verb not in known:
                known[verb] = run_here(*verb, "--help").out
            for option in (word for word in words if re.match(r"--?[a-z]", word)):
                assert re.search(rf"(?<![\w-]){re.escape(option)}\b", known[verb]), (block.page, line, option)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: f"{block.page}-{len(block.text)}")
def test_python_blocks_run(
    block: Block,
    world: Path,
    tmp_path: Path,
    tiny_checkpoint: Path,
    run_here: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "class " in block.text:
        pytest.skip("the plug-in example: tests/encoders/test_plugins.py")
    here = tmp_path / "here"
    shutil.copytree(world, here)
    monkeypatch.chdir(here)
    built = run_here("build-index", "images", "--encoder", str(tiny_checkpoint))
    assert built.code == 0, built
    exec(compile(block.text, block.page, "exec"), {"__name__": "example"})
