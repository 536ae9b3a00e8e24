"""Connecting to a Ray cluster, or starting one on this machine: what fails says so in one line, within seconds.

    with connect("10.0.0.1:6379") as session:
        session.hosts()

Ray sends usage data to its makers unless it is told not to. It is told so before it is imported.
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import queue
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from brivl_search.errors import BrivlSearchError, DependencyError, UsageError, install_hint

AUTO, LOCAL = "auto", "local"
ANSWER_S = 5.0  # how long an address may take to answer
LOST_AFTER = 8  # probes of the head in a row, one a second, that find nobody
_START = "start Ray there (`ray start --head --port 6379`), or give `cluster` another HOST:PORT"


@dataclass(frozen=True)
class Host:
    """A host of the cluster.

    Attributes:
        node: Ray's number of it.
        name: its address, or its name where several hosts have one address.
        cpus, gpus: that Ray may give away there.
        labels: custom resources, such as {"group3": 1.0}.
    """

    node: str
    name: str
    cpus: float
    gpus: float
    labels: Mapping[str, float] = field(default_factory=dict)


class Session:
    """A connection to a cluster; made by `connect`.

    Attributes:
        ray: the module.
        address: HOST:PORT of the cluster's head.
    """

    def __init__(self, ray: Any, address: str) -> None:
        self.ray, self.address = ray, address
        self._lost = threading.Event()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._probe, name="cluster-head", daemon=True)
        self._watch.start()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="cluster-calls", daemon=True).start()

    def _serve(self) -> None:
        while True:
            call, outcome = self._calls.get()
            try:
                outcome.set_result(call())
            except BaseException as error:
                outcome.set_exception(error)

    def do(self, call: Callable[[], Any]) -> Any:
        """A call of Ray's, which a lost head would keep for a minute and then end the process.

        Raises:
            BrivlSearchError: the head is lost.
            Exception: what the call raises.
        """
        outcome: Future[Any] = Future()
        self._calls.put((call, outcome))
        while True:
            self.check()
            try:
                return outcome.result(timeout=0.5)
            except TimeoutError:
                if outcome.done():
                    raise

    def _probe(self) -> None:
        missed = 0
        while not self._over.wait(1.0):
            missed = 0 if _listens(self.address, 1.0) is None else missed + 1
            if missed >= LOST_AFTER:
                self._lost.set()
                return

    @property
    def is_lost(self) -> bool:
        """Whether the head has not answered for `LOST_AFTER` seconds. Ray's own calls may then wait for minutes."""
        return self._lost.is_set()

    def hosts(self) -> list[Host]:
        """The hosts that are alive now.

        Raises:
            BrivlSearchError: the head is lost.
        """
        found = []
        for node in self.do(self.ray.nodes):
            if node["Alive"]:
                have = node["Resources"]
                own = {key: n for key, n in have.items() if key not in _USUAL and not key.startswith(_INTERNAL)}
                name = str(node["NodeManagerAddress"])
                found.append(Host(node["NodeID"], name, have.get("CPU", 0.0), have.get("GPU", 0.0), own))
        return sorted(found, key=lambda host: (host.name, host.node))

    def check(self) -> None:
        """Raises BrivlSearchError: the head is lost."""
        if self.is_lost:
            raise BrivlSearchError(
                f"the head of the cluster at {self.address} does not answer any more: start Ray again and run the same "
                "command; what was finished is kept"
            )

    def close(self) -> None:
        """Leaves the cluster; a local one ends."""
        self._over.set()
        if self.is_lost:  # Ray would wait for it, now and at the end of the process, and then crash it
            atexit.register(_end_at_once)
            return
        leaving = threading.Thread(target=_leave, args=(self.ray,), daemon=True)
        leaving.start()
        leaving.join(10.0)  # a head that was lost just now would keep it longer


_USUAL = {"CPU", "GPU", "memory", "object_store_memory"}
_INTERNAL = ("node:", "accelerator_type:")


def _leave(ray: Any) -> None:
    with suppress(Exception):
        ray.shutdown()


def _end_at_once() -> None:
    """The end of a process whose threads of Ray wait for a lost head: with 1, as its last line said."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(1)


def import_ray() -> Any:
    """The module, with its reports of usage switched off.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; silences its warning
    try:
        import ray
    except ImportError as error:
        raise DependencyError(f"`cluster` needs Ray: {install_hint('ray')}") from error
    return ray


