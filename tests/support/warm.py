"""The command line as a process of its own that starts at once: forked from one that has imported everything already.

    ended = run_warm("brivl_search", ["info", "-i", "index"], cwd=folder, env=environment(), timeout=60)

Imports of torch and transformers take longer than a short command does. One process for each test process imports
them, opens no index and starts no thread; a command is a child of it with a working directory, environment, streams
and arguments of its own. Where `fork` is not to be had, an ordinary process runs.
"""

from __future__ import annotations

import array
import atexit
import functools
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.folders import REPO

PRELOADED = ("torch", "transformers", "transformers.models.bert.modeling_bert", "timm", "faiss", "lmdb", "PIL.Image")


def run_warm(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[bytes]:
    """`python -m module arguments` with nothing to read; what it printed is captured.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds; it is killed.
    """
    command = [sys.executable, "-m", module, *arguments]
    if not hasattr(os, "fork"):
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, timeout=timeout)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as line:
        line.connect(_address())
        line.settimeout(timeout)
        wanted = {"module": module, "arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        files = array.array("i", [out.fileno(), err.fileno()])
        line.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        line.sendall(json.dumps(wanted).encode("ascii") + b"\n")
        try:
            answer = line.makefile("rb").readline()
        except TimeoutError:
            raise subprocess.TimeoutExpired(command, timeout) from None  # closing the line has the child killed
        assert answer, "the process that starts commands has ended"
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(command, json.loads(answer)["code"], out.read(), err.read())


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
    """Where the process that forks listens; it is started at the first call and ends with this one."""
    folder = tempfile.mkdtemp(prefix="brivl-warm-")
    address = os.path.join(folder, "s")
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm", address],
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdin is not None and parent.stdout is not None
    atexit.register(parent.kill)
    assert parent.stdout.readline() == b"ready\n"
    return address


def _serve(address: str) -> None:
    for name in PRELOADED:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            line, _ = listening.accept()
            if not os.fork():
                listening.close()
                _watch(line)
            line.close()


def _watch(line: socket.socket) -> None:
    """In a child: run one command in a child of its own, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = line.recvmsg(1, socket.CMSG_SPACE(8))
    out, err = array.array("i", files[0][2])
    wanted = json.loads(line.makefile("rb").readline())
    pid = os.fork()
    if not pid:
        line.close()
        _become(wanted, out, err)
    line.setblocking(False)
    watch = os.pidfd_open(pid)
    ready, _, _ = select.select([watch, line], [], [])
    if watch not in ready:  # nobody waits any more
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    line.setblocking(True)
    line.sendall(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}).encode() + b"\n")
    os._exit(0)


def _become(wanted: dict[str, Any], out: int, err: int) -> None:
    """Run the command in this process, and end it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(wanted["env"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding, errors or "strict")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding, "backslashreplace", line_buffering=True)
    code: object = 0
    try:
        os.chdir(wanted["cwd"])
        sys.argv = [wanted["module"], *wanted["arguments"]]
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
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
    _serve(sys.argv[1]) if len(sys.argv) == 2 else _call(*sys.argv[1:])
