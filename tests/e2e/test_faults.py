"""Disks that are full, folders that cannot be written, bytes that flip, files that vanish: one line, nothing lost."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import BrivlSearchError, IndexIncompatibleError
from brivl_search.index import IndexReader, IndexWriter, Item, ivfpq, store, verify
from tests.index.test_concurrent import WRITER
from tests.index.test_ivfpq import DIM, clustered
from tests.support.building import build, images
from tests.support.older import make_older
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder, environment

STUB = [sys.executable, "-m", "tests.support.stub"]


def cli(*arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command line with the stub encoder; `limit`: the size no file may exceed."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, as on a full disk, not the end
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [*STUB, *arguments], capture_output=True, text=True, env=environment(), preexec_fn=before, timeout=120
    )


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = [line for line in done.stderr.splitlines() if line.startswith("brivl-search: ")]
    assert done.returncode == 1 and len(said) == 1 and "Traceback" not in done.stderr, done
    assert all(word in said[0] for word in words), said


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(tmp_path: Path, small: Path) -> None:
    write_corpus(tmp_path / "photos", 12)
    index = str(small / "index")
    assert cli("build-index", str(tmp_path / "photos"), "--index", index, "--workers", "0").returncode == 0
    before = images(small / "index")
    write_corpus(tmp_path / "photos", 30, size=(64, 64))
    ballast = small / "ballast"
    with ballast.open("wb") as file:
        file.write(b"x" * (shutil.disk_usage(small).free - 4096))
    full = cli("build-index", str(tmp_path / "photos"), "--index", index, "--workers", "0")
    one_line(full, "free some space and run the same command again", "kept", str(small))
    assert images(small / "index") == before and verify(small / "index").ok
    ballast.unlink()
    assert cli("build-index", str(tmp_path / "photos"), "--index", index, "--workers", "0").returncode == 0
    assert len(images(small / "index")) == 30 and verify(small / "index").ok


@pytest.mark.parametrize("left", [0, 4096, 16_384, 40_000, 160_000])
def test_a_full_disk_is_called_so_in_python(tmp_path: Path, small: Path, left: int) -> None:
    """However far the build came: LMDB itself speaks of an input/output error."""
    write_corpus(tmp_path / "photos", 12)
    build(tmp_path / "photos", small / "index", StubEncoder())
    before = images(small / "index")
    write_corpus(tmp_path / "photos", 60, size=(64, 64))
    (small / "ballast").write_bytes(b"x" * (shutil.disk_usage(small).free - left))
    with pytest.raises(BrivlSearchError, match=rf"^No space left on device \({small}.*\): free some space"):
        build(tmp_path / "photos", small / "index", StubEncoder())
    assert images(small / "index") == before
    (small / "ballast").unlink()
    build(tmp_path / "photos", small / "index", StubEncoder())
    assert len(images(small / "index")) == 60 and verify(small / "index").ok


def test_read_only_file_system(tmp_path: Path, small: Path) -> None:
    write_corpus(tmp_path / "photos", 6)
    index = str(small / "index")
    assert cli("build-index", str(tmp_path / "photos"), "--index", index, "--workers", "0").returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    found = cli("query", "a red circle", "--index", index, "--format", "paths")
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 6 and not found.stderr
    assert cli("verify", "--index", index).returncode == 0
    one_line(cli("build-index", str(tmp_path / "photos"), "--index", index), "Read-only file system", "can be written")
    one_line(cli("remove", "--under", str(tmp_path), "--index", index), "Read-only file system")


READER = """
import sys
from pathlib import Path
from brivl_search.errors import IndexMissingError
from brivl_search.index import catalog, verify

where, seen = Path(sys.argv[1]), set()
while not (where / "stop").exists():
    try:
        with catalog.reading(where) as (txn, meta):
            items = sum(1 for _ in catalog.scan_items(txn, "image"))
        assert items == (50 if meta.generation > 4 else 10 * meta.generation), (meta.generation, items)
        seen.add(meta.generation)
    except IndexMissingError:
        continue
