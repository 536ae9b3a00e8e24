"""Errors speak to every user: they name arguments, not options, and have codes that are known."""

from __future__ import annotations

import ast
import errno
import importlib.metadata
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from brivl_search.errors import BrivlSearchError, ImageError, UsageError, install_hint, system_error
from tests.support.folders import REPO

PACKAGE = REPO / "brivl_search"
OPTION = re.compile(r"(?<!\S)--[a-z]|`--[a-z]|\(--[a-z]")
OF_THE_COMMAND_LINE = {"cli", "output"}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8"))


def said(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each string that is no docstring; an f-string is one text, without its values."""
    passed_over = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed_over.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            texts = [part for part in node.values if isinstance(part, ast.Constant)]
            passed_over |= {id(part) for part in texts}
            yield node.lineno, "…".join(str(part.value) for part in texts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed_over:
            yield node.lineno, node.value


def test_no_message_of_the_library_names_an_option() -> None:
    found = [
        f"{path}:{line}: {text}"
        for path, tree in sources()
        if path.parts[0] not in OF_THE_COMMAND_LINE
        for line, text in said(tree)
        if OPTION.search(re.sub(r"`(hf download|ray start) .*?`", "", text))  # another program's
    ]
    assert not found, "\n".join(found)


def given(tree: ast.Module) -> Iterator[str]:
    """The codes that errors, refusals and reasons are made with."""
    position = {"Refusal": 2, "Reason": 1, "too_many": 3}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            at = position.get(getattr(node.func, "id", ""), 99)
            found = [word.value for word in node.keywords if word.arg == "code"] + node.args[at : at + 1]
            yield from (one.value for one in found if isinstance(one, ast.Constant))


def test_codes_are_known_and_used() -> None:
    pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")
    from brivl_search.server.protocol.codes import CODES, TYPES

    used = {
        text
        for path, tree in sources()
        if path != Path("server/protocol/codes.py")
        for _, text in said(tree)
        if text in CODES
    }
    assert set(CODES) - used - set(TYPES.values()) == set()
    assert {code for _, tree in sources() for code in given(tree)} <= set(CODES)


def test_errors_cross_processes_whole() -> None:
    error = UsageError("`k` is 0", code="bad_k", details={"k": 0})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.details) == (str(error), "bad_k", {"k": 0})
    image = pickle.loads(pickle.dumps(ImageError("truncated", "at byte 7")))
    assert (image.reason, image.detail, image.code) == ("truncated", "at byte 7", "picture")
    assert image.details == {"reason": "truncated", "detail": "at byte 7"}
    assert (BrivlSearchError("x").code, BrivlSearchError("x").details) == ("", {})


@pytest.mark.parametrize(
    ("origin", "here", "hint"),
    [
        ({"url": "file://{clone}", "dir_info": {"editable": True}}, "elsewhere", "pip install -e '{clone}[serve]'"),
        ({"url": "file://{clone}", "dir_info": {"editable": True}}, "clone", "pip install -e '.[serve]'"),
        ({"url": "file://{clone}", "dir_info": {}}, "clone", "pip install '.[serve]'"),
        ({"url": "file://{clone}/gone", "dir_info": {}}, "clone", "pip install 'brivl-search[serve]'"),
        ({"url": "file:///tmp/a.whl", "archive_info": {}}, "clone", "pip install 'brivl-search[serve]'"),
        (None, "clone", "pip install 'brivl-search[serve]'"),
    ],
)
def test_the_hint_fits_how_it_was_installed(
    origin: dict[str, object] | None, here: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "a clone"
    (tmp_path / "elsewhere").mkdir()
    clone.mkdir()
    (clone / "pyproject.toml").write_text("")
    monkeypatch.chdir(clone if here == "clone" else tmp_path / "elsewhere")
    told = None if origin is None else json.dumps(origin).replace("{clone}", str(clone).replace(" ", "%20"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: SimpleNamespace(read_text=lambda file: told))
    assert install_hint("serve") == hint.replace("{clone}", str(clone))


class _LmdbError(Exception):
    """What LMDB's binding raises, by its name and module."""


_LmdbError.__module__ = "lmdb"


def free(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    facts = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_blocks=10**8)
    monkeypatch.setattr(os, "statvfs", lambda place: facts, raising=False)


@pytest.mark.parametrize(
    ("blocks", "limit", "says"),
    [(0, -1, errno.ENOSPC), (1000, -1, errno.ENOSPC), (10**6, 10**6, errno.EFBIG), (10**6, -1, errno.EIO)],
)
def test_a_write_that_was_cut_short_names_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, limit: int, says: int
) -> None:
    """LMDB calls each of them an input/output error."""
    resource = pytest.importorskip("resource")
    free(monkeypatch, blocks)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    for error in (_LmdbError("mdb_txn_commit: Input/output error"), OSError(errno.EIO, "Input/output error")):
        known = system_error(error, tmp_path / "not" / "there")
        assert known is not None and str(known).startswith(f"{os.strerror(says)} ({tmp_path}/not/there): ")
        assert known.code == ("disk_full" if says == errno.ENOSPC else "")


def test_other_errors_of_the_system() -> None:
    full = system_error(OSError(errno.EDQUOT, "Disk quota exceeded", "/x"))
    assert full is not None and "(/x)" in str(full) and full.code == "disk_full" and "space" in str(full)
    memory = system_error(MemoryError("Unable to allocate 8 TiB"))
    assert memory is not None and str(memory).startswith("not enough memory (Unable to allocate 8 TiB): ask for less")
    weights = type("SafetensorError", (Exception,), {"__module__": "safetensors._safetensors_rust"})
    said = system_error(weights("Error while serializing: I/O error: No space left on device (os error 28)"), "/x/run")
    assert said is not None and said.code == "disk_full" and str(said).startswith("No space left on device (/x/run)")
    cut = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")  # of torch.save
    torchs = system_error(cut, "/x/run")
    assert torchs is not None and "(/x/run)" in str(torchs) and "free some space" in str(torchs)
    assert system_error(RuntimeError("inline_container.cc: PytorchStreamReader failed reading zip archive")) is None
    assert system_error(weights("Error while deserializing header: header too large")) is None
    assert system_error(ValueError("x")) is None and system_error(OSError(errno.ENOTDIR, "x")) is None


@pytest.mark.parametrize("folder", ["there", "file", "nowhere"])
def test_a_name_that_no_file_can_have(folder: str, tmp_path: Path) -> None:
    from brivl_search.corpus.generated import captions_file
    from brivl_search.output.contact_sheet import write_contact_sheet
    from brivl_search.transfer.vector_file import VectorFile

    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    at = tmp_path / folder / ("x" * 248 if folder == "there" else "x")  # with what a temporary name adds: too long
    with pytest.raises(UsageError, match="in a folder that you can write to") as error:
        captions_file(at.with_suffix(".jsonl"), "a captioner").__enter__()
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="in a folder that you can write to"):
        VectorFile(at.with_suffix(".npy"), 4, "float32")
    with pytest.raises(UsageError, match="in a folder that you can write to"):
        write_contact_sheet(at.with_suffix(".html"), "a dog", [])
    assert [path.name for path in tmp_path.rglob("*")] in (["there", "file"], ["file", "there"])
