"""A build on two hosts is the build of one machine, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from brivl_search.index.lock import WriterLock
from tests.support.building import build
from tests.support.cluster_stub import install_stub
from tests.support.clusters import Hosts
from tests.support.folders import REPO
from tests.support.pictures import write_corpus
from tests.support.published import state
from tests.support.stub import StubEncoder

PICTURES, BATCH = 96, 4
UNIT = 24  # pictures of the largest unit: a quarter of them, in whole batches


class Site:
    """Pictures, two hosts, and the index that a build without a cluster makes of them."""

    def __init__(self, folder: Path, hosts: Hosts, log: Path) -> None:
        self.folder, self.hosts, self.log = folder, hosts, log
        self.photos = folder / "photos"
        write_corpus(self.photos, PICTURES)
        (self.photos / "images" / "torn.jpg").write_bytes(
            (self.photos / "images" / "0000-red-circle.jpg").read_bytes()[:200]
        )
        (self.photos / "images" / "twice.jpg").write_bytes(
            (self.photos / "images" / "0000-red-circle.jpg").read_bytes()
        )
        report = build(self.photos, folder / "alone", StubEncoder())
        self.skipped = [skip.path for skip in report.skipped]
        self.wanted = state(folder / "alone")

    def words(self, index: Path, *more: str) -> list[str]:
        where = ["--index", str(index), "--encoder", "stub", "--cluster", self.hosts.address]
        return ["build-index", str(self.photos), *where, "--batch-size", str(BATCH), "--workers", "1", *more]

    def start(self, index: Path, host: str = "a", **env: str) -> Popen[str]:
        self.log.write_text("")
        return self.hosts.popen(host, *self.words(index), **env)

    def embedded(self) -> int:
        return sum(map(int, self.log.read_text().split()))

    def wait_for(self, pictures: int, process: Popen[str]) -> None:
        """Until so many pictures are embedded."""
        until = time.monotonic() + 40
        while self.embedded() < pictures:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "nothing is embedded"
            time.sleep(0.05)

    def ends_well(self, process: Popen[str], index: Path) -> str:
        """Waits; the index is what a build without a cluster makes. Returns what the program said."""
        _, err = process.communicate(timeout=90)
        assert process.returncode == 0 and "Traceback" not in err, err
        found = state(index)
        for part in ("items", "found", "shards", "tuning", "leftovers"):
            assert found[part] == self.wanted[part], part
        assert not (index / "units").exists()
        return err


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, make_hosts: Callable[..., Hosts]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    install_stub(folder / "plugin")
    log = folder / "log"
    path = f"{REPO}{os.pathsep}{folder / 'plugin'}"
    hosts = make_hosts("a", "b", PYTHONPATH=path, STUB_SLEEP="0.1", STUB_LOG=str(log), STUB_POISON="poison")
    for name in hosts.names:
        hosts.start(name)
    yield Site(folder, hosts, log)


@pytest.mark.slow
def test_the_same_index_as_without_a_cluster_though_an_actor_dies(site: Site, tmp_path: Path) -> None:
    process = site.start(tmp_path / "i")
    site.wait_for(20, process)
    os.kill(site.hosts.actors("a", "b")[0], signal.SIGKILL)
    err = site.ends_well(process, tmp_path / "i")
    assert f"{PICTURES} embedded" in err and "skipped" in err and site.skipped[0].endswith("torn.jpg"), err
    assert PICTURES <= site.embedded() <= PICTURES + 1 + UNIT  # a content that is in two units is embedded in both


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    process = site.start(tmp_path / "i", "b")
    site.wait_for(40, process)
    process.kill()
    process.communicate()
    first = site.embedded()
    process = site.start(tmp_path / "i")
    site.ends_well(process, tmp_path / "i")
    assert (
        PICTURES <= first + site.embedded() <= PICTURES + 2 * UNIT + 2 * UNIT
    )  # under way, and written but not logged


@pytest.mark.slow
def test_a_picture_that_kills_its_workers_is_named(site: Site, tmp_path: Path) -> None:
    photos = tmp_path / "p"
    write_corpus(photos, 8, with_captions=False)
    bad = photos / "images" / "poison.jpg"
    (photos / "images" / sorted(os.listdir(photos / "images"))[5]).rename(bad)
    words = [str(photos) if word == str(site.photos) else word for word in site.words(tmp_path / "i", "--verbose")]
    done = site.hosts.run("a", *words)
    assert done.returncode == 0 and "7 embedded" in done.stderr, done.stderr
    assert "worker died" in done.stderr and "poison.jpg" in done.stderr


@pytest.mark.slow
def test_a_lost_host_that_never_comes_back(site: Site, tmp_path: Path) -> None:
    process = site.start(tmp_path / "i")
    site.wait_for(20, process)
    site.hosts.kill("b")
    site.ends_well(process, tmp_path / "i")
    assert PICTURES <= site.embedded() <= PICTURES + 1 + UNIT


@pytest.mark.slow
def test_mistakes_end_in_one_line(site: Site, tmp_path: Path) -> None:
    """On what is left: one host."""

    def refused(*words: str, index: Path = tmp_path / "i") -> str:
        done = site.hosts.run("a", *site.words(index, *words))
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
        return str(done.stderr.strip().splitlines()[-1])

    assert "--gpus-per-worker 1: hosts of this cluster have at most 0 GPUs" in refused("--gpus-per-worker", "1")
    (tmp_path / "busy").mkdir()
    lock = WriterLock(tmp_path / "busy")
    try:
        assert "another build is writing" in refused(index=tmp_path / "busy")
    finally:
        lock.release()


def test_no_address_means_the_cluster_that_is_there(
    run_here: Callable[..., Any], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    words = ["build-index", str(tmp_path), "--index", str(tmp_path / "i"), "--encoder", str(tiny_checkpoint)]
    for where in (["--cluster"], ["--cluster", "--quiet"], ["--cluster", "auto"]):
        ended = run_here(*words, *where)
        assert ended.code == 2 and "--cluster nowhere: give HOST:PORT" in ended.err, ended
    ended = run_here(*words, "--cluster=elsewhere")
    assert ended.code == 2 and "--cluster elsewhere: give HOST:PORT" in ended.err, ended


def test_urls_and_options_that_do_not_go_together(run_here: Callable[..., Any], tmp_path: Path) -> None:
    ended = run_here("build-index", str(tmp_path), "--gpus-per-worker", "1", "--index", str(tmp_path / "i"))
    assert ended.code == 2 and "--gpus-per-worker is for --cluster" in ended.err
    from brivl_search.cluster.build import check_paths
    from brivl_search.errors import UsageError

    for path in ("s3://bucket/photos", Path("hdfs://host/photos")):
        with pytest.raises(UsageError, match="is a URL: with `cluster`, folders and index lie on storage"):
            check_paths([tmp_path, path])
    check_paths([tmp_path, "/a/b", "C:\\photos"])
