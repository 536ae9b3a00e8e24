"""An import that failed, was killed or was wrong leaves nothing behind that spoils the corrected one."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import CorpusError, IndexMissingError
from brivl_search.index import EncoderInfo, IndexReader, IndexWriter, Modality, verify
from brivl_search.index.staging import leftovers
from brivl_search.transfer import imports, readers
from brivl_search.transfer.export import export
from brivl_search.transfer.formats import Kind
from brivl_search.transfer.imports import import_folder, import_vectors
from tests.support.building import build
from tests.support.pictures import write_corpus, write_lines
from tests.support.stub import StubEncoder

ENCODER = EncoderInfo("stub", "stub-fingerprint", 32)
ROWS = 9_000


def encode(texts: Sequence[str]) -> np.ndarray:
    return StubEncoder().encode_texts(list(texts))


def unit(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def take(folder: Path, vectors: np.ndarray, records: Sequence[dict[str, object]], modality: Modality = "image") -> int:
    """Imports, and says how many rows were new."""
    np.save(folder / "v.npy", vectors)
    write_lines(folder / "r.jsonl", list(records))
    files = folder / "v.npy", folder / "r.jsonl"
    return import_vectors(*files, modality, folder / "index", ENCODER, encode).of(modality).added


def stored(index: Path, modality: Modality = "image") -> dict[str, np.ndarray]:
    """Vectors by file name or text."""
    with IndexReader.open(index) as reader:
        return {
            os.path.basename(record["path"] if modality == "image" else record["text"]): np.asarray(
                reader.vector(modality, shard, row)
            )
            for shard, row, record in reader.records(modality)
        }


def holds(index: Path, vectors: np.ndarray, names: Sequence[str], modality: Modality = "image") -> bool:
    """Every row is there once, with its own vector, and nothing else."""
    found = stored(index, modality)
    same = all(np.allclose(found[name], one, atol=1e-3) for name, one in zip(names, vectors, strict=True))
    return same and len(found) == len(names) and verify(index).ok


NAMES = [f"{number:05}.jpg" for number in range(ROWS)]
LINES: list[dict[str, object]] = [{"path": name, "content": f"c{name}"} for name in NAMES]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([{"path": "stray.jpg"}, *LINES], "9,001 lines, more lines than the 9,000 rows"),
        (LINES[1:], "8,999 lines for 9,000 rows"),
        ([{"path": "stray.jpg"}, *LINES[:-2], {"no": "path"}], r"r\.jsonl:9000: no `path`"),
        ([LINES[0], *LINES[:-1]], r"r\.jsonl:1 and line 2: one content"),
        ([*LINES[:-1], LINES[3]], r"r\.jsonl:4 and line 9000: one content"),
    ],
    ids=["a line more", "a line less", "shifted, and the last is bad", "twice in a block", "twice in two blocks"],
)
def test_corrected_records(tmp_path: Path, wrong: list[dict[str, object]], says: str) -> None:
    vectors = unit(ROWS)
    with pytest.raises(CorpusError, match=says):
        take(tmp_path, vectors, wrong)
    with pytest.raises(IndexMissingError):
        IndexReader.open(tmp_path / "index")
    assert not any(leftovers(tmp_path / "index").values()) if (tmp_path / "index").exists() else True
    assert take(tmp_path, vectors, LINES) == ROWS
    assert holds(tmp_path / "index", vectors, NAMES)
    assert take(tmp_path, vectors, LINES) == 0  # the same again changes nothing


def test_killed_and_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGKILL in the middle, with the vectors of the wrong lines staged and flushed."""
    monkeypatch.setattr(imports, "BLOCK", 64)
    monkeypatch.setattr(readers, "BLOCK", 64)
    vectors, names = unit(300), NAMES[:300]
    if not (child := os.fork()):
        put = IndexWriter.stage_vectors

        def flushed(self: IndexWriter, *given: object, **named: object) -> None:
            put(self, *given, **named)  # type: ignore[arg-type]
            self.flush()
            if len(self._stage.pending) and self._stage.pending["image"] > 200:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(IndexWriter, "stage_vectors", flushed)
        take(tmp_path, np.roll(vectors, 1, axis=0), LINES[:300])
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert leftovers(tmp_path / "index")["given"] > 200
    take(tmp_path, vectors, LINES[:300])
    assert holds(tmp_path / "index", vectors, names)


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_corrected_vectors_reach_every_row_of_their_contents(tmp_path: Path, kind: str) -> None:
    """Rows of the import, those of a build, copies under other names, and texts."""
    encoder, index = StubEncoder(), tmp_path / "index"
    paths = write_corpus(tmp_path / "photos", 6)
    (tmp_path / "photos" / "copy.jpg").write_bytes(paths[2].read_bytes())
    build(tmp_path / "photos", index, encoder, index_type="exact")
    before = stored(index)
    wrong, right = unit(300, 1), unit(300, 2)
    records: list[dict[str, object]] = [{"path": f"photos/images/{path.name}"} for path in paths[:3]]
    records += LINES[: 300 - 3]
    if kind == "ivfpq":
        with IndexWriter.existing(index) as writer:
            writer._meta = writer._meta.__class__(**{**writer._meta.__dict__, "index_type": "ivfpq"})
            writer.commit()
    take(tmp_path, wrong, records)
    assert take(tmp_path, right, records) == 301  # and the copy
    found = stored(index)
    for path, vector in zip(paths[:3], right.astype("<f2"), strict=False):
        assert np.array_equal(found[path.name], vector)
    assert np.array_equal(found["copy.jpg"], right[2].astype("<f2"))
    for path in paths[3:]:
        assert np.array_equal(found[path.name], before[path.name])
    assert all(np.array_equal(found[name], right[3 + at].astype("<f2")) for at, name in enumerate(NAMES[:297]))
    assert verify(index).ok and take(tmp_path, right, records) == 0
    with IndexReader.open(index) as reader:  # the codes are of the new vectors
        near = reader.search("image", right, 1)
        assert np.allclose(near.scores[:, 0], 1, atol=2e-3)
    report = build(tmp_path / "photos", index, encoder)
    assert (report.unchanged, report.embedded) == (7, 0)


