"""Datasets become indexes: built, built again, changed, split, shared with folders, queried and evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.sources import DatasetChoice
from brivl_search.errors import CorpusError, UsageError
from brivl_search.evaluation import evaluate_dataset, evaluate_index
from brivl_search.index import IndexReader, verify
from brivl_search.ingest.maintenance import remove
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport
from brivl_search.ingest.run import add
from brivl_search.ingest.sync import sync
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.filters import Filter
from brivl_search.transfer.export import export
from brivl_search.transfer.imports import import_folder
from tests.support import datasets
from tests.support.building import Silent, build, checksums, images, settle, texts
from tests.support.datasets import EN, LAYOUTS, PICTURES, ZH, encode, sample, write_json, write_lmdb, write_tar
from tests.support.pictures import jpeg, write_corpus, write_lines
from tests.support.stub import StubEncoder

Builder = Callable[[Path], Path]


def choice(format: str | None = None, split: str | None = None, images: Path | None = None) -> DatasetChoice:
    return DatasetChoice(format, split, None if images is None else str(images))


def again(index: Path, encoder: StubEncoder) -> BuildReport:
    """What `sync` does."""
    return sync(index, encoder, BuildOptions(workers=0), Silent())


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_every_layout_is_built_evaluated_and_built_again(make: Builder, tmp_path: Path, encoder: StubEncoder) -> None:
    name, file, fields, count = LAYOUTS[make]
    root, index = make(tmp_path / "data"), tmp_path / "index"
    report = build(root, index, encoder, dataset=choice(name))
    assert (report.found, report.embedded, report.captions) == (3, 3, count)
    assert report.skipped == [] and report.bad_captions == []
    assert {field for _, field, _ in texts(index)} == set(fields)
    with IndexReader.open(index) as reader:
        result = evaluate_index(reader, (1,))
        dataset = evaluate_dataset(load_dataset(root), StubEncoder(), (1,), lambda n: None, workers=0)
    for one in (result, dataset):
        recall = one.text_to_image["exact"]
        assert recall is not None and recall.recall[1] > 60  # the stub knows the drawings that captions name
    before = checksums(index)
    for repeated in (again(index, encoder), build(root, index, encoder, dataset=choice(name))):
        assert (repeated.unchanged, repeated.embedded, repeated.vanished, repeated.captions_removed) == (3, 0, 0, 0)
        assert repeated.commit is not None and not repeated.commit.changed
    assert checksums(index) == before and encoder.images == 3
    if (root / file).is_file() and make is not datasets.captions:
        build(root / file, tmp_path / "named", encoder)  # a file that is named needs no format
        assert images(tmp_path / "named") == images(index) and texts(tmp_path / "named") == texts(index)
    assert verify(index).ok


@pytest.mark.parametrize("kind", ["tar", "tsv", "lmdb"])
def test_members_come_change_and_go(kind: str, tmp_path: Path, encoder: StubEncoder) -> None:
    """The same story for each kind of container: a new member, a changed one, a vanished one, a rewritten file."""
    index = tmp_path / "index"
    container = {"tar": tmp_path / "x.tar", "tsv": tmp_path / "test_imgs.tsv", "lmdb": tmp_path / "test"}[kind]

    options: dict[str, Any] = {}

    def write(members: dict[str, bytes]) -> None:
        if kind == "tar":
            write_tar(container, {f"{name}.jpg": content for name, content in members.items()})
            settle(container)
        elif kind == "tsv":
            container.write_text("".join(f"{name}\t{encode(content)}\n" for name, content in members.items()))
            settle(container)
        else:
            options["dataset"] = choice("chinese-clip-lmdb")  # a folder is a folder unless the user says more
            shutil.rmtree(container, ignore_errors=True)
            values = {name.encode(): encode(content).encode() for name, content in members.items()}
            write_lmdb(container / "imgs", values | {b"num_images": b"9"})
            settle(container / "imgs" / "data.mdb", int(write.calls * 10))  # type: ignore[attr-defined]
        write.calls += 1  # type: ignore[attr-defined]

    write.calls = 1  # type: ignore[attr-defined]

    def names() -> list[str]:
        return [path.rpartition("::")[2].removesuffix(".jpg") for path in images(index)]

    write({"1": PICTURES[0], "2": PICTURES[1], "3": PICTURES[2]})
    assert build(container, index, encoder, **options).embedded == 3 and names() == ["1", "2", "3"]
    new = [jpeg((40, 40), "black", shape) for shape in ("cross", "ring")]
    write({"2": PICTURES[1], "3": new[0], "4": PICTURES[0], "5": new[1]})
    report = build(container, index, encoder, **options)
    # 2 is hashed and not decoded, 4 is the content that 1 had; 3 and 5 are new.
    assert (report.embedded, report.reused, report.unchanged, report.vanished) == (2, 2, 0, 1)
    assert names() == ["2", "3", "4", "5"] and encoder.images == 5
    assert build(container, index, encoder, **options).unchanged == 4
    with IndexReader.open(index) as reader:
        record = next(record for _, _, record in reader.records("image") if "::2" in record["path"])
    assert len(record.pop("phash")) == 64
    assert record == {"path": record["path"], "width": 64, "height": 48}
    assert verify(index).ok


def test_a_cut_tar_forgets_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    tar, index = write_tar(tmp_path / "x.tar", sample(0) | sample(1) | sample(2)), tmp_path / "index"
    build(tar, index, encoder)
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"000000001.txt")])  # its picture is there, its caption is not
    settle(tar)
    report = build(tar, index, encoder)
    assert (report.vanished, report.captions_removed, report.kept_unreadable) == (0, 0, 1)
    assert [skip.reason for skip in report.skipped] == ["truncated"]
    assert len(images(index)) == len(texts(index)) == 3
    tar.write_bytes(data)
    settle(tar, 20)
    assert build(tar, index, encoder).embedded == 0 and encoder.images == 3


def test_a_folder_of_photos_stays_one(tmp_path: Path, encoder: StubEncoder) -> None:
    """Tars and annotations in a plain folder are other files, and what is indexed of them is not its business."""
    folder, index = tmp_path / "photos", tmp_path / "index"
    write_corpus(folder, 4)
    write_tar(folder / "x.tar", sample(0))
    datasets.muge(folder)
    report = build(folder, index, encoder)
    assert (report.found, report.captions, len(report.skipped)) == (4, 16, 0)
    add([folder / "x.tar"], index, encoder, BuildOptions(workers=0), Silent())
    build(folder / "MR_valid_imgs.tsv", index, encoder)
    held = images(index), texts(index)
    assert len(held[0]) == 8 and len(held[1]) == 20
    report = build(folder, index, encoder)
    assert (report.vanished, report.captions_removed, report.kept_unreadable) == (0, 0, 0)
    assert (images(index), texts(index)) == held
    (folder / "x.tar").unlink()  # a source of its own that is away
    assert build(folder, index, encoder).vanished == 0
    assert remove(index, paths=[folder / "x.tar"]).images == 1
    assert len(images(index)) == 7


def test_split_is_the_state_of_the_dataset(tmp_path: Path, encoder: StubEncoder) -> None:
    for make, split, other in ((datasets.chinese_clip, "train", "valid"), (datasets.csv, "train", "test")):
        root, index = make(tmp_path / make.__name__), tmp_path / f"{make.__name__}.index"
        name = LAYOUTS[make][0]
        build(root, index, encoder, dataset=choice(name, split))
        assert len(images(index)) == 2
        assert again(index, encoder).unchanged == 2  # sync remembers the split
        with IndexReader.open(index) as reader:
            assert {record["fields"]["split"] for _, _, record in reader.records("image")} == {split}
        report = build(root, index, encoder, dataset=choice(name, other))
        assert report.vanished == 2 and len(images(index)) == 1
        add([root], index, encoder, BuildOptions(workers=0, dataset=choice(name, split)), Silent())
        assert len(images(index)) == 3


def test_annotations_forget_only_what_they_brought(tmp_path: Path, encoder: StubEncoder) -> None:
    root, index = datasets.coco_cn(tmp_path / "data"), tmp_path / "index"
    file = root / "coco-cn_test.json"
    (root / "images" / "own.jpg").write_bytes(jpeg((30, 30), "black", "cross"))
    build(file, index, encoder)
    add([root / "images" / "own.jpg"], index, encoder, BuildOptions(workers=0), Silent())
    assert len(images(index)) == 4
    body = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"id": n + 1, "image_id": n + 1, "caption": text} for n, text in enumerate((ZH[0], "改了"))],
    }
    write_json(file, body)
    report = build(file, index, encoder)  # c.jpg is listed no more
    assert (report.vanished, report.captions_removed, report.captions_embedded) == (1, 2, 1)
    assert [Path(path).name for path in images(index)] == ["a.jpg", "b.jpg", "own.jpg"]
    (root / "images" / "a.jpg").unlink()
    report = build(file, index, encoder)
    assert report.vanished == 1 and [skip.reason for skip in report.skipped] == ["no such file"]
    assert [text for _, _, text in texts(index)] == ["改了"]


def test_two_annotations_of_the_same_images(tmp_path: Path, encoder: StubEncoder) -> None:
    """English and Chinese captions in files of their own: neither build takes away what the other brought."""
    root, index = datasets.coco_cn(tmp_path / "data"), tmp_path / "index"
    lines = [f"{name}.jpg#{n}\t{EN[n]}" for n, name in enumerate("abc")]
    (root / "en.token.txt").write_text("\n".join(lines))
    write_lines(root / "captions.jsonl", [{"image": "images/a.jpg", "captions": "ours", "mood": "calm"}])
    build(root / "coco-cn_test.json", index, encoder)
    build(root / "en.token.txt", index, encoder)
    build(root, index, encoder)
    assert len(texts(index)) == 7 and encoder.images == 3
    for path in (root / "coco-cn_test.json", root / "en.token.txt", root):
        report = build(path, index, encoder)
        assert (report.vanished, report.captions_removed) == (0, 0), path
        assert report.commit is not None and not report.commit.changed, path
    (root / "en.token.txt").write_text(lines[0])
    assert build(root / "en.token.txt", index, encoder).vanished == 0  # the folder knows the others
    assert len(texts(index)) == 7  # for all this build can know, the folder gave them
    assert again(index, encoder).captions_removed == 2
    assert [text for _, field, text in texts(index) if field == "en"] == [EN[0]]
    assert len(images(index)) == 3
    with IndexReader.open(index) as reader:
        fields = {Path(r["path"]).name: r.get("fields") for _, _, r in reader.records("image")}
    assert fields["a.jpg"]["mood"] == "calm" and fields["a.jpg"]["split"] == "test"
    assert again(index, encoder).embedded == 0 and encoder.images == 3


def test_query_by_a_member_and_remove_a_container(tmp_path: Path, encoder: StubEncoder, monkeypatch: Any) -> None:
    root, index = datasets.webdataset(tmp_path / "data"), tmp_path / "index"
    build([root / "00000.tar", root / "00001.tar"], index, encoder)
    monkeypatch.setattr("brivl_search.search.live.load_encoder", lambda *a, **k: encoder)
    engine = Engine(index)
    member = f"{root}/00000.tar::000000001.jpg"
    assert [hit.path for hit in engine.by_image(member, SearchOptions(1), target="image")] == [member]
    assert [hit.text for hit in engine.by_image(member, SearchOptions(1))] == [EN[1]]
    for filter, count in (
        (Filter.of(under=[root / "00000.tar"]), 2),
        (Filter.of(under=[root]), 3),
        (Filter.of(glob=["*2.jpg"]), 1),
        (Filter.of(glob=["0000*"]), 3),  # the member's name, not the tar's
        (Filter.of(where=["key=000000001"]), 1),
    ):
        assert len(engine.by_text("x", SearchOptions(9, filter=filter))) == count, filter
    with pytest.raises(UsageError, match=r"`under` .*/0000: the index holds no images there \(.*00000\.tar"):
        engine.by_text("x", SearchOptions(9, filter=Filter.of(under=[root / "0000"])))
    monkeypatch.chdir(root)
    assert again(index, encoder).unchanged == 3
    build([Path("00000.tar")], index, encoder)  # as it is typed, so it is shown
    assert engine.by_text(EN[1], SearchOptions(1))[0].path == "00000.tar::000000001.jpg"
    with pytest.raises(UsageError, match=r"`image` .*00000.tar::9.jpg: no such file"):
        engine.by_image("00000.tar::9.jpg", SearchOptions(1))
    done = remove(index, paths=["00000.tar"])
    assert (done.images, done.captions) == (2, 2) and len(images(index)) == 1


def test_what_cannot_be_built_is_told_in_one_line(tmp_path: Path, encoder: StubEncoder) -> None:
    index = tmp_path / "index"
    root = datasets.coco(tmp_path / "coco")
    shutil.rmtree(root / "val2014")
    cases: list[tuple[Path, DatasetChoice, type[Exception], str]] = [
        (
            root / "annotations/captions_val2014.json",
            choice(),
            CorpusError,
            "none of the 3 images it names can be",
        ),
        (root, choice(), CorpusError, r"no images.*; .* looks like coco: `dataset_format` coco reads it"),
        (root, choice("webdataset"), CorpusError, "coco holds no .tar"),
        (root, choice("mscoco"), UsageError, "`dataset_format` mscoco: use one of captions, flickr"),
        (write_json(tmp_path / "x.json", {"a": 1}), choice(), UsageError, "x.json is no dataset of a known layout"),
        (tmp_path / "gone.tar", choice(), UsageError, "gone.tar"),
        (root, choice(split="test"), UsageError, "`split` is for datasets"),
        (write_tar(tmp_path / "none.tar", {"a.txt": b"x"}), choice(), CorpusError, "none.tar: it has no images"),
    ]
    for path, how, kind, message in cases:
        with pytest.raises(kind, match=message):
            build(path, index, encoder, dataset=how)
    assert not index.exists()


def test_a_build_that_is_interrupted_in_a_tar_goes_on(tmp_path: Path, encoder: StubEncoder) -> None:
    pictures = {f"{n}.jpg": jpeg((40 + n, 40), "red", "ring") for n in range(6)}
    tar, index = write_tar(tmp_path / "x.tar", pictures), tmp_path / "index"
    real, calls = encoder.encode_images, []

    def encode_images(pixels: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(pixels)

    encoder.encode_images = encode_images  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brivl_search.ingest.run.FLUSH_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            build(tar, index, encoder, batch_size=2)
    report = build(tar, index, encoder, batch_size=2)
    assert (report.unchanged, report.embedded) == (4, 2) and len(images(index)) == 6


def test_export_and_import_keep_how_a_dataset_is_read(tmp_path: Path, encoder: StubEncoder) -> None:
    root = datasets.chinese_clip(tmp_path / "data")
    build(root, tmp_path / "index", encoder, dataset=choice("chinese-clip", "train"))
    export(tmp_path / "index", tmp_path / "out", "jsonl")
    import_folder(tmp_path / "out", tmp_path / "again", lambda texts: encoder.encode_texts(texts))
    assert images(tmp_path / "again") == images(tmp_path / "index")
    report = again(tmp_path / "again", encoder)
    assert (report.unchanged, report.embedded, report.vanished, report.captions_removed) == (2, 0, 0, 0)
    assert report.commit is not None and not report.commit.changed
