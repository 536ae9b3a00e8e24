"""Clusters for tests: two hosts as network namespaces (root), and a small Ray of this process where that is enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.clusters import STORE, Hosts, why_not

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else a token of the developer's would be asked for
ray = pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture(scope="session")
def make_hosts() -> Iterator[Callable[..., Hosts]]:
    """Makes hosts that are network namespaces; Ray does not run on them yet. They end with the session."""
    if why := why_not():
        pytest.skip(why)
    made: list[Hosts] = []

    def make(*names: str, **env: str) -> Hosts:
        for old in made:  # one at a time: their names are those of this process
            old.close()
        made[:] = [Hosts(*names, env=env)]
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def hosts(make_hosts: Callable[..., Hosts]) -> Hosts:
    """Two hosts of one CPU each, on which Ray runs; `hosts.address` is that of the head."""
    made = make_hosts("a", "b")
    for name in made.names:
        made.start(name, cpus=1, resources={f"host_{name}": 1})
    return made


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[Any]:
    """Two nodes of Ray on this machine (`ray.cluster_utils.Cluster`); its `address` is that of the head.

    Nothing is connected to it: `cluster.session.connect(local_cluster.address)` does that.
    """
    from brivl_search.cluster.session import import_ray

    import_ray()
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    yield made
    made.shutdown()
