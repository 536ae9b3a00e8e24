"""Caption and annotation files in another encoding: named where they are met, read where the encoding is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brivl_search.corpus.captions import BadLine, read_captions
from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.readers import open_dataset
from brivl_search.corpus.readers.base import Choice
from brivl_search.errors import CorpusError, UsageError
from tests.support.pictures import draw

ZH = ("一只棕色的狗在草地上奔跑", "两个女人在街上")
CODECS = {"gb18030": "GBK", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "big5": "Big5"}
FILES = {
    "table.csv": "image,caption\na.png,{}\nb.png,{}\n",
    "table.tsv": "filepath\ttitle\na.png\t{}\nb.png\t{}\n",
    "captions.jsonl": '{{"image": "a.png", "zh": "{}"}}\n{{"image": "b.png", "zh": "{}"}}\n',
    "own.jsonl": '{{"image": "a.png", "zh": "{}"}}\n{{"image": "b.png", "zh": "{}"}}\n',
    "x.token": "a.png#0\t{}\nb.png#0\t{}\n",
    "list.json": '[{{"image_id": "a.png", "caption": "{}"}}, {{"image_id": "b.png", "caption": "{}"}}]',
}


def write(folder: Path, name: str, codec: str) -> Path:
    for picture in ("a.png", "b.png"):
        draw("red", "circle").save(folder / picture)
    texts = ("狗在草地上跑", "兩個女人在街上") if codec == "big5" else ZH
    (folder / name).write_bytes(FILES[name].format(*texts).encode(codec))
    return folder / name


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_says_how_it_is_encoded_and_is_read_with_it(tmp_path: Path, name: str, codec: str) -> None:
    file = write(tmp_path, name, codec)
    with pytest.raises(CorpusError, match=rf"seems to be {CODECS[codec]}: give `encoding` {codec}"):
        load_dataset(file)
    found = load_dataset(file, encoding=codec)
    assert [Path(image).name for image in found.images] == ["a.png", "b.png"]
    texts = ("狗在草地上跑", "兩個女人在街上") if codec == "big5" else ZH
    assert found.captions == ((texts[0],), (texts[1],))


def test_the_wrong_encoding_is_told(tmp_path: Path) -> None:
    for name in FILES:
        file = write(tmp_path, name, "utf-8")
        with pytest.raises(CorpusError, match="not ascii text: it seems to be UTF-8"):
            load_dataset(file, encoding="ascii", format=None if name != "x.token" else "flickr")
    with pytest.raises(UsageError, match="`encoding` klingon"):
        load_dataset(file, encoding="klingon")


def test_one_bad_line_costs_itself_and_says_what_it_seems(tmp_path: Path) -> None:
    good = json.dumps({"image": "a.png", "zh": "狗"}, ensure_ascii=False).encode()
    bad = json.dumps({"image": "b.png", "zh": "狗"}, ensure_ascii=False).encode("gbk")
    (tmp_path / "captions.jsonl").write_bytes(good + b"\n" + bad + b'\n{"image": "c.png", "zh": "c"}\n')
    one, wrong, last = list(read_captions(tmp_path / "captions.jsonl"))
    assert isinstance(wrong, BadLine) and wrong.line == 2 and wrong.reason == "invalid UTF-8"
    assert not isinstance(one, BadLine) and one.captions == ("狗",)
    assert not isinstance(last, BadLine) and last.captions == ("c",)


def test_a_table_whose_rows_are_all_damaged_says_so_and_not_that_it_has_no_images(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,caption\na.png,caf\xe9\n")
    with pytest.raises(CorpusError, match=r"t\.csv:2: invalid UTF-8: no row"):
        list(open_dataset(tmp_path / "t.csv", None, Choice()).images())


def test_texts_of_samples_in_another_encoding(tmp_path: Path) -> None:
    folder = tmp_path / "00000"
    folder.mkdir()
    draw("red", "circle").save(folder / "000000000.png")
    (folder / "000000000.txt").write_bytes(ZH[0].encode("gb18030"))
    with pytest.raises(CorpusError, match="invalid UTF-8: it seems to be GBK, `encoding` gb18030 reads it"):
        load_dataset(tmp_path, format="img2dataset")
    assert load_dataset(tmp_path, format="img2dataset", encoding="gb18030").captions == ((ZH[0],),)
    with pytest.raises(CorpusError, match="not ascii text: it seems to be GBK"):
        load_dataset(tmp_path, format="img2dataset", encoding="ascii")