def test_corrected_texts(tmp_path: Path) -> None:
    said: list[dict[str, object]] = [{"text": f"text {n}", "image": f"{n}.jpg"} for n in range(5)]
    said.append({"text": "text 0", "image": "other.jpg"})
    wrong, right = unit(6, 1), unit(6, 2)
    wrong[5], right[5] = wrong[0], right[0]
    take(tmp_path, wrong, said, "text")
    assert take(tmp_path, right[1:3], said[1:3], "text") == 2
    assert take(tmp_path, right[:1], said[:1], "text") == 2  # the same text of another image follows
    with IndexReader.open(tmp_path / "index") as reader:
        rows = [(r["image"], reader.vector("text", shard, row)) for shard, row, r in reader.records("text")]
    expected = {"0": right[0], "1": right[1], "2": right[2], "3": wrong[3], "4": wrong[4], "other": right[0]}
    assert len(rows) == 6
    for image, vector in rows:
        assert np.array_equal(vector, expected[Path(image).stem].astype("<f2"))


def test_an_import_that_failed_gives_a_build_nothing(tmp_path: Path) -> None:
    paths = write_corpus(tmp_path / "photos", 4, with_captions=False)
    records: list[dict[str, object]] = [{"path": f"photos/images/{path.name}"} for path in paths]
    with pytest.raises(CorpusError, match="no `path`"):
        take(tmp_path, unit(5), [*records, {}])
    build(tmp_path / "photos", tmp_path / "index", encoder := StubEncoder())
    assert encoder.images == 4
    build(tmp_path / "photos", tmp_path / "fresh", StubEncoder())
    fresh, here = stored(tmp_path / "fresh"), stored(tmp_path / "index")
    assert all(np.array_equal(here[path.name], fresh[path.name]) for path in paths)


def test_copies_with_almost_one_vector_are_no_contradiction(tmp_path: Path) -> None:
    """Two batches of a GPU round differently."""
    vectors = np.repeat(unit(1), 2, axis=0)
    vectors[1, 0] += 1e-3
    take(tmp_path, vectors, [{"path": "a.jpg", "content": "x"}, {"path": "b.jpg", "content": "x"}])
    found = stored(tmp_path / "index")
    assert np.array_equal(found["a.jpg"], found["b.jpg"])


def test_one_path_on_two_lines(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"r\.jsonl:1 and line 3: one key \(.*a\.jpg\) with two contents"):
        take(tmp_path, unit(3), [{"path": "a.jpg"}, {"path": "b.jpg"}, {"path": "./a.jpg"}])