assert len(seen) > 3, seen
assert verify(where).ok
"""


def test_a_reader_on_a_read_only_mount_beside_a_writer(tmp_path: Path) -> None:
    """A container's `:ro`: no lock table can be written there, and the writer makes one small commit after another."""
    index, mounted = tmp_path / "index", tmp_path / "mounted"
    index.mkdir(), mounted.mkdir()
    if subprocess.run(["mount", "--bind", index, mounted], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (mounted / "x").touch()
        command = [sys.executable, "-c", READER, str(mounted)]
        readers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        writer = WRITER.replace("w.commit(compact=round % 7 == 6)", "w.commit()")
        subprocess.run([sys.executable, "-c", writer, str(index), "16", "60"], check=True)
        (index / "stop").touch()
        for reader in readers:
            assert reader.communicate(timeout=60)[1] == "" and reader.returncode == 0
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def test_full_disk_during_a_migration_and_a_move(tmp_path: Path, small: Path) -> None:
    write_corpus(tmp_path / "photos", 12)
    photos, index = str(tmp_path / "photos"), small / "index"
    assert cli("build-index", photos, "--index", str(index), "--workers", "0").returncode == 0
    make_older(index)
    before = images(index)
    (tmp_path / "photos").rename(tmp_path / "moved")
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * shutil.disk_usage(small).free)
    for arguments in (
        ("sync", "--move", photos, str(tmp_path / "moved")),
        ("sources", "--index", str(index), "move", photos, str(tmp_path / "moved")),
    ):
        given = arguments if "--index" in arguments else (*arguments, "--index", str(index), "--workers", "0")
        done = cli(*given)
        if done.returncode:  # else LMDB found room in its free pages
            one_line(done, "free some space")
            assert images(index) == before
        assert verify(index).ok
    ballast.unlink()
    assert cli(
        "sync", "--index", str(index), "--workers", "0", "--move", photos, str(tmp_path / "moved")
    ).returncode in (0, 2)
    assert all(path.startswith(str(tmp_path / "moved")) for path in images(index)) and verify(index).ok


@pytest.mark.parametrize("limit", [20_000, 40_000, 60_000])
def test_file_size_limit(tmp_path: Path, limit: int) -> None:
    write_corpus(tmp_path / "photos", 40, size=(64, 64))
    index, photos = tmp_path / "index", str(tmp_path / "photos")
    one_line(cli("build-index", photos, "--index", str(index), "--workers", "0", limit=limit), "run the same command")
    assert cli("build-index", photos, "--index", str(index), "--workers", "0").returncode == 0
    assert len(images(index)) == 40 and verify(index).ok and verify(index).leftovers == ()


def test_full_disk_without_the_lock_file(tmp_path: Path, small: Path) -> None:
    """LMDB's reader table is written through a map: that must not end in a SIGBUS."""
    write_corpus(tmp_path / "photos", 6)
    photos, index = str(tmp_path / "photos"), small / "index"
    assert cli("build-index", photos, "--index", str(index), "--workers", "0").returncode == 0
    (index / "catalog.lmdb-lock").unlink()
    (small / "ballast").write_bytes(b"x" * shutil.disk_usage(small).free)
    found = cli("query", "a red circle", "--index", str(index), "--format", "paths")
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 6, found
    one_line(cli("remove", "--under", photos, "--index", str(index)), "free some space")
    one_line(cli("build-index", photos, "--index", str(small / "other")), "free some space")
    (small / "ballast").unlink()
    assert cli("build-index", photos, "--index", str(small / "other"), "--workers", "0").returncode == 0


def test_file_size_limit_within_the_first_page(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 6)
    photos, index = str(tmp_path / "photos"), tmp_path / "index"
    build(tmp_path / "photos", index, StubEncoder())
    write_corpus(tmp_path / "photos", 12)
    one_line(cli("build-index", photos, "--index", str(index), "--workers", "0", limit=1000), "run the same command")
    assert cli("build-index", photos, "--index", str(index), "--workers", "0").returncode == 0
    assert len(images(index)) == 12 and verify(index).leftovers == ()


def test_a_torn_staging_file_costs_only_time(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 6)
    build(tmp_path / "photos", tmp_path / "index", StubEncoder())
    whole = (tmp_path / "index" / "catalog.lmdb").read_bytes()
    write_corpus(tmp_path / "photos", 12)
    for size in (1, 100, 4096):
        (tmp_path / "index" / "staging.lmdb").write_bytes(whole[:size])
        build(tmp_path / "photos", tmp_path / "index", StubEncoder())
    assert len(images(tmp_path / "index")) == 12 and verify(tmp_path / "index").leftovers == ()


