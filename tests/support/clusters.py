"""Hosts of a Ray cluster for tests: network namespaces of this machine that share its files and nothing of its network.

    hosts = Hosts("a", "b")
    hosts.start("a", cpus=1)            # the head
    hosts.start("b", cpus=1)
    hosts.run("a", "build-index", "photos", "--cluster", hosts.address)
    hosts.kill("b")                     # what the loss of a host is
    hosts.close()

It takes root. Everything a host runs ends with `kill` and `close`, by its process number.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.folders import REPO

STORE = 80_000_000  # bytes of an object store: the least that Ray takes, nothing of ours passes it


def environment(**more: str) -> dict[str, str]:
    """For processes of a cluster: this code, one thread, no reports of usage, no proxies."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("RAY_ADDRESS", None)
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    return {**kept, **ours, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def why_not() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of a cluster are network namespaces, which take root on Linux"
    if shutil.which("ip") is None:
        return "hosts of a cluster are network namespaces: install iproute2"
    name = f"bs{os.getpid()}t"
    made = (("netns", "add", name), ("link", "add", name, "type", "bridge"))
    pair = ("link", "add", f"{name}o", "type", "veth", "peer", "name", f"{name}i", "netns", name)
    tried = [subprocess.run(["ip", *words], capture_output=True, check=False).returncode for words in (*made, pair)]
    for words in (("link", "del", f"{name}o"), ("link", "del", name), ("netns", "del", name)):
        subprocess.run(["ip", *words], capture_output=True, check=False)
    return "network namespaces, bridges or veth pairs are not allowed here" if any(tried) else ""


class Hosts:
    """Hosts with a network of their own; the first is the head.

    Args:
        names: of the hosts, a letter or so each.
        env: added to the environment of everything that runs on them.

    Attributes:
        address: HOST:PORT of the head.
        folder: short, and seen by all hosts.
    """

    def __init__(self, *names: str, env: Mapping[str, str] | None = None) -> None:
        self.names, self.env = names, dict(env or {})
        self.folder = Path(tempfile.mkdtemp(prefix="bs-", dir="/tmp"))  # sockets' paths are short
        self.port = 20_000 + os.getpid() % 10_000  # Ray looks through all processes of the machine for a head's address
        self.address = f"{self.ip(names[0])}:{self.port}"
        self._bridge = f"bs{os.getpid()}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        for name in names:
            space, inside, outside = self._space(name), f"bi{os.getpid()}{name}", f"bo{os.getpid()}{name}"
            _ip("netns", "add", space)
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            _ip("link", "set", outside, "master", self._bridge, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{self.ip(name)}/24", "dev", inside)
            _ip("-n", space, "link", "set", inside, "up")

    def ip(self, name: str) -> str:
        """The address of a host; of a range for documentation, that nobody has."""
        return f"198.51.100.{self.names.index(name) + 1}"

    def _space(self, name: str) -> str:
        return f"bs{os.getpid()}{name}"

    def command(self, name: str, *words: str) -> list[str]:
        """A command as it runs on a host."""
        return ["ip", "netns", "exec", self._space(name), *words]

    def start(self, name: str, *, cpus: int = 1, resources: Mapping[str, float] | None = None) -> None:
        """Starts Ray on a host and waits until it is up."""
        temporary = self.folder / name
        temporary.mkdir(exist_ok=True)
        role = [f"--address={self.address}"]
        if name == self.names[0]:
            role = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={temporary}"]
        words = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            *role,
            f"--node-ip-address={self.ip(name)}",
            f"--num-cpus={cpus}",
            f"--object-store-memory={STORE}",
            f"--resources={json.dumps(dict(resources or {}))}",
            "--disable-usage-stats",
        ]
        done = subprocess.run(
            self.command(name, *words), env=environment(**self.env), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def popen(self, name: str, *arguments: str, module: str = "brivl_search", **env: str) -> subprocess.Popen[str]:
        """The command line, started on a host."""
        words = self.command(name, sys.executable, "-m", module, *arguments)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(words, env=environment(**self.env, **env), text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(
        self, name: str, *arguments: str, module: str = "brivl_search", timeout_s: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """The command line, run on a host to its end."""
        process = self.popen(name, *arguments, module=module, **env)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += "\n(timed out)"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def pids(self, name: str) -> list[int]:
        """All that runs on a host."""
        listed = subprocess.run(["ip", "netns", "pids", self._space(name)], capture_output=True, text=True, check=False)
        return [int(word) for word in listed.stdout.split()]

    def actors(self, *names: str) -> list[int]:
        """Workers of builds that run on the hosts."""
        found = []
        for pid in (pid for name in names for pid in self.pids(name)):
            with suppress(OSError):
                if b"ray::Worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill(self, name: str) -> None:
        """Ends all that runs on a host, at once."""
        until = time.monotonic() + 10
        while (pids := self.pids(name)) and time.monotonic() < until:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        """Ends everything and takes the network away."""
        for name in self.names:
            self.kill(name)
            _ip("netns", "del", self._space(name), check=False)
        _ip("link", "del", self._bridge, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def _ip(*words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
