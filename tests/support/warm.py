"""The command line as a process of its own that starts at once: forked from one that has imported everything already.

    ended = run_warm("brivl_search", ["info", "-i", "index"], cwd=folder, env=environment(), timeout=60)

Imports of torch and transformers take longer than a short command does. One process for all test processes imports
them, opens no index and starts no thread; a command is a child of it with a working directory, environment, streams
and arguments of its own. Where `fork` is not to be had, an ordinary process runs.
"""

from __future__ import annotations

import array
import atexit
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.support.folders import REPO

_started: list[subprocess.Popen[bytes]] = []
PRELOADED = ("torch", "transformers", "transformers.models.bert.modeling_bert", "timm", "faiss", "lmdb", "PIL.Image")


class Warm:
    """`python -m module arguments`, started; at the end of its context it is killed if it still runs.

    With the module "-c" the first argument is the program itself.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], given: bytes = b""
    ) -> None:
        self.command = [sys.executable, "-m", module, *arguments]
        wanted = {"module": module, "arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        with ExitStack() as stack:
            self._out = stack.enter_context(tempfile.TemporaryFile())
            self._err = stack.enter_context(tempfile.TemporaryFile())
            read = stack.enter_context(tempfile.TemporaryFile())
            read.write(given), read.seek(0)
            self._line = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._line.connect(_address())
            files = array.array("i", [file.fileno() for file in (read, self._out, self._err)])
            self._line.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
            self._line.sendall(json.dumps(wanted).encode("ascii") + b"\n")
            self._answers = stack.enter_context(self._line.makefile("rb"))
            self.pid = int(self._answer()["pid"])  # it leads a session, so `os.killpg` reaches its children too
            self._open = stack.pop_all()

    def _answer(self) -> dict[str, int]:
        answer = self._answers.readline()
        assert answer, "the process that starts commands has ended"
        found: dict[str, int] = json.loads(answer)
        return found

    def send(self, number: signal.Signals) -> None:
        """Signals it; nothing happens where it has just ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self._line], [], [], 0)[0]

    def wait(self, timeout: float) -> subprocess.CompletedProcess[bytes]:
        """How it ended, and what it printed.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds; it is killed.
        """
        self._line.settimeout(timeout)
        try:
            code = self._answer()["code"]
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.command, timeout) from None
        self._out.seek(0), self._err.seek(0)
        return subprocess.CompletedProcess(self.command, code, self._out.read(), self._err.read())

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()  # without the line, whoever watches kills the process


def run_warm(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """`python -m module arguments` with `given` to read; what it printed is captured.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds; it is killed.
    """
    if not hasattr(os, "fork"):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=cwd, env=env, input=given, capture_output=True, timeout=timeout)
    with Warm(module, arguments, cwd=cwd, env=env, given=given) as process:
        return process.wait(timeout)


def instead_of_run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """What stands in for `subprocess.run` of `python -m MODULE ...` or `python -c CODE ...`; it captures in any case.

    Raises:
        subprocess.CalledProcessError: with `check`: it failed.
    """
    assert command[0] == sys.executable and command[1] in ("-m", "-c"), command
    module, *arguments = command[2:] if command[1] == "-m" else command[1:]
    env, given = options.get("env") or os.environ, options.get("input") or ""
    cwd = Path(options.get("cwd") or Path.cwd())
    raw = run_warm(module, arguments, cwd=cwd, env=env, timeout=240, given=given.encode())
    done = subprocess.CompletedProcess(command, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
    if options.get("check"):
        done.check_returncode()
    return done


def run_processes(function: str, arguments: Sequence[Any], *, timeout: float = 240) -> None:
    """Two processes as `torchrun` starts them, each calling `package.module.function(rank, *arguments)`.

    Raises:
        AssertionError: one of them failed; holds what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def start(rank: str) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        call = [function, json.dumps([int(rank), *arguments])]
        return run_warm("tests.support.warm", call, cwd=REPO, env=env, timeout=timeout)

    _address()  # before the threads
    with ThreadPoolExecutor(2) as threads:
        for done in threads.map(start, ("0", "1")):
            assert done.returncode == 0, done.stderr.decode()[-2000:]


@functools.cache
def _address() -> str:
    """Where the process that forks listens.

    The first call starts it. All workers of pytest-xdist share it, and it ends with their parent; without them, with
    this process.
    """
    import fcntl

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(tempfile.gettempdir()) / f"brivl-warm-{run}" if run else Path(tempfile.mkdtemp(prefix="brivl-warm-"))
    folder.mkdir(exist_ok=True)
    address, user = folder / "s", os.getppid() if run else os.getpid()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            parent = subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm", "--serve", str(address), str(user)],
                cwd=REPO,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the tests
            )
            _started.append(parent)
            assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    return str(address)


def _serve(address: Path, user: int) -> None:
    gc.disable()
    for name in PRELOADED:
        __import__(name)
    gc.freeze()  # a child that collects does not touch, and so copy, all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    user_ends = os.pidfd_open(user)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, user_ends], [], [])
            if user_ends in ready:
                break
            line, _ = listening.accept()
            if not os.fork():
                listening.close()
                _watch(line)
            line.close()
    shutil.rmtree(address.parent, ignore_errors=True)


def _watch(line: socket.socket) -> None:
    """In a child: run one command in a child of its own, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = line.recvmsg(1, socket.CMSG_SPACE(12))
    streams = array.array("i", files[0][2])
    wanted = json.loads(line.makefile("rb").readline())
    pid = os.fork()
    if not pid:
        line.close()
        os.setsid()
        _become(wanted, streams)
    line.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    line.setblocking(False)
    watch = os.pidfd_open(pid)
    ready, _, _ = select.select([watch, line], [], [])
    if watch not in ready:  # nobody waits any more
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    line.setblocking(True)
    line.sendall(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}).encode() + b"\n")
    os._exit(0)


def _become(wanted: dict[str, Any], streams: Sequence[int]) -> None:
    """Run the command in this process, and end it."""
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests begun with & inherit none
    for target, source in enumerate(streams):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding, errors or "strict")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding, "backslashreplace", line_buffering=True)
    code: object = 0
    try:
        os.chdir(wanted["cwd"])
        module, arguments = wanted["module"], wanted["arguments"]
        if module == "-c":
            sys.argv = ["-c", *arguments[1:]]
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(int(code or 0))  # type: ignore[call-overload]


def _call(function: str, arguments: str) -> None:
    module, _, name = function.rpartition(".")
    getattr(importlib.import_module(module), name)(*json.loads(arguments))


if __name__ == "__main__":
    _serve(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "--serve" else _call(*sys.argv[1:])
