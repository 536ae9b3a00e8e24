"""Every command in the documentation is run, in a small made-up world with the file names that it uses.

What cannot run here stands in `ELSEWHERE` with its reason. Of such a line is still checked what can be: that its verb,
its module and its options exist, its recipe takes its changes, and the files of the repository that it names are there.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.documents import Block, blocks, commands
from tests.support.folders import REPO
from tests.support.pictures import draw, write_corpus
from tests.support.site import Ended

# A line that begins so is not run; the reason says why, and what does run it.
ELSEWHERE = {
    "python3 -m venv": "an environment of its own: .ci/run",
    ".venv/bin/": "an environment of its own: .ci/run",
    ". .venv/bin/activate": "an environment of its own: .ci/run",
    "pip install": "the network: .ci/run",
    "make ": "runs the whole suite or a build: .ci/run runs the same commands",
    "curl ": "needs a server: test_requests_are_answered",
    "torchrun ": "several processes: tests/train/test_distributed.py",
    "python -m train.": "training: tests/train",
    "python benchmarks/": "minutes on an idle machine",
    "brivl-search demo": "tests/e2e/test_cli.py",
    "brivl-search serve": "stays open: tests/e2e/test_cli_serve.py",
}
WORDS = {  # the same for a line that holds this
    " hf:": "a model of the hub: tests/encoders/hf",
    " open_clip:": "a model of open_clip: tests/encoders/open_clip",
    "official:": "published weights: tests/encoders/brivl/official",
    '"hf:': "a model of the hub: tests/encoders/hf",
    "'hf:": "a model of the hub: tests/encoders/hf",
    "coco/": "a dataset that is not here: tests/corpus/readers",
    "laion": "a dataset that is not here: tests/corpus/readers",
    "Flickr30k-CN": "a dataset that is not here: tests/corpus/readers",
    "/tmp/val": "photos that are not here: tests/models",
    "--dataset FOLDER": "a placeholder",
    "--captioner runs/": "a captioner that is not here: tests/e2e/test_cli_caption.py",
    " --cluster ": "several hosts: tests/cluster/test_build.py",
    " --runtime ": "exports a tower first: tests/encoders/runtimes",
    " --rerank-with brivl-mini-rerank": "is for brivl-mini alone: tests/models/test_rerank.py",
    " --keep-regions ": "a trained matcher: tests/ingest/test_regions.py",
    "precision=int8": "exports a tower first: tests/encoders/runtimes",
    "models calibrate": "refuses an encoder without training: tests/encoders/test_calibration.py",
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


def not_run() -> list[tuple[str, str]]:
    """Page and line of every command that is not run here."""
    return [(block.page, line) for block in blocks("bash") for line in commands(block) if elsewhere(line)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("world")
    write_corpus(folder / "images", 12)
    write_corpus(folder / "photos/2024", 25)
    write_corpus(folder / "photos/private", 6)
    lines = [json.loads(line) for line in (folder / "photos/2024/captions.jsonl").read_text("utf-8").splitlines()]
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
    shutil.copytree(folder / "photos", folder / "moved")
    for name in ("my-model", "runs/my-model"):
        shutil.copytree(tiny_checkpoint, folder / name)
    (folder / "labels.txt").write_text("红色\tred\nblue\n", encoding="utf-8")
    (folder / "queries.txt").write_text('a dog\n{"text": "狗", "k": 3}\n', encoding="utf-8")
    (folder / "queries-gbk.txt").write_text("一只狗\n", encoding="gb18030")
    (folder / "more.txt").write_text("一只猫\n", encoding="utf-8")
    return folder


@pytest.fixture
def stand(
    world: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], Path]]:
    """Copies a world to the one folder where every test stands: an index knows the folders that it was built of."""
    place = world.with_name("here")

    def copy(what: Path) -> Path:
        shutil.copytree(what, place)
        monkeypatch.chdir(place)
        return place

    monkeypatch.setenv("BRIVL_SEARCH_ENCODER", str(tiny_checkpoint))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    yield copy
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(place)


@pytest.fixture
def here(world: Path, stand: Callable[[Path], Path]) -> Path:
    """A copy of the world to stand in."""
    return stand(world)


@pytest.fixture
def indexed(world: Path, stand: Callable[[Path], Path], run_here: Callable[..., Ended]) -> Path:
    """The same with its index: a page may begin in the middle of the story."""
    with_index = world.with_name("indexed")
    if with_index.exists():
        return stand(with_index)
    place = stand(world)
    built = run_here("build-index", "images", "photos")
    assert built.code == 0, built
    shutil.copytree(place, with_index)
    return place


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("bash")}))
def test_the_commands_of_a_page_run(page: str, indexed: Path, run_here: Callable[..., Ended]) -> None:
    run = [line for block in blocks("bash") if block.page == page for line in commands(block) if not elsewhere(line)]
    for line in run:
        assert line.startswith("brivl-search "), f"{page}: {line}: run it, or say in ELSEWHERE why not"
        ended = run_here(*program(line))
        assert ended.code == 0 and "Traceback" not in ended.err, (line, ended)


def test_every_reason_not_to_run_is_needed() -> None:
    lines = [line for _, line in not_run()]
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []
    assert [word for word in WORDS if not any(word in line for line in lines)] == []


def test_options_of_lines_that_are_not_run_exist(run_here: Callable[..., Ended]) -> None:
    known: dict[tuple[str, ...], str] = {}
    for page, line in not_run():
        if not line.startswith("brivl-search "):
            continue
        words = program(line)
        verb = tuple(words[:2] if words[0] == "models" else words[:1])
        if verb not in known:
            known[verb] = run_here(*verb, "--help").out
        for option in (word for word in words if re.match(r"--?[a-z]", word)):
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", known[verb]), (page, line, option)


def test_scripts_their_options_and_changes_of_recipes_exist() -> None:
    checked = set()
    for page, line in not_run():
        if not (found := re.search(r"-m (train\.[\w.]+)|python (benchmarks/\w+\.py)", line)):
            continue
        spec = importlib.util.find_spec(found[1]) if found[1] else None
        script = Path(spec.origin or "") if spec else REPO / (found[2] or "nothing")
        assert script.is_file(), (page, line)
        words = shlex.split(line[found.end() :], comments=True)
        text = script.read_text(encoding="utf-8")
        if "asked(__doc__," in text:  # the command line that trainings share
            text += (REPO / "train" / "run" / "command.py").read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in text, (page, line, option)
        if script.stem in {"pretrain", "distill"}:
            changes = [change for word, change in pairwise(words) if word == "--set"]
            recipe = words[0] if words[0].startswith("train/recipes/") else "train/recipes/brivl-mini.toml"
            _read(REPO / recipe, changes, script.stem)
        checked.add(script.stem)
    assert {"pretrain", "distill", "soup", "prepare", "pack", "search", "serve"} <= checked


def _read(recipe: Path, changes: list[str], script: str) -> None:
    """The recipe with the changes; raises where a key or a value is not known."""
    pytest.importorskip("pydantic")
    from train.recipe import Recipe, TextRecipe, read_recipe

    read_recipe(recipe, changes, Recipe if script == "pretrain" else TextRecipe)


def test_files_of_the_repository_that_lines_name_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page, line in not_run():
        words = shlex.split(line, comments=True)
        for word in words:
            if re.match(r"(tests|train|benchmarks|brivl_search|\.ci)/", word):
                assert (REPO / word).exists(), (page, line, word)
        assert words[0] != "make" or words[1] in targets, (page, line)


def test_requests_are_answered(here: Path, tmp_path: Path) -> None:
    """Each curl line by the real curl, from a server with an index of drawn pictures."""
    pytest.importorskip("uvicorn")
    if not (curl := shutil.which("curl")):
        pytest.skip("no curl")
    from brivl_search.server import Settings, create_app
    from tests.support.serving import open_engine, running, write_site

    lines = [line for _, line in not_run() if line.startswith("curl ")]
    assert len(lines) >= 2
    with running(create_app(open_engine(write_site(tmp_path / "site")), Settings(decoders=1))) as address:
        for line in lines:
            words = shlex.split(line.replace("localhost:8000", address))
            done = subprocess.run([curl, "-sS", *words[1:]], cwd=here, capture_output=True, timeout=60)
            assert done.returncode == 0, (line, done.stderr)
            assert json.loads(done.stdout)["hits"], (line, done.stdout)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: f"{block.page}-{len(block.text)}")
def test_python_blocks_run(block: Block, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "class " in block.text:
        pytest.skip("the plug-in example: tests/encoders/test_plugins.py")
    shard = next((indexed / "indexes/default/shards").glob("image-*.lmdb"))
    monkeypatch.setattr("sys.argv", ["example", str(shard)])
    exec(compile(block.text, block.page, "exec"), {"__name__": "example"})


def test_data_in_the_pages_can_be_read() -> None:
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("toml"):
        tomllib.loads(block.text)
