"""What Windows lacks, taken away from this system: an imitation. Windows itself was never tried."""

from __future__ import annotations

import ntpath
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brivl_search.index import sources
from brivl_search.index.moves import Moves
from tests.support.pictures import write_corpus
from tests.support.stub import environment

LACKS = """
import os, signal, subprocess, sys, types

class Msvcrt(types.ModuleType):
    LK_NBLCK, LK_UNLCK = 2, 0

    def locking(self, handle, mode, size):
        kind = real.LOCK_UN if mode == self.LK_UNLCK else real.LOCK_EX | real.LOCK_NB
        real.lockf(handle, kind, size, os.lseek(handle, 0, 1))

import fcntl as real
import multiprocessing.synchronize, tempfile  # these ask for what is taken away below
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
sys.modules["msvcrt"] = Msvcrt("msvcrt")
posix = "fork register_at_fork pread posix_fallocate statvfs nice O_NONBLOCK geteuid getuid"
for name in posix.split():
    if hasattr(os, name):
        delattr(os, name)
for name in ("alarm", "SIGALRM", "pthread_sigmask", "SIGXFSZ", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
"""


@pytest.mark.slow
def test_build_query_and_info_without_posix(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LACKS)
    write_corpus(tmp_path / "photos", 6)
    settings = environment()
    settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "site"), settings.get("PYTHONPATH", "")])

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.support.stub", *arguments, "--index", str(tmp_path / "ix")]
        return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)

    for arguments, said in (
        (("build-index", str(tmp_path / "photos"), "--workers", "1"), "6 images found: 6 embedded"),
        (("build-index", str(tmp_path / "photos"), "--workers", "1"), "6 unchanged"),
        (("query", "a red circle", "--format", "paths"), "red-circle"),
        (("info", "--format", "table"), "6 rows"),
        (("sync", "--workers", "0"), "6 unchanged"),
    ):
        done = cli(*arguments)
        assert done.returncode == 0 and said in done.stdout + done.stderr, done
        assert "Traceback" not in done.stderr


def test_keys_with_backslashes_move(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = Moves().moved("C:\\photos", "D:\\pictures")
    assert moves.here("C:\\photos\\2024\\a.jpg\0zh\0abc") == "D:\\pictures\\2024\\a.jpg\0zh\0abc"
    assert moves.stored("D:\\pictures\\a.jpg") == "C:\\photos\\a.jpg"
    assert moves.here("C:\\photosets\\a.jpg") == "C:\\photosets\\a.jpg"
    assert moves.here("C:\\photos\\x.tar::a.jpg") == "D:\\pictures\\x.tar::a.jpg"
    monkeypatch.setattr(sources.os, "sep", "\\")
    source = sources.Source("dataset", "C:\\photos\\x.tar", covers=("C:\\photos\\x.tar::", "C:\\photos\\"))
    assert source.mapped(moves.here).covers == ("D:\\pictures\\x.tar::", "D:\\pictures\\")


def test_another_drive_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.index import moves

    monkeypatch.setattr(moves.os, "path", ntpath)
    monkeypatch.setattr(ntpath, "realpath", lambda path: path)
    assert moves.beside("C:\\ix", "D:\\photos") == ""
    assert moves.beside("C:\\disk\\ix", "C:\\disk\\photos") == "..\\photos"