def test_maps_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalog, staging and shards begin far too small and double as they fill."""
    monkeypatch.setattr(store, "INITIAL_MAP", 64 << 10)
    names = [f"{n:05d}" for n in range(3000)]
    vectors = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    with IndexWriter(tmp_path, encoder_name="e", fingerprint="f", dim=64, index_type="exact") as writer:
        writer.stage_vectors("image", names, vectors)
        for name in names:
            writer.put("image", Item(name, name, record={"path": "x" * 100}))
        writer.commit()
    with IndexReader.open(tmp_path) as reader:
        assert reader.count("image") == 3000
        with IndexWriter(tmp_path, encoder_name="e", fingerprint="f", dim=64) as writer:
            for name in names:
                writer.put("image", Item("more" + name, name, record={"path": "y" * 100}))
            writer.commit()
        assert reader.stale() and reader.find("image", names[7]) is not None  # follows the catalog that grew
    assert verify(tmp_path).ok


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three IVF-PQ shards of images and one exact shard of texts."""
    ivfpq.faiss_module().omp_set_num_threads(1)
    directory = tmp_path_factory.mktemp("sound") / "index"
    with IndexWriter(
        directory, encoder_name="e", fingerprint="f", dim=DIM, index_type="ivfpq", shard_rows=400
    ) as writer:
        for modality, rows in (("image", clustered(1200)), ("text", clustered(100, seed=5))):
            names = [f"{n:05d}" for n in range(len(rows))]
            writer.stage_vectors(modality, names, rows)  # type: ignore[arg-type]
            for name in names:
                writer.put(modality, Item(name, name, record={"path": name, "image": name}))  # type: ignore[arg-type]
        writer.commit()
    return directory


def hits(reader: IndexReader) -> list[list[tuple[str, float]]]:
    found = reader.search("image", clustered(12, seed=9), 10, nprobe=1000, rerank=400)
    return [
        [(reader.record("image", int(s), int(r))["path"], round(float(x), 4)) for x, s, r in zip(*row, strict=True)]
        for row in zip(found.scores, found.shards, found.rows, strict=True)
    ]


def test_flipped_bytes_never_change_an_answer(sound: Path, tmp_path: Path) -> None:
    """Anywhere in a file: `verify` names it, a reader leaves that shard out and answers right from the others."""
    with IndexReader.open(sound) as reader:
        right = hits(reader)
        shards = [shard.name for shard in (*reader.info.image.shards, *reader.info.text.shards)]
        homes = {name: f"image-{int(name) // 400 + 1:06d}.lmdb" for name in (f"{n:05d}" for n in range(1200))}
    rng = random.Random(4)
    for turn in range(24):
        index = tmp_path / str(turn)
        shutil.copytree(sound, index)
        name = shards[turn % len(shards)]
        path = index / "shards" / name
        content = bytearray(path.read_bytes())
        at = rng.randrange(len(content)) if turn % 3 else rng.randrange(4096) * (len(content) // 4096)
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        report = verify(index)
        assert report.problems and all(line.startswith(f"shards/{name}: ") for line in report.problems), report
        with IndexReader.open(index) as reader:
            assert len(reader.damage) == 1 and name in reader.damage[0]
            for given, whole in zip(hits(reader), right, strict=True):
                left = [hit for hit in whole if homes[hit[0]] != name]
                assert given[: len(left)] == left, (turn, at)


def test_shards_deleted_by_hand(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "index")
    (tmp_path / "index" / "shards" / "image-000002.lmdb").unlink()
    with IndexReader.open(tmp_path / "index") as reader:
        assert "image-000002.lmdb is missing: 400 rows" in reader.damage[0] and reader.count("image") == 800
    for path in (tmp_path / "index" / "shards").iterdir():
        path.unlink()
    with pytest.raises(IndexIncompatibleError, match=r"no shard of the index is left.*`repair` drops what is lost"):
        IndexReader.open(tmp_path / "index")


def test_repair_through_the_command_line(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 12)
    index = tmp_path / "index"
    build(tmp_path / "photos", index, StubEncoder(), shard_rows=5)
    (index / "shards" / "image-000001.lmdb").unlink()
    found = cli("query", "a red circle", "-k", "20", "--index", str(index))
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 7
    assert "warning: not searched" in found.stderr and "image-000001.lmdb" in found.stderr
    assert cli("verify", "--index", str(index)).returncode == 3
    assert cli("eval", "--index", str(index)).returncode == 3
    assert cli("verify", "--repair", "--index", str(index)).returncode == 0
    built = cli("build-index", str(tmp_path / "photos"), "--index", str(index), "--workers", "0")
    assert "5 embedded" in built.stderr and "7 unchanged" in built.stderr
    assert len(images(index)) == 12 and verify(index).ok


def test_newer_format(tmp_path: Path) -> None:
    import lmdb

    write_corpus(tmp_path / "photos", 3)
    index = tmp_path / "index"
    build(tmp_path / "photos", index, StubEncoder())
    with lmdb.open(str(index / "catalog.lmdb"), subdir=False) as env, env.begin(write=True) as txn:
        body = json.loads(txn.get(b"meta"))
        txn.put(b"meta", json.dumps({**body, "format_version": 99}).encode())
    for verb in (["query", "x"], ["build-index", str(tmp_path / "photos")], ["compact"], ["info"]):
        done = cli(*verb, "--index", str(index))
        assert done.returncode == 3 and "format 99" in done.stderr and "upgrade" in done.stderr, done
