"""Units: how work is cut, what is written of it, and what a later run takes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from brivl_search.cluster.build import ClusterEmbedder, _usable
from brivl_search.cluster.session import Host
from brivl_search.cluster.units import Result, Unit, UnitFolder, cut
from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.decode_pool import Decoded
from brivl_search.corpus.found import ImageFile
from brivl_search.embedding.batches import Embedded
from brivl_search.index import verify
from brivl_search.ingest.options import BuildOptions
from tests.support.building import build
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


def file(name: str, container: str = "") -> ImageFile:
    place = Place(container, "lmdb", 3, 4, b"\xff\x00", 5) if container else None
    return ImageFile(f"{container}::{name}" if container else f"/photos/{name}", 10, 20, place)


def unit(*files: ImageFile) -> Unit:
    return Unit(files, tuple(("aa",) if one.path.endswith("known") else () for one in files), 178.0)


def test_a_unit_survives_json() -> None:
    odd = unit(file("\udcff.jpg"), file("照片.jpg"), file("1.jpg", "/x.tar"), file("known"))
    assert Unit.from_bytes(odd.to_bytes()) == odd
    assert odd.name == Unit.from_bytes(odd.to_bytes()).name != replace(odd, limit=1.0).name
    assert [len(part.files) for part in odd.halves()] == [2, 2]
    assert sum((part.files for part in odd.halves()), ()) == odd.files


def test_units_hold_loose_files_or_one_container_and_one_limit() -> None:
    files = [file(f"{i}") for i in range(5)] + [file(f"{i}", "/a.tar") for i in range(3)]
    files += [file("0", "/b.tar"), file("8"), file("big")]
    units = list(
        cut(files, lambda path: 9.0 if "big" in path else 1.0, lambda one: (), most=lambda left: 2, members=10)
    )
    assert [len(one.files) for one in units] == [2, 2, 1, 3, 1, 1, 1]
    assert [one for part in units for one in part.files] == files
    assert [one.limit for one in units] == [1.0] * 6 + [9.0]


def test_units_get_smaller_towards_the_end() -> None:
    files = [file(f"{i:05}") for i in range(9_000)]
    hosts = [Host(str(i), str(i), 1.0, 0.0) for i in range(3)]
    session: Any = SimpleNamespace(hosts=lambda: hosts)

    def sizes(files: list[ImageFile], batch: int) -> list[int]:
        stub = StubEncoder()
        embedder = ClusterEmbedder(session, Path("i"), stub, BuildOptions(batch_size=batch), {}, 0.0)
        most = embedder._sizes(len(files))
        return [len(one.files) for one in cut(files, lambda path: 1.0, lambda one: (), most=most)]

    found = sizes(files, 64)
    assert found[0] == 1_472 and found[-2] == 256 and all(one % 64 == 0 for one in found[:-1])
    assert sorted(found, reverse=True) == found and sum(found) == 9_000
    assert max(sizes(files * 20, 64)) == 1_984 and sizes(files[:20], 4) == [4] * 5 and sizes(files[:3], 64) == [3]
    assert max(sizes(files, 4_096)) == 4_096  # never less than a batch


def embedded(name: str, vector: list[float] | None, **more: object) -> Embedded:
    values: dict[str, object] = {"sha256": "", "width": 3, "height": 4, **more}
    one = Decoded(file(name), str(values.pop("sha256")), None, **values)  # type: ignore[arg-type]
    return Embedded(one, None if vector is None else np.array(vector, np.float32))


ROWS = [
    embedded("a", [0.6, 0.8], sha256="01", taken="2020", look="ff"),
    embedded("b", None, sha256="01"),  # the same content
    embedded("c", None, sha256="02", known=True),
    embedded("d", None, reason="truncated", detail="at 3"),
    embedded("e", None, reason="file vanished"),
    embedded("f", [1.0, 0.0], sha256="03"),
]


def test_what_came_of_a_unit(tmp_path: Path) -> None:
    folder = UnitFolder(tmp_path, 2)
    folder.write("u", 178.0, ROWS)
    assert folder.is_done("u") and folder.done() == ["u"]
    assert [path.name for path in tmp_path.iterdir()] == ["u.npz"]
    result = folder.read("u")
    assert result is not None and result.limit == 178.0
    assert [row.decoded for row in result.rows] == [row.decoded for row in ROWS]
    vectors = [None if row.vector is None else row.vector.tolist() for row in result.rows]
    half = np.array([0.6, 0.8], np.float16).astype(np.float32).tolist()
    assert vectors == [half, half, None, None, None, [1.0, 0.0]]


def test_a_torn_result_counts_for_nothing(tmp_path: Path) -> None:
    folder = UnitFolder(tmp_path, 2)
    folder.write("u", 178.0, ROWS)
    whole = (tmp_path / "u.npz").read_bytes()
    for torn in (b"", whole[:100], whole[:-30], whole[:200] + b"\xff\xff" + whole[202:]):
        (tmp_path / "u.npz").write_bytes(torn)
        assert folder.read("u") is None and not folder.is_done("u")
    assert folder.read("none") is None


def test_a_result_without_rows(tmp_path: Path) -> None:
    folder = UnitFolder(tmp_path, 2)
    folder.write("u", 1.0, [])
    assert folder.read("u") == Result(1.0, [])


def test_a_later_run_takes_what_still_holds() -> None:
    """Other pictures, those that could not be read for a while, and those of another limit are done again."""
    left = {row.decoded.file.path: row.decoded.file for row in ROWS}
    left["/photos/f"] = replace(left["/photos/f"], mtime_ns=21)

    def names(limit: float = 178.0, known: tuple[str, ...] = ("02",)) -> str:
        rows = _usable(Result(178.0, ROWS), left, lambda path: limit, lambda one: known)
        return "".join(row.decoded.file.path[-1] for row in rows)

    assert names() == "abcd"
    assert names(known=()) == "abcd".replace("c", "")
    assert names(limit=9.0) == ""
    del left["/photos/a"]
    assert names() == "bcd"


def test_verify_speaks_of_them(tmp_path: Path) -> None:
    write_corpus(tmp_path / "p", 2)
    build(tmp_path / "p", tmp_path / "i", StubEncoder())
    (tmp_path / "i" / "units" / "f").mkdir(parents=True)
    UnitFolder(tmp_path / "i" / "units" / "f", 2).write("u", 1.0, ROWS)
    (line,) = verify(tmp_path / "i").leftovers
    assert line.startswith("units/: 1 units of an interrupted build on a cluster")


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    folder = UnitFolder(tmp_path, 2)
    name = folder.put(unit(file("a")))
    (tmp_path / ".x.npz.host.1.tmp").write_bytes(b"half")
    folder.write("u", 1.0, [])
    assert folder.get(name).files == (file("a"),)
    folder.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["u.npz"]