@contextmanager
def connect(address: str = AUTO, *, runtime_env: Mapping[str, Any] | None = None) -> Iterator[Session]:
    """Joins a cluster for the length of a `with`.

    Args:
        address: HOST:PORT of the head; "auto": the one of RAY_ADDRESS, or that runs on this machine; "local": one is
            started for this process alone.
        runtime_env: of the job, as Ray's; None: hosts have all that is needed.

    Raises:
        DependencyError: Ray is not installed.
        UsageError: the address is none.
        BrivlSearchError: nobody answers, what answers is not Ray's head, this machine is no host of the cluster, or the
            cluster is of another version of Ray or Python.
    """
    given = (address or AUTO).strip()
    if given == AUTO:
        given = os.environ.get("RAY_ADDRESS", "").strip() or AUTO
    if given not in (AUTO, LOCAL):
        given = _host_and_port(given)
    if given == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        # else Ray would leave a token in the user's home, for all that comes; it reads these when it is imported
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray = import_ray()
    if given == AUTO:
        given = _running_here()
    if given != LOCAL:
        _reach(given)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"runtime_env": dict(runtime_env)} if runtime_env else {}
    if given == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": 128 << 20}
    try:
        ray.init(
            address=given,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
            **options,
        )
    except Exception as error:
        _leave(ray)
        raise _why(error, given) from error
    session = Session(ray, str(ray.get_runtime_context().gcs_address))
    try:
        yield session
    finally:
        session.close()


def _host_and_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if "://" in text:
        raise UsageError(
            f"`cluster` {text}: give HOST:PORT of the head, such as 10.0.0.1:6379, and run this on one of its hosts"
        )
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536) or "/" in host:
        raise UsageError(f"`cluster` {text}: give HOST:PORT of the head, such as 10.0.0.1:6379, or auto, or local")
    return text


def _listens(address: str, timeout_s: float) -> str | None:
    """None if something accepts connections at HOST:PORT; else why not."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _reach(address: str) -> None:
    """Raises BrivlSearchError: no head of Ray answers there."""
    if why := _listens(address, ANSWER_S):
        raise BrivlSearchError(f"no Ray cluster answers at {address} ({why}): {_START}")
    if not _is_head(address):
        raise BrivlSearchError(f"what answers at {address} is not the head of a Ray cluster: {_START}")


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS (RFC 9113)


def _is_head(address: str) -> bool:
    """Whether what listens there speaks HTTP/2, as gRPC does. Ray itself would try for a minute to find out."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as line:
            line.settimeout(ANSWER_S)
            line.sendall(_PREFACE)
            frame = line.recv(9)
            return len(frame) >= 4 and frame[3] == 4
    except OSError:
        return False


def _running_here() -> str:
    """HOST:PORT of the cluster of which `ray start` left word on this machine; "auto" without one: Ray looks itself."""
    for folder in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp"):
        if folder:
            try:
                with open(os.path.join(folder, "ray", "ray_current_cluster"), encoding="utf-8") as file:
                    return _host_and_port(file.read().strip())
            except (OSError, UsageError):
                continue
    return AUTO


def _why(error: Exception, address: str) -> BrivlSearchError:
    """What Ray says when it cannot be joined, in one line."""
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        theirs = re.search(r"Ray: (\S+) Python: (\S+)", text)
        mine = f"Ray {version('ray')} and Python {platform.python_version()}"
        there = f"Ray {theirs[1]} and Python {theirs[2]}" if theirs else "another version"
        return BrivlSearchError(
            f"the cluster at {address} is of {there}, not of {mine}: install the same versions here and on its hosts"
        )
    if "token" in text.lower() and "auth" in text.lower():
        return BrivlSearchError(
            f"the cluster at {address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token"
        )
    if address == LOCAL:
        return BrivlSearchError(f"Ray cannot be started here ({text[:200]})")
    if address == AUTO:
        return BrivlSearchError(
            "no Ray cluster runs on this machine: start one (`ray start --head`), join one (`ray start --address "
            "HOST:PORT`), give `cluster` HOST:PORT, or `cluster` local to start one for this command alone"
        )
    if "Failed to connect to Ray cluster" in text:
        return BrivlSearchError(f"what answers at {address} is not the head of a Ray cluster: {_START}")
    return BrivlSearchError(
        f"the cluster at {address} cannot be joined from this machine ({text[:200]}): make it a host of the cluster "
        f"(`ray start --address {address}`) and run the command here again"
    )
