"""The real command line: what a user types, what comes out on which stream, and how every mistake ends.

`run` starts a process; `cli` runs the same entry point in this one, which spares the seconds that torch needs to load.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brivl_search.cli.demo import PATH_CELLS, QUERIES, Answered, Question, short
from brivl_search.search.hits import Hit
from tests.support.folders import REPO
from tests.support.pictures import jpeg
from tests.support.site import PICTURE, Ended, refused, run
from tests.support.stub import environment
from tests.support.warm import run_warm

# -- the three lines of the README -------------------------------------------------------------------------------


def test_query_in_a_pipe(site: Path) -> None:
    """Only results on stdout, only the warning on stderr."""
    done = run(site, "query", "一只狗 a dog on grass " * 40, "--index", "index", "-k", "3", "--device", "cpu")
    assert done.code == 0, done
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert all(row["path"].startswith("photos/images/") and (site / row["path"]).is_file() for row in rows)
    assert [row["width"] for row in rows] == [96] * 3
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: ") and "tokens were not seen" in lines[0]


def test_query_formats(cli: Callable[..., Ended], site: Path) -> None:
    query = ("query", "红色圆形", "--index", "index", "-k", "4")
    rows = [json.loads(line) for line in cli(*query).out.splitlines()]
    assert len(rows) == 4
    paths = [row["path"] for row in rows]
    assert cli(*query, "--format", "jsonl").out == cli(*query).out
    table = cli(*query, "--format", "table")
    assert table.err == "" and all(path in table.out for path in paths) and len(table.out.splitlines()) == 5
    listed = list(csv.DictReader(io.StringIO(cli(*query, "--format", "csv").out)))
    assert [row["path"] for row in listed] == paths
    assert cli(*query, "--format", "paths").out == "".join(path + "\n" for path in paths)
    assert cli(*query, "-0").out == cli(*query, "--print0").out == "".join(path + "\0" for path in paths)
    for more in (["--exact"], ["--nprobe", "2", "--rerank", "50"]):
        assert cli(*query, *more).out == cli(*query).out  # an exact index


def test_query_by_picture(cli: Callable[..., Ended]) -> None:
    rows = [json.loads(line) for line in cli("query", "--image", PICTURE, "-i", "index").out.splitlines()]
    assert len(rows) == 10 and set(rows[0]) == {"rank", "score", "text", "field", "image"}
    similar = cli("query", "--image", PICTURE, "--target", "image", "-i", "index", "-k", "2")
    assert json.loads(similar.out.splitlines()[0])["path"] == PICTURE
    texts = cli("query", "red", "--target", "text", "-i", "index", "-k", "500", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(texts.out)))) == 120


def test_eval_of_the_index_and_of_the_folder(site: Path, cli: Callable[..., Ended], tiny_checkpoint: Path) -> None:
    done = run(site, "eval", "--recall-at", "1,5,30", "--index", "index")
    assert (done.code, done.err) == (0, ""), done
    figures = json.loads(done.out)
    assert figures["text_to_image"]["queries"] == 120 and figures["image_to_text"]["candidates"] == 120
    assert figures["text_to_image"]["exact"] == figures["text_to_image"]["through_index"]
    assert figures["text_to_image"]["exact"]["R@30"] == 100.0
    folder = cli("eval", "--dataset", "photos", "--encoder", str(tiny_checkpoint), "--recall-at", "1,5,30", "-q")
    assert (folder.code, folder.err) == (0, ""), folder
    direct = json.loads(folder.out)
    for direction, queries in (("text_to_image", 120), ("image_to_text", 30)):
        assert direct[direction]["through_index"] is None
        for name, value in direct[direction]["exact"].items():
            if name.startswith("R@"):
                assert value == pytest.approx(figures[direction]["exact"][name], abs=3 * 100 / queries)
    table = cli("eval", "--index", "index", "--format", "table", "--captions", "zh")
    assert "R@10" in table.out and "text → image" in table.out and "any-hit" in table.out and "zh" in table.out


def test_info_and_verify(cli: Callable[..., Ended], site: Path, tiny_checkpoint: Path) -> None:
    facts = json.loads(cli("info", "--index", "index").out)
    assert (facts["image"]["rows"], facts["text"]["rows"], facts["generation"]) == (30, 120, 1)
    assert facts["encoder"]["name"] == str(tiny_checkpoint) and facts["encoder"]["dim"] == 32
    assert facts["folders"] == [{"given": "photos", "absolute": str(site / "photos")}]
    shown = cli("info", "-i", "index", "--format", "table").out
    assert "30 rows, 0 removed" in shown and "exact search" in shown and "folder    photos " in shown
    checked = cli("verify", "--index", "index")
    assert (checked.code, checked.out) == (0, "index: sound; generation 1, 2 shards, 150 rows\n")


def test_index_by_environment(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIVL_SEARCH_INDEX", "index")
    assert json.loads(cli("info").out)["image"]["rows"] == 30
    monkeypatch.setenv("BRIVL_SEARCH_ENCODER", "no-such-encoder")
    refused(cli("query", "red"), 2, "no-such-encoder")


def test_second_build_uses_the_encoder_of_the_index(cli: Callable[..., Ended]) -> None:
    again = cli("build-index", "photos", "--index", "index")
    assert again.code == 0 and "0 embedded, 30 unchanged" in again.err and "generation 1" in again.err
    assert cli("build-index", "photos", "--index", "index", "--quiet").err == ""


def test_closed_pipe(site: Path) -> None:
    """`brivl-search info | head -0`: no traceback, no error."""
    program = "import sys; from brivl_search.cli import main; sys.argv = ['x', 'info', '-i', 'index']; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=site, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["info", "-i", "index"], ["verify", "-i", "index"], ["query", " "]])
def test_light_verbs_import_nothing_heavy(site: Path, arguments: list[str]) -> None:
    program = (
        "import sys\nfrom brivl_search.cli import main\n"
        f"sys.argv = ['brivl-search', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'faiss', 'transformers', 'timm', 'tokenizers', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True, env=environment(), timeout=60)
    assert "heavy: []" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


# -- whatever the files are called -------------------------------------------------------------------------------


def stub(folder: Path, *arguments: str, encoding: str = "utf-8") -> bytes:
    """The real command line with an encoder that needs no torch; it must end well."""
    more = environment(PYTHONIOENCODING=encoding)
    done = run_warm("tests.support.stub", arguments, cwd=folder, env=more, timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    return done.stdout


def odd_corpus(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / f"{name}.jpg").write_bytes(jpeg())
    caption = json.dumps({"image": f"{name}.jpg", "zh": "狗"})
    (folder / name / "captions.jsonl").write_text(caption, encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_stdout_cannot_print(tmp_path: Path, encoding: str) -> None:
    """A folder and a picture whose names are not UTF-8, an index called 索引: every verb prints and ends well."""
    name = os.fsdecode(b"caf\xe9 \xe7\x8b\x97")
    odd_corpus(tmp_path, name)
    stub(tmp_path, "build-index", name, "-i", "索引", encoding=encoding)
    query = ("query", "狗", "-i", "索引", "--format")
    assert json.loads(stub(tmp_path, *query, "jsonl", encoding=encoding))["path"] == f"{name}/{name}.jpg"
    assert stub(tmp_path, *query, "paths", encoding=encoding) == os.fsencode(f"{name}/{name}.jpg\n")
    for form in ("table", "csv"):
        assert stub(tmp_path, *query, form, encoding=encoding)
    assert stub(tmp_path, "info", "--format", "table", "-i", "索引", encoding=encoding)
    if encoding == "ascii":
        assert stub(tmp_path, "eval", "--format", "json", "-i", "索引", encoding=encoding)
        assert stub(tmp_path, "verify", "-i", "索引", encoding=encoding)


def test_index_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    odd_corpus(tmp_path, "photos")
    index = os.fsdecode(b"index-caf\xe9")
    stub(tmp_path, "build-index", "photos", "--index", index)
    assert json.loads(stub(tmp_path, "query", "狗", "--index", index))["path"] == "photos/photos.jpg"
    assert stub(tmp_path, "info", "--index", index) and stub(tmp_path, "info", "--format", "table", "-i", index)
    assert stub(tmp_path, "eval", "--index", index) and stub(tmp_path, "verify", "--index", index)


# -- the demo ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    if not (importlib.util.find_spec("skimage") and importlib.util.find_spec("sklearn")):
        pytest.skip("needs scikit-image and scikit-learn")
    if not (REPO / "brivl_search" / "models" / "brivl-mini" / "config.json").is_file():
        pytest.skip("no bundled checkpoint")
    done = run(tmp_path, "demo", "--device", "cpu", timeout=300)
    assert done.code == 0 and "Traceback" not in done.err, done
    assert "warning" not in done.err
    assert "contact sheet: demo.html" in done.err and "pictures of scikit-image" in done.err
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert all(question.text in done.out and question.text in page for question in QUERIES)
    assert re.search(rf"first hits that are right: \d+ of {sum(bool(one.right) for one in QUERIES)}; ", done.out)
    assert (tmp_path / "indexes" / "demo" / "catalog.lmdb").is_file()


def test_what_the_demo_calls_right() -> None:
    def hit(name: str, score: float, match: float) -> Hit:
        return Hit(1, score, "image", f"/photos/{name}", match=match)

    cat = Question("一只猫", ("chelsea.png",))
    both = [hit("chelsea.png", 0.5, 0.9), hit("coffee.png", 0.49, 0.2), hit("x.png", 0.49, 0.2)]
    answered = Answered.of(cat, both)
    assert answered.right and [one.score for one in answered.hits] == [0.5, 0.49]  # a second that is close
    assert len(Answered.of(cat, [both[0], hit("coffee.png", 0.4, 0.2)]).hits) == 1
    assert not Answered.of(cat, both[1:]).right and not Answered.of(cat, []).right
    nothing = Question("一头大象")
    assert Answered.of(nothing, both[1:2]).right and not Answered.of(nothing, both[:1]).right
    assert short("/usr/lib/" + "x" * 90 + "/cat.png").endswith("…/cat.png") and len(short("/" + "x" * 99)) <= PATH_CELLS


def test_demo_without_the_photographs(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(cli("demo"), 1, "pip install")
