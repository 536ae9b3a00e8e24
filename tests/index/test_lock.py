"""The writer's lock: one at a time, whoever forks, and on systems without flock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brivl_search.errors import IndexBusyError
from brivl_search.index.lock import WriterLock, is_locked, lock_path

BOTH = """
import sys, types
if "windows" in sys.argv:
    class Msvcrt(types.ModuleType):
        LK_NBLCK, LK_UNLCK = 2, 0
        def locking(self, handle, mode, size):
            import posix, os
            at = os.lseek(handle, 0, 1)
            import fcntl_for_the_test as real
            kind = real.LOCK_UN if mode == self.LK_UNLCK else real.LOCK_EX | real.LOCK_NB
            real.lockf(handle, kind, size, at)
    import fcntl
    sys.modules["fcntl_for_the_test"] = fcntl
    sys.modules["fcntl"] = None
    sys.modules["msvcrt"] = Msvcrt("msvcrt")
    import os, random, tempfile, concurrent.futures.thread, logging
    del os.register_at_fork
from pathlib import Path
import brivl_search.index.lock as lock
where = Path(sys.argv[1])
held = lock.WriterLock(where)
print("held", flush=True)
sys.stdin.readline()
held.release()
print("free", lock.is_locked(where), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("system", ["posix", "windows"])
def test_a_second_writer_is_told_who_writes(system: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BOTH, str(tmp_path), system]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdin is not None and first.stdout is not None
    assert first.stdout.readline() == "held\n"
    assert lock_path(tmp_path).read_text() == f"{first.pid}\n"
    second = subprocess.run(command, input="\n\n", capture_output=True, text=True)
    assert f"another build is writing {tmp_path} (pid {first.pid})" in second.stderr
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "free False\n"
    assert subprocess.run(command, input="\n\n", capture_output=True, text=True).stdout == "held\nfree False\n"
    first.communicate("\n")


def test_a_kill_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BOTH, str(tmp_path), "posix"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert is_locked(tmp_path)
        with pytest.raises(IndexBusyError):
            WriterLock(tmp_path)
        process.kill()
    assert not is_locked(tmp_path)
    WriterLock(tmp_path).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_changes_nothing_by_letting_go(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = open(tmp_path / "own.txt", "w+")  # it gets the number of the handle that the child closed  # noqa: SIM115
            own.write("mine")
            own.flush()
            lock.release()
            own.seek(0)
            code = 0 if own.read() == "mine" else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert is_locked(tmp_path) and lock_path(tmp_path).read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)
