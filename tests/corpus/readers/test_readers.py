"""Every dataset layout is recognised and read as it is; what is wrong in one is named."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.dataset import Dataset, load_dataset
from brivl_search.corpus.images import read_file
from brivl_search.corpus.readers import open_dataset, reader_classes, recognise
from brivl_search.corpus.readers.base import Choice, ImageFinder, Outside, language, split_of
from brivl_search.corpus.text import BadLine
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.errors import CorpusError, ImageError, UsageError
from tests.support import datasets
from tests.support.datasets import EN, LAYOUTS, PICTURES, ZH, pictures, sample, write_json, write_tar
from tests.support.pictures import write_lines

Builder = Callable[[Path], Path]


def bad(path: Path, format: str | None = None, **choice: Any) -> list[tuple[int, str]]:
    """(line, reason) of the lines that cannot be used."""
    reader = open_dataset(path, format, Choice(**choice))
    list(reader.images())
    return [(line.line, line.reason) for line in reader.lines() if isinstance(line, BadLine)]


def skipped(path: Path, format: str | None = None, **choice: Any) -> list[tuple[str, str]]:
    reader = open_dataset(path, format, Choice(**choice))
    found = [one for one in reader.images() if isinstance(one, Skipped)]
    return [(os.path.basename(one.path), one.reason) for one in found]


def good(path: Path, format: str | None = None, **choice: Any) -> list[CaptionLine]:
    reader = open_dataset(path, format, Choice(**choice))
    list(reader.images())
    return [line for line in reader.lines() if isinstance(line, CaptionLine)]


def contents(data: Dataset) -> list[bytes]:
    return [read_file(file.path, place=file.place) for file in data.files]


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_every_layout_is_recognised_and_read(make: Builder, tmp_path: Path) -> None:
    name, file, fields, count = LAYOUTS[make]
    root = make(tmp_path / "data")
    for path in (root, *([root / file] if file else [])):
        assert recognise(path) == [name], path
        data = load_dataset(path)
        assert (data.format, data.fields, data.without_captions) == (name, fields, 0)
        texts, owners = data.pairs()
        assert len(texts) == count and sorted(set(owners)) == [0, 1, 2]
        # Every caption belongs to the picture that it describes, and to its very bytes.
        for text, owner in zip(texts, owners, strict=True):
            shown = [n for n in range(3) if ZH[n] in text or EN[n] in text]
            assert [contents(data)[owner]] == [PICTURES[n] for n in shown] or text == "一个形状"
    assert [load_dataset(root, name).fields for name in fields] == [(name,) for name in fields]
    with pytest.raises(UsageError, match="has the field 'ja'; fields there: .*" + fields[0]):
        load_dataset(root, "ja")
    reader = open_dataset(root)
    assert [one for one in reader.images() if not isinstance(one, ImageFile)] == []
    assert reader.covers and not reader.unreadable and reader.name == name


@pytest.mark.parametrize(
    ("make", "split", "count"),
    [
        (datasets.flickr, "test", 1),
        (datasets.flickr_cn, "train", 1),
        (datasets.coco, "val", 3),
        (datasets.karpathy, "validation", 1),
        (datasets.aic_icc, "val", 3),
        (datasets.chinese_clip, "val", 1),
        (datasets.chinese_clip_lmdb, "dev", 3),
        (datasets.csv, "train", 2),
        (datasets.captions, "test", 3),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_split_chooses(make: Builder, split: str, count: int, tmp_path: Path) -> None:
    root = make(tmp_path)
    assert len(load_dataset(root, split=split).images) == count
    assert all("split" in line.fields for line in good(root, split=split))
    with pytest.raises(UsageError, match=r"`split` nowhere: .* (has the splits|is not divided)"):
        load_dataset(root, split="nowhere")


def test_fields_of_lines(tmp_path: Path) -> None:
    line = good(datasets.coco(tmp_path / "coco"))[2]
    assert line.fields == {
        "license": 2, "coco_url": "http://images.cocodataset.org/val2014/COCO_val2014_000000000001.jpg",
        "date_captured": "2013-11-14 11:18:45", "image_id": 391896, "id": 100, "split": "val",
    }  # fmt: skip
    assert good(datasets.webdataset(tmp_path / "web"))[0].fields == {
        "url": "https://example.com/0.jpg", "key": "000000000", "width": 64, "height": 48, "original_width": 640,
        "similarity": 0.31,
    }  # fmt: skip
    assert good(datasets.chinese_clip(tmp_path / "clip"))[0].fields == {"text_id": 0, "split": "train"}
    assert good(datasets.csv(tmp_path / "csv"))[2].fields == {"split": "test"}


def test_a_text_of_several_images_is_one_query(tmp_path: Path) -> None:
    data = load_dataset(datasets.chinese_clip(tmp_path), split="train")
    texts, partners, names = data.queries()
    assert sorted(zip(texts, partners, names, strict=True)) == sorted(
        [(ZH[0], [0], "0"), (ZH[1], [1], "1"), ("一个形状", [0, 1], "9")]
    )
    assert len(data.pairs()[0]) == 4


def test_captions_that_other_columns_hold(tmp_path: Path) -> None:
    pictures(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    (tmp_path / "t.csv").write_text("file;caption;alt\n0.jpg;eins;zwei\n", encoding="utf-8")
    assert good(tmp_path / "t.csv", fields=("alt",))[0].texts == (("alt", "zwei"),)
    assert good(tmp_path / "t.csv", fields=("caption",))[0].texts == (("caption", "eins"),)


def test_language_by_script() -> None:
    assert language(["一只狗", "ATM"]) == "zh"
    assert language(["a dog", "ein Hündchen"]) == "en"
    assert language(["犬がいます", "猫です"]) == language(["собака"]) == language([]) == language(["1 2"]) == "captions"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2014.json", "train"), ("MR_valid_queries.jsonl", "valid"), ("Flickr_8k.testImages.txt", "test"),
        ("caption_validation_annotations_20170910.json", "validation"), ("captions.json", ""), ("contest.csv", ""),
        ("flickr30k_karpathy_test.json", "test"), ("training-notes.csv", ""),
    ],
)  # fmt: skip
def test_split_of_a_file_name(name: str, split: str) -> None:
    assert split_of(f"/test/val/{name}") == split


def test_images_elsewhere(tmp_path: Path) -> None:
    root = datasets.coco(tmp_path / "coco")
    (root / "val2014").rename(tmp_path / "photos")
    with pytest.raises(CorpusError, match=r"captions_val2014.json:1: image .* does not exist"):
        load_dataset(root)
    assert len(load_dataset(root, images=tmp_path / "photos").images) == 3
    with pytest.raises(UsageError, match=r"`images` .*: no such folder"):
        load_dataset(root, images=tmp_path / "nowhere")
    for make in (datasets.chinese_clip, datasets.webdataset, datasets.chinese_clip_lmdb, datasets.img2dataset):
        with pytest.raises(UsageError, match=r"`images`: the images of .* (are inside|lie beside)"):
            load_dataset(make(tmp_path / make.__name__), images=tmp_path)


def test_what_is_no_dataset_or_two(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder.*: .*nowhere: check the spelling"):
        load_dataset(tmp_path / "nowhere")
    pictures(tmp_path / "photos", "0.jpg", "1.jpg", "2.jpg")
    with pytest.raises(UsageError, match=r"photos has no captions.jsonl and is no dataset of a known layout"):
        load_dataset(tmp_path / "photos")
    (tmp_path / "notes.txt").write_text("nothing\n")
    with pytest.raises(UsageError, match=r"notes.txt is no dataset of a known layout \(captions, flickr, coco"):
        load_dataset(tmp_path / "notes.txt")
    both = datasets.chinese_clip_lmdb(datasets.chinese_clip(tmp_path / "both"))
    with pytest.raises(UsageError, match="both can be read as chinese-clip or chinese-clip-lmdb: choose one"):
        load_dataset(both)
    assert load_dataset(both, format="chinese-clip-lmdb").format == "chinese-clip-lmdb"
    with pytest.raises(UsageError, match="`dataset_format` coco-cn: use one of captions, flickr, coco, karpathy"):
        load_dataset(both, format="coco-cn")
    write_lines(both / "captions.jsonl", [{"image": "x.jpg"}])
    assert "captions" in recognise(both) and open_dataset(both).name == "captions"  # ours goes before any other
    for name in set(reader_classes()) - {"captions"}:
        with pytest.raises(CorpusError, match="photos"):
            list(open_dataset(tmp_path / "photos", name).images())
            load_dataset(tmp_path / "photos", format=name)


# -- hostile and broken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../x.jpg", "", "a\0b", "\ud800"])
def test_no_image_is_taken_from_outside_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(PICTURES[0])
    inside = tmp_path / "data" / "images"
    pictures(inside, "0.jpg", "1.jpg", "2.jpg")
    finder = ImageFinder([str(tmp_path / "data")], str(inside))
    with pytest.raises(Outside):
        finder.find(name)
    assert finder.find(str(inside / "0.jpg")) == finder.find("./0.jpg") == str(inside / "0.jpg")
    if "\0" in name or "\ud800" in name:
        return
    images = [{"id": 0, "file_name": name}, {"id": 1, "file_name": "0.jpg"}]
    annotations = [{"id": n, "image_id": n, "caption": "x"} for n in range(2)]
    file = write_json(tmp_path / "data" / "captions.json", {"images": images, "annotations": annotations})
    assert skipped(file, images=str(inside))[0][1] in ("not in the image folder",)
    assert [line for line, _ in bad(file, images=str(inside))] == [1]
    (tmp_path / "data" / "t.csv").write_text(f'image,caption\n"{name}",x\n0.jpg,y\n')
    assert [line for line, _ in bad(tmp_path / "data" / "t.csv", images=str(inside))] == [2]


def test_a_prefix_of_a_folder_name_is_not_the_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "0.jpg", "1.jpg", "2.jpg")
    pictures(tmp_path / "images2", "0.jpg", "1.jpg", "2.jpg")
    with pytest.raises(Outside):
        ImageFinder([], str(tmp_path / "images")).find("../images2/0.jpg")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"images": "all", "annotations": []}, "is not COCO JSON"),
        ({"images": []}, "is not COCO JSON"),
        ({"images": [], "annotations": [{"bbox": [0, 0, 1, 1]}]}, "without captions"),
        ({"images": [], "annotations": []}, "holds no captions"),
    ],
)
def test_coco_json_that_is_not_what_it_says(body: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message):
        load_dataset(write_json(tmp_path / "x.json", body), format="coco")


def test_json_that_is_none(tmp_path: Path) -> None:
    for content, message in (
        (b'{"images": [', r"x.json:1: not JSON"),
        (b"\xff\xfe", "invalid UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"images": [], "annotations": [1' + b"0" * 5000 + b"]}", "not JSON"),
    ):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(CorpusError, match=message):
            load_dataset(tmp_path / "x.json", format="coco")
    for format in ("karpathy", "aic-icc"):
        with pytest.raises(CorpusError, match="is not"):
            load_dataset(write_json(tmp_path / "x.json", 3), format=format)


def test_coco_records_that_are_wrong_are_named_one_by_one(tmp_path: Path) -> None:
    pictures(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    images = [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}, 7, {"id": [1], "file_name": "x"},
              {"id": 2}, {"id": 3, "file_name": "gone.jpg"}]  # fmt: skip
    annotations = [
        {"id": 1, "image_id": 1, "caption": "good"}, {"id": 1, "image_id": 1, "caption": "the same id"}, "text",
        {"id": 3, "image_id": 99, "caption": "no such image"}, {"id": 4, "image_id": {"a": 1}, "caption": "x"},
        {"id": 5, "image_id": 1, "caption": ["a", 3]}, {"id": 6, "image_id": 1},
        {"id": 7, "image_id": 1, "caption": " "},
    ]  # fmt: skip
    file = write_json(tmp_path / "x.json", {"images": images, "annotations": annotations})
    reasons = [
        ("x.json:2", "duplicate id"),
        ("x.json:3", "an image without an id"),
        ("x.json:4", "an image without an id"),
        ("x.json:5", "an image without a file_name"),
        ("gone.jpg", "no such file"),
    ]
    assert skipped(file, "coco") == reasons
    assert [line for line, _ in bad(file, "coco")] == [2, 3, 4, 5, 6, 7, 8]
    assert [line.captions for line in good(file, "coco")] == [("good",)]
    with pytest.raises(CorpusError, match=r"x.json:2: duplicate id"):
        load_dataset(file, format="coco")


def test_lines_of_chinese_clip_that_are_wrong(tmp_path: Path) -> None:
    root = datasets.chinese_clip(tmp_path)
    with (root / "train_texts.jsonl").open("a") as file:
        for record in (
            {"text_id": 0, "text": "twice", "image_ids": [1000]},
            {"text": "no id", "image_ids": [1000]},
            {"text_id": 20, "text": 5, "image_ids": [1000]},
            {"text_id": 21, "text": "x", "image_ids": 1000},
            {"text_id": 22, "text": "x", "image_ids": []},
            {"text_id": 23, "text": "x", "image_ids": [[1]]},
        ):
            file.write(json.dumps(record) + "\n")
        file.write("not json\n")
    assert [line for line, _ in bad(root)] == [4, 5, 6, 7, 8, 9, 10]
    with (root / "train_imgs.tsv").open("ab") as file:
        for line in (b"1000\tQUJD", b"no tab", b"\tQUJD", b"77\t", b"x" * 550 + b"\tQUJD", b"\xff\tQUJD"):
            file.write(line + b"\n")
    reasons = ["duplicate id", "no tab between id and base64", "no id before the tab", "no base64 after the tab",
               "the id is too long", "the id is not UTF-8"]  # fmt: skip
    assert skipped(root) == [(f"train_imgs.tsv:{3 + n}", reason) for n, reason in enumerate(reasons)]
    write_lines(root / "train_texts.jsonl", [{"text_id": 1, "text": "x", "image_ids": [404]}])
    with pytest.raises(CorpusError, match=r"train_texts.jsonl:1: image .*::404 is not in the dataset"):
        load_dataset(root)
    (root / "valid_imgs.tsv").unlink()
    with pytest.raises(CorpusError, match=r"valid_imgs.tsv is missing"):
        load_dataset(root, format="chinese-clip")


def test_truncated_and_strange_tars(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "w.tar", sample(0) | sample(1) | sample(2))
    data = whole.read_bytes()
    at = data.index(b"000000001.jpg")
    for cut in (at + 700, at + 100, at):  # in the content, in the header, between two members
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        reader = open_dataset(tmp_path / "cut.tar")
        found = list(reader.images())
        assert [one.path.rpartition("::")[2] for one in found if isinstance(one, ImageFile)] == ["000000000.jpg"]
        assert [one.reason for one in found if isinstance(one, Skipped)] == ["truncated"]
        assert reader.unreadable == [f"{tmp_path}/cut.tar::"]
        assert [line.captions for line in good(tmp_path / "cut.tar")] == [(EN[0],)]
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(CorpusError, match=r"x.tar.gz is compressed \(gzip\): decompress it"):
        load_dataset(tmp_path / "x.tar.gz")
    (tmp_path / "text.tar").write_bytes(b"this is no tar\n" * 100)
    with pytest.raises(CorpusError, match=r"text.tar is not a tar file"):
        load_dataset(tmp_path / "text.tar")
    odd = {
        "a.jpg": PICTURES[0], "a.txt": b"one", "../../b.jpg": PICTURES[1], "../../b.txt": b"two", "c.jpg": b"",
        "d.mp3": b"x", "d.txt": b"of no image", "e.jpg": PICTURES[2], "e.txt": b"\xff", "e.json": b"[1]",
    }  # fmt: skip
    write_tar(tmp_path / "odd.tar", odd)
    assert skipped(tmp_path / "odd.tar") == [("odd.tar::c.jpg", "empty file")]
    assert [line.captions for line in good(tmp_path / "odd.tar")] == [("one",), ("two",)]
    assert [reason for _, reason in bad(tmp_path / "odd.tar")] == ["e: its .json is not an object"]


def test_tables_that_are_wrong(tmp_path: Path) -> None:
    pictures(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    rows = [
        b"image,caption",
        b"0.jpg,good",
        b"1.jpg",
        b"1.jpg,\xff\xfe",
        b"1.jpg,",
        b'2.jpg,"two\nlines"',
        b"",
        b"2.jpg,a,b",
    ]
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    assert [line for line, _ in bad(tmp_path / "t.csv")] == [3, 4, 5, 9]
    assert [line.captions for line in good(tmp_path / "t.csv")] == [("good",), ("two lines",)]
    (tmp_path / "t.csv").write_bytes(b'image,caption\n0.jpg,"' + b"x" * 200_000 + b'"\n0.jpg,fine\n')
    assert bad(tmp_path / "t.csv")[0][1].startswith("not csv (field larger than field limit")
    assert good(tmp_path / "t.csv")[-1].captions == ("fine",)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CorpusError, match="its first line names no image column and caption column; known are image"):
        load_dataset(tmp_path / "t.csv", format="csv")


def test_wrong_lines_of_token_files(tmp_path: Path) -> None:
    pictures(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    lines = ["0.jpg#0\ta dog", "1.jpg\tno number", "../../x.jpg#0\toutside", "2.jpg#0\ta cat", "9.jpg#0\tgone"]
    (tmp_path / "x.token.txt").write_text("\n".join(lines))
    assert [line for line, _ in bad(tmp_path / "x.token.txt", images=str(tmp_path))] == [2, 3]
    assert [reason for _, reason in skipped(tmp_path / "x.token.txt", images=str(tmp_path))] == [
        "not in the image folder", "no such file"
    ]  # fmt: skip


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_damage_anywhere_ends_in_our_errors_or_bad_lines(make: Builder, tmp_path: Path) -> None:
    """Bytes changed, cut out and doubled at random in every file but the pictures: never anything but a named error."""
    rng = random.Random(make.__name__)
    root = make(tmp_path / "data")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in (".jpg", ".mdb")]
    for number in range(12 if files else 0):
        path = rng.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            at, end = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
            kind = rng.randrange(3)
            if kind == 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                del data[at : max(at, min(end, at + 200))]
            else:
                data[at:at] = data[end : end + 50]
        path.write_bytes(data)
        try:
            reader = open_dataset(root, LAYOUTS[make][0])
            found = [one for one in reader.images() if isinstance(one, ImageFile)]
            for line in reader.lines():
                assert isinstance(line, (CaptionLine, BadLine)) and str(line), number
            for one in found:
                with contextlib.suppress(ImageError):
                    read_file(one.path, place=one.place)
        except (CorpusError, UsageError) as error:
            assert "\n" not in str(error), number
        path.write_bytes(whole)
