"""The verbs that change an index, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from brivl_search.cli.app import byte_count
from brivl_search.errors import UsageError
from tests.support.pictures import write_corpus
from tests.support.site import Ended, refused, run

Cli = Callable[..., Ended]


@pytest.fixture
def copy(site: Path, tmp_path: Path) -> str:
    shutil.copytree(site / "index", tmp_path / "index")
    return str(tmp_path / "index")


def count(cli: Cli, index: str) -> tuple[int, int]:
    facts = json.loads(cli("info", "--index", index).out)
    return facts["image"]["rows"], facts["text"]["rows"]


def test_add_remove_sync_compact(cli: Cli, copy: str, tmp_path: Path) -> None:
    more = write_corpus(tmp_path / "more", 3, size=(80, 80))
    added = cli("add", str(tmp_path / "more"), "--index", copy)
    assert added.code == 0 and added.out == "" and "3 images found: 3 embedded" in added.err
    assert count(cli, copy) == (33, 132)
    removed = cli("remove", str(more[0]), "--index", copy)
    assert removed.code == 0 and "1 images and 4 captions removed" in removed.err
    assert cli("remove", "--under", str(tmp_path / "more" / "images"), "--index", copy).code == 0
    assert count(cli, copy) == (30, 120)
    synced = cli("sync", "--index", copy, "-q")
    assert (synced.code, synced.err) == (0, "") and count(cli, copy) == (33, 132)  # every folder it knows
    compacted = cli("compact", "--index", copy)
    assert compacted.code == 0 and "Traceback" not in compacted.err
    assert cli("verify", "--index", copy).code == 0


def test_refusals(cli: Cli, copy: str, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    for verb in (["remove", "x"], ["compact"], ["tune"], ["sync"], ["export", str(tmp_path / "out")]):
        refused(cli(*verb, "--index", none), 3, "no index at", "build-index")
    refused(cli("remove", "x.jpg", "--index", copy), 2, "x.jpg is not in the index: nothing was removed")
    refused(cli("remove", "--index", copy), 2, "--under or --key")
    refused(cli("add", "gone.jpg", "--index", copy), 2, "cannot add gone.jpg", "check the path")
    refused(cli("tune", "--index", copy), 2, "nothing to tune")
    refused(cli("tune", "--queries", none, "--index", copy), 2, "--queries")
    refused(cli("compact", "--memory", "much", "--index", copy), 2, "--memory much: give a size such as 500M")
    refused(cli("import", "--index", copy), 2, "give either a FOLDER")
    refused(cli("import", none, "--index", copy), 2, "no folder that export wrote")


def test_export_and_import(cli: Cli, copy: str, tmp_path: Path) -> None:
    out, again = str(tmp_path / "out"), str(tmp_path / "again")
    assert cli("export", out, "--to", "jsonl", "--index", copy).code == 0
    assert cli("import", out, "--index", again).code == 0
    query = ("query", "红色圆形", "-k", "4", "--index")
    assert cli(*query, again).out == cli(*query, copy).out != ""
    refused(cli("export", out, "--index", copy), 2, "exists")


def test_help_and_verbs_without_models(site: Path, copy: str) -> None:
    """What changes records only needs no torch."""
    code = (
        "import sys; sys.argv = ['brivl-search', 'remove', '--under', 'photos', '--index', sys.argv[1]]\n"
        "from brivl_search.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'faiss'} & set(sys.modules), sorted(sys.modules)\n"
    )
    import subprocess
    import sys

    from tests.support.stub import environment

    done = subprocess.run(
        [sys.executable, "-c", code, copy], cwd=site, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_damaged_shard_is_mended(site: Path, copy: str) -> None:
    shard = next((Path(copy) / "shards").glob("text-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    found = run(site, "query", "red", "--index", copy)
    assert found.code == 0 and found.out and "warning: not searched" in found.err and shard.name in found.err
    broken = run(site, "verify", "--index", copy)
    assert broken.code == 3 and shard.name in broken.err and "verify --repair" in broken.err
    mended = run(site, "verify", "--repair", "--index", copy)
    assert mended.code == 0 and f"dropped {shard.name}: 120 items" in mended.err
    assert "120 captions: 120 embedded" in run(site, "sync", "--index", copy).err
    assert run(site, "verify", "--index", copy).code == 0


@pytest.mark.parametrize(("text", "size"), [("2G", 2 << 30), ("1.5 MiB", 3 << 19), ("700", 700), ("3kb", 3072)])
def test_byte_count(text: str, size: int) -> None:
    assert byte_count("--memory", text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "2X", "0"])
def test_byte_count_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        byte_count("--memory", text)
