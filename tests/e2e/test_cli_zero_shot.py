"""classify, match and embed through the real command line: no index, every format, every mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import draw, write_bad_files, write_corpus
from tests.support.site import Ended, refused, run
from tests.support.tiny import make_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with photos, labels, and a checkpoint that has a calibration and one that has none."""
    folder = tmp_path_factory.mktemp("place")
    write_corpus(folder / "photos", 6)
    reasons = write_bad_files(folder / "mixed")
    draw("red", "ring").save(folder / "mixed" / "good.png")
    assert len(reasons) > 5
    (folder / "labels.txt").write_text("红色圆形\t红圆\nblue square\n绿色十字\n", encoding="utf-8")
    make_checkpoint(folder / "model", calibration={"slope": 12.0, "intercept": -5.0})
    make_checkpoint(folder / "plain", seed=1)
    return folder


@pytest.fixture
def cli(place: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Ended]) -> Callable[..., Ended]:
    """The entry point in this process, in the working folder, with the calibrated model."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("BRIVL_SEARCH_ENCODER", "model")

    return run_here


def test_classify_in_a_pipe(place: Path) -> None:
    done = run(
        place, "classify", "photos", "--labels", "labels.txt", "-k", "2", "--encoder", "model", "--device", "cpu"
    )
    assert done.code == 0 and done.err.splitlines() == ["labels: 3", "images: 6"], done
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows) and len(rows) == 6
    assert rows[0]["path"] == "photos/images/0000-red-circle.jpg" and len(rows[0]["labels"]) == 2
    for row in rows:
        first, second = row["labels"]
        assert (first["label"], first["score"]) == (row["label"], row["score"]) and first["score"] >= second["score"]
        assert first["probability"] >= second["probability"] and {"path", "label", "probability"} <= set(row)


def test_classify_formats(cli: Callable[..., Ended]) -> None:
    verb = ("classify", "photos", "--labels", "labels.txt", "--workers", "0")
    rows = [json.loads(line) for line in cli(*verb).out.splitlines()]
    for row in rows:  # all three labels, so the shares add up
        assert sum(guess["probability"] for guess in row["labels"]) == pytest.approx(1, abs=2e-4)
    listed = list(csv.DictReader(io.StringIO(cli(*verb, "--format", "csv").out)))
    assert [row["path"] for row in listed[::3]] == [row["path"] for row in rows] and len(listed) == 18
    assert list(listed[0]) == ["path", "rank", "label", "probability", "score"]
    assert [row["label"] for row in listed[::3]] == [row["label"] for row in rows]
    table = cli(*verb, "--format", "table", "-k", "1", "--quiet")
    assert table.err == "" and len(table.out.splitlines()) == 7 and "█" in table.out
    assert table.out.split()[:4] == ["image", "label", "probability", "score"]
    # Another wording gives other scores, and the label is reported by its own name.
    other = [json.loads(line) for line in cli(*verb, "--template", "一张{}图片").out.splitlines()]
    assert [r["score"] for r in other] != [r["score"] for r in rows] and other[0]["label"] in (
        "红色圆形",
        "blue square",
        "绿色十字",
    )


def test_classify_without_a_calibration(cli: Callable[..., Ended]) -> None:
    verb = ("classify", "photos", "--labels", "labels.txt", "--workers", "0", "--encoder", "plain")
    done = cli(*verb)
    assert done.code == 0 and "no calibration: the score is the cosine, and there is no probability" in done.err
    assert "probability" not in done.out and len(done.out.splitlines()) == 6
    assert "probability" not in cli(*verb, "--format", "table", "--quiet").out
    assert cli(*verb, "--format", "csv", "--quiet").out.startswith("path,rank,label,score\n")


def test_pictures_that_cannot_be_read(cli: Callable[..., Ended], place: Path) -> None:
    verb = ("classify", "mixed", "--labels", "labels.txt", "--workers", "0")
    done = cli(*verb)
    assert done.code == 0 and [json.loads(line)["path"] for line in done.out.splitlines()] == ["mixed/good.png"]
    assert "skipped: truncated" in done.err and "truncated.jpg" in done.err and "skipped: empty file" in done.err
    strict = cli(*verb, "--strict", "--quiet")
    assert strict.code == 4 and strict.out == done.out and strict.err.endswith("files were skipped (--strict)\n")
    none = cli("embed", "mixed/text.jpg", "--out", "none.npy", "--quiet", "--workers", "0")
    refused(none, 1, "no image can be read", "text.jpg: not an image")
    assert not (place / "none.npy").exists()


def test_match(cli: Callable[..., Ended]) -> None:
    red, blue = "photos/images/0000-red-circle.jpg", "photos/images/0002-blue-circle.jpg"
    done = cli("match", "--text", "红色圆形", "--image", red)
    assert done.code == 0 and done.err == ""
    row = json.loads(done.out)
    assert (row["text"], row["image"]) == ("红色圆形", red) and -1 <= row["score"] <= 1
    assert row["match"] == pytest.approx(1 / (1 + np.exp(-(12.0 * row["score"] - 5.0))), abs=1e-3)
    several = ("match", "-t", "红色圆形", "-t", "a dog", "--image", red, "--image", blue)
    rows = list(csv.DictReader(io.StringIO(cli(*several, "--format", "csv").out)))
    assert [(r["text"], r["image"]) for r in rows] == [
        ("红色圆形", red),
        ("红色圆形", blue),
        ("a dog", red),
        ("a dog", blue),
    ]
    assert float(rows[0]["score"]) == pytest.approx(row["score"], abs=1e-5)
    matrix = cli(*several, "--format", "table").out.splitlines()
    assert len(matrix) == 3 and matrix[0].split() == ["image", "红色圆形", "a", "dog"]
    assert f"{row['score']:.3f}" in matrix[1] and f"{row['match']:.0%}" in matrix[1] and blue in matrix[2]
    assert cli(*several, "--format", "table", "--encoder", "plain").err.startswith("warning: this encoder has no cal")


def test_embed_and_import_is_build_index(place: Path, cli: Callable[..., Ended]) -> None:
    """What embed writes makes the very index that build-index makes of the same photos."""
    done = cli("embed", "photos/images", "--out", "sub.npy", "--workers", "0")
    assert done.code == 0 and done.out == "" and "sub.npy: 6 × 32 float32" in done.err
    vectors = np.load(place / "sub.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for verb in (
        ("import", "--vectors", "sub.npy", "--records", "sub.jsonl", "--index", "imported", "--quiet"),
        ("build-index", "photos", "--index", "built", "--workers", "0", "--quiet"),
        ("export", "out-imported", "--index", "imported", "--quiet"),
        ("export", "out-built", "--index", "built", "--quiet"),
    ):
        assert cli(*verb).code == 0
    lines = [(place / out / "image.jsonl").read_text("utf-8").splitlines() for out in ("out-imported", "out-built")]
    imported, built = ([json.loads(line) for line in part] for part in lines)
    assert [{**line, "origin": "scan"} for line in imported] == built and len(built) == 6
    assert {line["origin"] for line in imported} == {"import"}
    one, other = (np.load(place / out / "image.npy") for out in ("out-imported", "out-built"))
    np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=2e-3)
    again = cli("build-index", "photos", "--index", "imported", "--workers", "0")
    assert "6 images found: 0 embedded" in again.err and "6 unchanged" in again.err


def test_embed_texts(place: Path, cli: Callable[..., Ended], tmp_path: Path) -> None:
    (place / "texts.txt").write_text("一只狗\n\n a red circle \n", encoding="utf-8")
    done = run(place, "embed", "-t", "草地", "--texts", "texts.txt", "--dtype", "float16", "--encoder", "model")
    assert done.code == 0 and done.err.splitlines() == ["texts: 3"], done
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["text"] for row in rows] == ["草地", "一只狗", "a red circle"] and len(rows[0]["vector"]) == 32
    out = ("--out", "t.npy", "--dtype", "float16")
    assert cli("embed", "-t", "草地", "--texts", "texts.txt", *out, "--quiet").err == ""
    saved = np.load(place / "t.npy")
    assert saved.dtype == np.float16
    np.testing.assert_allclose(saved, [row["vector"] for row in rows], atol=2e-3)  # NumPy's tower and torch's
    take = ("import", "--vectors", "t.npy", "--records", "t.jsonl", "--modality", "text", "--index", "texts")
    assert "0 images and 3 captions taken in" in cli(*take).err
    hits = cli("query", "一只狗", "--target", "text", "--index", "texts", "-k", "1").out
    assert json.loads(hits)["text"] == "一只狗"


def test_embed_of_stdin_and_of_names_that_are_not_utf8(
    place: Path, cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("草\nx\n".encode())))
    assert [json.loads(line)["text"] for line in cli("embed", "--texts", "-").out.splitlines()] == ["草", "x"]
    name = os.fsdecode(b"caf\xe9\x1b.png")
    draw("blue", "ring").save(place / name)
    row = json.loads(cli("embed", name, "--workers", "0").out)
    assert (row["path"], row["width"], len(row["vector"]), len(row["content"])) == (name, 96, 32, 64)


def test_mistakes(cli: Callable[..., Ended], place: Path) -> None:
    photo = "photos/images/0000-red-circle.jpg"
    refused(cli("classify", photo), 2, "--labels")
    refused(cli("classify", photo, "--labels", "no.txt"), 2, "--labels no.txt: No such file")
    refused(cli("classify", "gone\x1b[2J.jpg", "--labels", "labels.txt"), 2, "no such file or folder: gone\\x1b[2J.jpg")
    refused(cli("classify", photo, "--labels", "labels.txt", "--template", "x"), 2, "--template 'x': put {}")
    refused(cli("classify", photo, "--labels", "labels.txt", "-k", "0"), 2, "-k")
    refused(cli("match", "--text", "x", "--image", "labels.txt"), 2, "--image labels.txt: not an image")
    refused(cli("match", "--text", " ", "--image", photo), 2, "the text is empty")
    refused(cli("embed"), 2, "nothing to embed")
    refused(cli("embed", photo, "-t", "x", "--out", "x.npy"), 2, "either images or texts")
    refused(cli("embed", "-t", "x", "--out", "x.txt"), 2, "ends in .npy")
    refused(cli("embed", "-t", "x", "--out", "no/x.npy", "--quiet"), 2, "--out no/x.npy: No such file")
    refused(cli("embed", "--texts", "no.txt"), 2, "--texts no.txt: No such file")
    refused(cli("embed", "-t", "x", "--encoder", "nothing"), 2, "no encoder 'nothing'")
