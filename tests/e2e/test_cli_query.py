"""Sums, filters, folding and batches through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
from tests.support.site import PICTURE, Ended, refused
from tests.support.stub import environment
from tests.support.sure import sure

GBK = os.fsdecode("狗".encode("gbk"))
Cli = Callable[..., Ended]


def rows(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0 and ended.err == "", ended
    return [json.loads(line) for line in ended.out.splitlines()]


def test_sums(cli: Cli) -> None:
    plain = rows(cli("query", "red circle", "-i", "index", "-k", "30"))
    same = rows(cli("query", "--plus", "2:red circle", "-i", "index", "-k", "30"))
    assert [row["path"] for row in same] == [row["path"] for row in plain]
    away = rows(cli("query", "red circle", "--minus", "0.5:blue cross", "-i", "index", "-k", "30"))
    assert [row["score"] for row in away] != [row["score"] for row in plain]
    both = rows(cli("query", "--image", PICTURE, "--image", PICTURE, "--plus", "0.1:草", "-i", "index", "-k", "1"))
    assert both[0]["path"] == PICTURE and 0.9 < both[0]["score"] <= 1
    captions = rows(cli("query", "red", "--target", "texts", "-i", "index", "-k", "3"))
    assert all("text" in row for row in captions)
    images = rows(cli("query", "--image", PICTURE, "--target", "images", "-i", "index", "-k", "1"))
    assert images[0]["path"] == PICTURE and images[0]["score"] > 0.99


def test_filters_and_folding(cli: Cli) -> None:
    red = rows(cli("query", "dog", "--glob", "*-red-*", "-i", "index", "-k", "30"))
    assert len(red) == 5 and all("-red-" in row["path"] for row in red)
    for filters, why in (
        (["--min-size", "97"], "--min-size 97x97: the largest image has 96x96 pixels\n"),
        (["--before", "2000"], "--before 2000-01-01: the oldest image is of "),
    ):
        ended = cli("query", "dog", *filters, "-i", "index")
        assert (ended.code, ended.out) == (0, "") and ended.err.startswith(why)
    wrong = cli("query", "dog", "--glob", "*-red-*", "--under", "photo/images", "-i", "index")
    refused(wrong, 2, "--under photo/images: the index holds no images there (did you mean photos/images? ")
    assert len(rows(cli("query", "dog", "--after", "2000", "--where", "width=96", "-i", "index", "-k", "99"))) == 30
    captions = rows(cli("query", "dog", "--target", "texts", "--where", "field=zh", "-i", "index", "-k", "99"))
    assert len(captions) == 60 and {row["field"] for row in captions} == {"zh"}
    one = rows(cli("query", "dog", "--dedupe", "--alike", "0", "-i", "index", "-k", "99"))
    assert sum(1 + row.get("alike", 0) for row in one) == 30
    assert rows(cli("query", "dog", "--min-score", "1", "-i", "index")) == []


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["x", "--where", "splitt=a"], 2, ["splitt", "height, width"]),
        (["x", "--where", "splitt"], 2, ["FIELD=VALUE"]),
        (["x", "--after", "soon"], 2, ["--after soon"]),
        (["x", "--min-size", "big"], 2, ["--min-size big"]),
        (["x", "--min-match", "0.5"], 2, ["no calibration", "--min-score"]),
        (["x", "--min-match", "50"], 2, ["--min-match 50"]),
        (["x", "--minus", "x"], 2, ["cancel each other out"]),
        (["--minus", "x"], 2, ["give a text or --image"]),
        (["--plus", "x", "--minus-image", "gone.jpg"], 2, ["--image gone.jpg: no such file"]),
        (["x", "--batch", "-"], 2, ["--batch takes its queries from the file alone"]),
        (["--batch", "gone.txt"], 2, ["--batch gone.txt: No such file"]),
        (["--batch", "photos"], 2, ["--batch photos: Is a directory"]),
        (["--batch", "-", "--open"], 2, ["leave out --batch"]),
        (["x", "--encoding", "big5"], 2, ["--encoding says how the file of --batch is written"]),
        ([GBK], 2, ["the query is not UTF-8 text, it seems to be GBK"]),
        (["x", "--plus", GBK], 2, ["--plus is not UTF-8 text"]),
        (["x", "--where", f"a={GBK}"], 2, ["--where is not UTF-8 text"]),
    ],
)
def test_refusals(cli: Cli, line: list[str], code: int, words: list[str]) -> None:
    refused(cli("query", *line, "-i", "index"), code, *words)


def test_batch(cli: Cli, site: Path) -> None:
    lines = [
        "red circle",
        "",
        json.dumps({"image": PICTURE, "k": 2, "target": "images"}),
        '{"text": "狗", "plus": ["草"], "k": 1}',
    ]
    (site / "queries.txt").write_text("\n".join(lines), encoding="utf-8")
    found = rows(cli("query", "--batch", "queries.txt", "-i", "index", "-k", "3"))
    assert [(row["n"], row["rank"]) for row in found] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]
    assert {row["query"] for row in found} == {"red circle", os.path.basename(PICTURE), "狗 + 草"}
    alone = rows(cli("query", "red circle", "-i", "index", "-k", "3"))
    for row, same in zip(found[:3], alone, strict=True):
        assert row["path"] == same["path"] and row["score"] == pytest.approx(same["score"], abs=1e-5)
    csv = cli("query", "--batch", "queries.txt", "-i", "index", "--format", "csv").out.splitlines()
    assert csv[0].startswith("query,n,rank,score") and sum(line.startswith("query,") for line in csv) == 1


def test_batches_of_other_encodings(cli: Cli, site: Path) -> None:
    """Refused with the name of the encoding; read where it is given; words that nobody knows are named."""
    for codec, name in (("gb18030", "GBK"), ("utf-16", "UTF-16")):
        (site / "other.txt").write_bytes("红 色 方 形\n犇\n".encode(codec))
        refused(
            cli("query", "--batch", "other.txt", "-i", "index"), 2, f"it seems to be {name}: give --encoding {codec}"
        )
        done = cli("query", "--batch", "other.txt", "--encoding", codec, "-i", "index", "-k", "1")
        assert done.code == 0 and [json.loads(line)["query"] for line in done.out.splitlines()] == ["红 色 方 形", "犇"]
        assert done.err == "warning: line 2: the encoder knows no word of the text (犇): the hits mean nothing\n"


def test_a_bad_line_costs_only_itself(cli: Cli, site: Path) -> None:
    (site / "some.txt").write_text('red\n{"k": 1}\n{"image": "gone.jpg"}\nblue\n')
    done = cli("query", "--batch", "some.txt", "-i", "index", "-k", "1")
    out = [json.loads(line) for line in done.out.splitlines()]
    assert [row["n"] for row in out] == [0, 1, 2, 3] and ["error" in row for row in out] == [False, True, True, False]
    assert done.code == 1 and "2 of 4 queries could not be answered" in done.err and "gone.jpg" in done.err
    assert "Traceback" not in done.err


def test_a_stream_is_answered_as_it_comes(site: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "brivl_search",
        "query",
        "--batch",
        "-",
        "-i",
        "index",
        "-k",
        "1",
        "--format",
        "paths",
    ]
    with subprocess.Popen(
        command, cwd=site, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        for words in ("red circle", "blue cross"):
            process.stdin.write(words + "\n")
            process.stdin.flush()
            line = process.stdout.readline() or process.stdout.readline()
            while line == "\n":
                line = process.stdout.readline()
            assert line.startswith("photos/images/"), line  # though stdin is still open
            time.sleep(0.05)
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_only_the_text_tower(site: Path) -> None:
    """No torch, transformers or timm for any query of texts."""
    code = (
        "import sys; sys.argv = ['brivl-search', 'query', 'red', '--plus', 'dog', '--minus', '0.2:snow', "
        "'--dedupe', '--glob', '*.jpg', '--after', '2000', '-i', 'index']\n"
        "from brivl_search.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'timm', 'torchvision'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=site, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done


def test_nothing_fits_and_how_many_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderCheckpoint, "confidence", property(lambda self: sure(self.config.dim)))
    hits = rows(cli("query", "a dog", "-i", "index", "-k", "30"))  # a pipe is told by each hit
    assert all(hit["fits"] is (hit["match"] >= 0.3) for hit in hits)
    least = max(hit["match"] for hit in hits)
    told = cli("query", "a dog", "-i", "index", "--format", "table")
    assert (least < 0.3) == (told.err == "no photo reaches 30%: the best are shown\n"), (least, told.err)
    assert cli("query", "red circle", "-i", "index", "--format", "table").err == ""
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    chinese = cli("query", "a dog", "-i", "index", "--format", "table")
    assert (least < 0.3) == ("没有照片的匹配度达到 30%" in chinese.err)
    line = cli("query", "red circle", "-i", "index", "--count", "--format", "table").out
    monkeypatch.delenv("LANGUAGE")
    (count,) = rows(cli("query", "red circle", "-i", "index", "--count"))
    whole = rows(cli("query", "red circle", "-i", "index", "-k", "30"))
    assert count["rows"] == 30 and count["fit"] == pytest.approx(
        sum(hit["match"] for hit in whole if hit["match"] >= 0.05), abs=0.06
    )
    assert line.startswith("30 张照片中约有 ") and f"{count['fit']:.1f}" in line
    plain = cli("query", "red circle", "-i", "index", "--count", "--format", "table").out
    assert plain == f"about {count['fit']:.1f} of 30 photos fit (the sum of their chances)\n"
    refused(cli("query", "--batch", "-", "-i", "index", "--count"), 2, "--count is about one query")
    refused(cli("query", "red", "--plus", "blue", "-i", "index", "--count"), 2, "--count needs a match")
