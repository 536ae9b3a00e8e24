"""Images inside tars, TSVs and LMDBs: found, read at their offsets, refused where something is wrong."""

from __future__ import annotations

import io
import os
import pickle
import resource
import tarfile
from pathlib import Path

import numpy as np
import pytest

from brivl_search.corpus import safe_pickle
from brivl_search.corpus.containers import access, base64_tsv, lmdb_imgs, tar
from brivl_search.corpus.containers.access import decode_base64
from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.decode_pool import decode_all
from brivl_search.corpus.images import PixelSpec, load_pixels, read_file
from brivl_search.corpus.readers import open_dataset
from brivl_search.corpus.walk import ImageFile
from brivl_search.errors import CorpusError, ImageError
from tests.support import datasets
from tests.support.building import settle
from tests.support.datasets import PICTURES, encode, sample, write_lmdb, write_tar

SPEC = PixelSpec(16)


def reason(path: str | Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_file(str(path))
    return caught.value.reason


def test_a_path_names_a_member_and_a_file_of_that_name_wins(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", sample(0) | {"dir/a::b.jpg": PICTURES[1]})
    datasets.muge(tmp_path)
    datasets.chinese_clip_lmdb(tmp_path)
    assert read_file(f"{tmp_path}/x.tar::000000000.jpg") == PICTURES[0]
    assert read_file(f"{tmp_path}/x.tar::dir/a::b.jpg") == PICTURES[1]
    assert read_file(f"{tmp_path}/MR_valid_imgs.tsv::2002") == PICTURES[2]
    assert read_file(f"{tmp_path}/lmdb/valid/imgs::1001") == PICTURES[1]
    assert np.array_equal(load_pixels(f"{tmp_path}/x.tar::000000000.jpg", SPEC), load_pixels(PICTURES[0], SPEC))
    for name in ("x.tar::nothing.jpg", "MR_valid_imgs.tsv::7", "lmdb/valid/imgs::7", "gone.tar::a.jpg", "x.tar::"):
        assert reason(tmp_path / name) == "file vanished", name
    (tmp_path / "x.tar::000000000.jpg").write_bytes(PICTURES[2])
    assert read_file(f"{tmp_path}/x.tar::000000000.jpg") == PICTURES[2]


def test_a_changed_container_is_looked_through_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": PICTURES[0]})
    file = next(one for one in open_dataset(path).images() if isinstance(one, ImageFile))
    assert read_file(file.path, place=file.place) == PICTURES[0]
    write_tar(path, {"new.jpg": PICTURES[2], "a.jpg": PICTURES[1]})
    settle(path)
    assert read_file(file.path) == PICTURES[1]
    with pytest.raises(ImageError, match="file changed"):
        read_file(file.path, place=file.place)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pool_decodes_members_and_skips_the_bad_ones_alone(workers: int, tmp_path: Path) -> None:
    members = {f"{n}.jpg": PICTURES[n] for n in range(3)} | {"bad.jpg": b"no image", "cut.jpg": PICTURES[0][:200]}
    root = datasets.chinese_clip_lmdb(datasets.muge(tmp_path))
    with (root / "MR_valid_imgs.tsv").open("a") as file:
        file.write(f"\n7\t!!!{encode(PICTURES[0])}\n8\t{encode(b'no image')}\n")
    files: list[ImageFile] = []
    for path in (write_tar(tmp_path / "x.tar", members), root / "MR_valid_imgs.tsv", root / "lmdb"):
        files += [one for one in open_dataset(path).images() if isinstance(one, ImageFile)]
    decoded = {one.file.path.rpartition("::")[2]: one for one in decode_all(files, SPEC, workers=workers)}
    assert len(decoded) == 5 + 5 + 3
    reasons = {name: one.reason for name, one in decoded.items() if one.reason}
    assert reasons.pop("cut.jpg") in ("truncated", "corrupt")
    assert reasons == {"bad.jpg": "not an image", "7": "bad base64", "8": "not an image"}
    for name, n in (("0.jpg", 0), ("2001", 1), ("1002", 2)):
        assert np.array_equal(decoded[name].pixels, load_pixels(PICTURES[n], SPEC))  # type: ignore[arg-type]
        assert decoded[name].sha256 == decoded[("0.jpg", "1.jpg", "2.jpg")[n]].sha256


def test_limits_hold_inside_containers(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": PICTURES[0]})
    file = next(one for one in open_dataset(path).images() if isinstance(one, ImageFile))
    for place in (file.place, Place(str(path), "tsv", 0, 10_000)):
        with pytest.raises(ImageError, match="too large"):
            read_file(file.path, max_bytes=100, place=place)
    with pytest.raises(ImageError, match="truncated"):
        access.read(Place(str(path), "tar", 0, 1 << 20), 1 << 30)
    with pytest.raises(ImageError, match="not a regular file"):
        os.mkfifo(tmp_path / "fifo")
        access.read(Place(str(tmp_path / "fifo"), "tar", 0, 10), 100)


@pytest.mark.parametrize("text", [b"QUJD!", b"QUJ\x00", b"A", b"QUJD QUJD", b"QU=JD"])
def test_bad_base64(text: bytes) -> None:
    with pytest.raises(ImageError, match="bad base64"):
        decode_base64(text)


def test_base64_of_both_alphabets_and_no_padding() -> None:
    content = bytes(range(256))
    for text in (encode(content), encode(content, urlsafe=True), encode(content).rstrip("=")):
        assert decode_base64(text.encode() + b"\r\n") == content


def test_tsv_lines_across_blocks_and_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x_imgs.tsv"
    values = [encode(os.urandom(n)) for n in (1, 3000, 5, 70_000, 2)]
    path.write_text("\ufeff" + "".join(f"id{n}\t{value}\r\n" for n, value in enumerate(values)), encoding="utf-8")
    for block in (7, 64, 1000, 1 << 20):
        monkeypatch.setattr(base64_tsv, "BLOCK", block)
        found = list(base64_tsv.rows(str(path)))
        data = path.read_bytes()
        assert [row.id for row in found if isinstance(row, base64_tsv.Row)] == [f"id{n}" for n in range(5)]
        for row, value in zip(found, values, strict=True):
            assert isinstance(row, base64_tsv.Row)
            assert data[row.offset : row.offset + row.size].strip() == value.encode(), block
    with path.open("wb") as file:  # one line of 600 MB, sparse
        file.write(b"big\t")
        file.truncate(600 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (row,) = base64_tsv.rows(str(path))
    assert isinstance(row, base64_tsv.Row) and row.size == (600 << 20) - 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_members_of_long_and_strange_names(tmp_path: Path) -> None:
    names = ["d/" + "x" * 300 + ".jpg", "图片.jpg", "caf\udce9.jpg", "../../up.jpg"]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
                info = tarfile.TarInfo(f"special{kind.decode()}.jpg")
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(PICTURES[0])
                archive.addfile(info, io.BytesIO(PICTURES[0]))
        found = list(tar.members(str(path)))
        assert [one.name for one in found if isinstance(one, tar.Member)] == names  # no links, no devices
        assert all(read_file(f"{path}::{name}") == PICTURES[0] for name in names)


def test_a_damaged_lmdb_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lmdb" / "test" / "imgs"
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(b"no LMDB at all" * 1000)
    with pytest.raises(CorpusError, match="imgs is not an LMDB that can be read"):
        list(lmdb_imgs.items(str(folder), whole=0))
    assert reason(f"{folder}::1") == "read error"
    (folder / "data.mdb").unlink()
    write_lmdb(folder, {b"1": encode(PICTURES[0]).encode()})
    assert read_file(f"{folder}::1") == PICTURES[0]


# -- pickles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(protocol: int) -> None:
    shared = "同一个"
    for value in (
        (1, 2, "一只狗"),
        (1 << 62, -3, shared),
        ("a", None, shared, shared),
        [1, [2.5, ()], True, b"raw"],
        (),
    ):
        if protocol < 3 and b"raw" in value:  # bytes are a call there
            continue
        assert safe_pickle.loads(pickle.dumps(value, protocol)) == value


class Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_runs(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps((1, 2, Evil(str(marker))), protocol)
    with pytest.raises(safe_pickle.UnsafePickleError, match="is not allowed"):
        safe_pickle.loads(data)
    assert not marker.exists()
    pickle.loads(data)  # the same bytes do run where pickle reads them: the test would notice
    assert marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04r\xff\xff\xff\xff.",  # a memo index of 4 billion before anything is on the stack
        b"\x80\x04Nr\xff\xff\xff\x7f0.",  # POP
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"Ppersistent\n.",
        b"\x82\x01.",
        b"(ios\nsystem\n.",
        b"\x80\x04}.",
        b"\x80\x04\x8f.",
        b"\x80\x04",
        b"",
        b"(.",
        b"NN.",
        b"h\x05.",
        b"\x86.",
        b"(\x85.",
        b"Na.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x04" + b"K\x01" * (1 << 20) + b".",
    ],
)
def test_pickles_that_are_bombs_or_broken(data: bytes) -> None:
    with pytest.raises(safe_pickle.UnsafePickleError):
        safe_pickle.loads(data)


def test_a_bad_pair_is_one_bad_line(tmp_path: Path) -> None:
    root = datasets.chinese_clip_lmdb(tmp_path)
    marker = tmp_path / "ran"
    wrong = [(1000, 3, Evil(str(marker))), (1000, 3), [1000, 3, "x"], (1000, 3, 4), (None, 3, "x"), (1 << 70, 3, "x")]
    write_lmdb(root / "lmdb/valid/pairs", {str(3 + n).encode(): pickle.dumps(one) for n, one in enumerate(wrong)})
    reader = open_dataset(root)
    list(reader.images())
    reasons = [str(line).split(": ")[0] for line in reader.lines() if not hasattr(line, "texts")]
    assert reasons == [f"{root}/lmdb/valid/pairs:{4 + n}" for n in range(len(wrong))]
    assert not marker.exists()