def test_files_that_change_under_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "BLOCK", 4)
    np.save(tmp_path / "v.npy", unit(12))
    write_lines(tmp_path / "r.jsonl", LINES[:12])

    def advance(steps: int) -> None:
        with (tmp_path / "r.jsonl").open("a") as file:
            file.write("{}\n")

    with pytest.raises(CorpusError, match=r"r\.jsonl(:13: no `path`|, or its vectors, changed while they were read)"):
        import_vectors(tmp_path / "v.npy", tmp_path / "r.jsonl", "image", tmp_path / "index", ENCODER, encode, advance)
    with pytest.raises(IndexMissingError):
        IndexReader.open(tmp_path / "index")


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_an_export_that_was_corrected(tmp_path: Path, kind: Kind) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    old, new = unit(50, 1), unit(50, 2)
    take(tmp_path, old, LINES[:50])
    export(tmp_path / "index", tmp_path / "old", kind)
    import_folder(tmp_path / "old", tmp_path / "again", encode)
    import_folder(tmp_path / "old", tmp_path / "index", encode)
    assert holds(tmp_path / "again", old, NAMES[:50]) and holds(tmp_path / "index", old, NAMES[:50])
    with IndexReader.open(tmp_path / "index") as reader:
        assert reader.info.generation == 1  # an index's own export changes nothing in it
    take(tmp_path, new, LINES[:50])
    export(tmp_path / "index", tmp_path / "new", kind)
    assert import_folder(tmp_path / "new", tmp_path / "again", encode).image.added == 50
    assert holds(tmp_path / "again", new, NAMES[:50])
    about = tmp_path / "new" / "export.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "rows": {"image": 51, "text": 0}}))
    with pytest.raises(CorpusError, match=r"50 |\(50, 32\)"):
        import_folder(tmp_path / "new", tmp_path / "again", encode)


def test_lines_of_captions_that_contradict_each_other_behind_images(tmp_path: Path) -> None:
    take(tmp_path, unit(20), LINES[:20])
    said: list[dict[str, object]] = [{"text": f"text {n}", "image": f"{n}.jpg"} for n in range(9)]
    take(tmp_path, unit(9, 1), said, "text")
    export(tmp_path / "index", tmp_path / "out", "jsonl")
    file = tmp_path / "out" / "text.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for change, says in (({"content": lines[3]["content"]}, "one content"), ({"key": lines[3]["key"]}, "one key")):
        write_lines(file, [*lines[:-1], {**lines[-1], **change}])
        with pytest.raises(CorpusError, match=rf"text\.jsonl:4 and line 9: {says}"):
            import_folder(tmp_path / "out", tmp_path / "again", encode)


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4", np.float16])
def test_vectors_of_any_length_and_order_in_memory(tmp_path: Path, kind: str | type) -> None:
    vectors, names = unit(6), [f"{n}.jpg" for n in range(6)]
    exponents = {2: [-3, 0, 2], 4: [-42, 0, 37], 8: [-300, 0, 300]}[np.dtype(kind).itemsize]
    lengths = np.array([10.0**exponent for exponent in exponents * 2])[:, None]
    given = np.asfortranarray((vectors.astype(np.float64) * lengths).astype(kind))
    if np.dtype(kind).itemsize == 4:
        lengths, given = lengths[[1, 2, 4, 5]], given[[1, 2, 4, 5]]
        vectors, names = vectors[[1, 2, 4, 5]], [names[at] for at in (1, 2, 4, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert take(tmp_path, given, [{"path": name} for name in names]) == len(names)
    assert holds(tmp_path / "index", vectors, names)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_a_row_without_a_direction_is_named(tmp_path: Path, bad: float) -> None:
    vectors = unit(3)
    vectors[1, 5 if bad else slice(None)] = bad
    with pytest.raises(CorpusError, match=r"r\.jsonl:2: image row 2 has no direction"):
        take(tmp_path, vectors, [{"path": f"{n}.jpg"} for n in range(3)])


@pytest.mark.parametrize(("codec", "name"), [("gbk", "GBK"), ("utf-16-le", "UTF-16")])
def test_records_that_are_not_utf_8_are_named(tmp_path: Path, codec: str, name: str) -> None:
    take(tmp_path, unit(1), [{"path": "0.jpg"}])
    text = json.dumps({"path": "狗在草地上.jpg", "about": "一只狗在草地上跑"}, ensure_ascii=False)
    (tmp_path / "r.jsonl").write_bytes(text.encode(codec) + (b"" if codec != "gbk" else b"\n"))
    files = tmp_path / "v.npy", tmp_path / "r.jsonl"
    with pytest.raises(CorpusError, match=rf"r\.jsonl: not UTF-8 text, it seems to be {name}: save the file"):
        import_vectors(*files, "image", tmp_path / "index", ENCODER, encode)


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    take(tmp_path, unit(2), [{"path": "0.jpg"}, {"path": "1.jpg"}])
    lines = [json.dumps({"path": "狗在草地上.jpg"}, ensure_ascii=False).encode(), b'{"path": "\xff.jpg"}', b""]
    (tmp_path / "r.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(CorpusError, match=r"r\.jsonl:2: not UTF-8 text: save the file as UTF-8"):
        import_vectors(tmp_path / "v.npy", tmp_path / "r.jsonl", "image", tmp_path / "index", ENCODER, encode)
