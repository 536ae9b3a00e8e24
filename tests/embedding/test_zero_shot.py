"""Classes by name, single pairs, and vectors without an index."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding import batches as embedding
from brivl_search.embedding import pictures, zero_shot
from brivl_search.embedding.zero_shot import Label
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import CorpusError, UsageError
from brivl_search.transfer import vector_file
from tests.support.pictures import draw, write_bad_files, write_corpus
from tests.support.stub import StubEncoder


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


# -- labels ------------------------------------------------------------------------------------------------------


def test_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.txt", "\ufeff狗\t小狗\t 狗 \r\n\n  cat\tkitten  \n#hash\t\t\n")
    assert zero_shot.read_labels(path) == [
        Label("狗", ("狗", "小狗")),
        Label("cat", ("cat", "kitten")),
        Label("#hash", ("#hash",)),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\n \t\n", "holds no label"),
        ("dog\ncat\ndog\n", r"labels\.txt:3: 'dog' is line 1 too"),
        (b"caf\xe9\n", "not UTF-8 text, it seems to be Latin-1"),
        ("狗\n猫\n".encode("gbk"), r"labels\.txt: not UTF-8 text, it seems to be GBK: give `encoding` gb18030"),
        ("dog\n".encode("utf-16"), "UTF-16"),
        ("\u200b\n\ufeff\t\u00ad", "holds no label"),
        (None, "No such file"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        write(path, content)
    with pytest.raises(UsageError, match=said):
        zero_shot.read_labels(path)


def test_labels_of_another_encoding(tmp_path: Path) -> None:
    for encoding in ("gb18030", "utf-16", "utf-8-sig"):
        (tmp_path / "labels.txt").write_bytes("狗\t小狗\n猫\n".encode(encoding))
        labels = zero_shot.read_labels(tmp_path / "labels.txt", encoding)
        assert labels == [Label("狗", ("狗", "小狗")), Label("猫", ("猫",))]
    with pytest.raises(UsageError, match="not utf-16 text"):
        (tmp_path / "labels.txt").write_bytes("狗\n".encode()[:3])
        zero_shot.read_labels(tmp_path / "labels.txt", "utf-16")
    with pytest.raises(UsageError, match="`templates` is not UTF-8"):
        zero_shot.check_templates(["\udcb9{}"])


def test_sentences_follow_the_script_of_the_name() -> None:
    assert zero_shot.sentences("狗") == ["狗", "一张狗的照片。", "一只狗", "照片里有狗"]
    assert zero_shot.sentences("dog") == ["dog", "a photo of a dog", "there is a dog in the picture"]
    assert zero_shot.sentences("T恤")[1] == "一张T恤的照片。"
    assert zero_shot.sentences("{x}", ["{} and {} {y}"]) == ["{x} and {x} {y}"]
    zero_shot.check_templates(["{}"])
    with pytest.raises(UsageError, match=r"`templates` 'a photo': put \{\} where the label belongs"):
        zero_shot.check_templates(["{}", "a photo"])


def test_a_class_is_the_mean_of_its_sentences(encoder: StubEncoder) -> None:
    vectors = zero_shot.class_vectors(encoder, [["狗", "犬"], ["猫"]], ["{}", "一只{}"])
    assert vectors.shape == (2, 32) and sorted(encoder.texts) == sorted(
        ["狗", "一只狗", "犬", "一只犬", "猫", "一只猫"]
    )
    each = StubEncoder().encode_texts(["狗", "一只狗", "犬", "一只犬"]).sum(0)
    np.testing.assert_allclose(vectors[0], each / np.linalg.norm(each), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_probabilities_are_shares_of_the_odds() -> None:
    """σ's odds of each label, divided by their sum, whatever the intercept."""
    calibration = Calibration(12.5, -4.8)
    cosines = np.array([0.5, 0.3, -0.2], dtype=np.float32)
    odds = np.array([p / (1 - p) for p in map(calibration.probability, cosines.tolist())])
    np.testing.assert_allclose(zero_shot.softmax(cosines, calibration), odds / odds.sum(), rtol=1e-6)
    huge = zero_shot.softmax(np.array([1, -1], dtype=np.float32), Calibration(5000.0, 0.0))
    assert huge.tolist() == [1.0, 0.0]


def test_classify() -> None:
    labels = [Label(name, (name,)) for name in ("a", "b", "c")]
    classes = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    guesses = zero_shot.classify(np.array([0.8, 0.6], np.float32), labels, classes, None, 5)
    assert [guess.label for guess in guesses] == ["a", "c", "b"]  # equal scores stay in order
    assert [round(guess.score, 3) for guess in guesses] == [0.8, 0.8, 0.6] and guesses[0].probability is None
    known = zero_shot.classify(np.array([0.8, 0.6], np.float32), labels, classes, Calibration(10, 0), 2)
    share = 1 / (2 + np.exp(-2.0))
    assert [guess.probability for guess in known] == pytest.approx([share, share])


def test_pictures_get_the_names_of_what_they_show(tmp_path: Path, encoder: StubEncoder) -> None:
    kinds = [(colour, shape) for colour in ("black", "blue", "red") for shape in ("circle", "cross", "ring", "square")]
    for colour, shape in kinds:
        draw(colour, shape).save(tmp_path / f"{colour}-{shape}.png")
    labels = [Label(f"{colour} {shape}", (f"{colour} {shape}",)) for colour, shape in kinds]
    classes = zero_shot.class_vectors(encoder, [label.names for label in labels])
    found = pictures.find_pictures([tmp_path])
    best = []
    for one in embedding.embed_images(found.files, encoder, workers=0, batch_size=5):
        assert one.vector is not None
        best.append(zero_shot.classify(one.vector, labels, classes, None, 1)[0].label)
    assert best == [label.name for label in labels] and encoder.calls == 3


def test_match(tmp_path: Path, encoder: StubEncoder) -> None:
    for colour in ("red", "blue"):
        draw(colour, "circle").save(tmp_path / f"{colour}.png")
    images = [str(tmp_path / "red.png"), str(tmp_path / "blue.png")]
    matched = zero_shot.match(encoder, ["红色圆形", "a blue circle", " cafe "], images)
    cosines = matched.cosines
    assert matched.chances is None
    assert cosines.shape == (3, 2) and cosines.dtype == np.float32
    assert cosines[:2].argmax(1).tolist() == [0, 1] and encoder.texts[2] == "cafe"
    for texts, paths, said in (
        ([" "], images, "`texts`: the text is empty"),
        (["\u200b"], images, "`texts`: the text is made of invisible characters"),
        ([os.fsdecode(b"\xb9\xb7")], images, "`texts` is not UTF-8 text, it seems to be GBK"),
        (["x"], ["no.jpg"], "`image` no.jpg: no such file"),
    ):
        with pytest.raises(UsageError, match=said):
            zero_shot.match(encoder, texts, paths)


# -- embedding ---------------------------------------------------------------------------------------------------


def test_pictures_as_they_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "photos", 2)
    draw("red", "ring").save(tmp_path / "one.png")
    monkeypatch.chdir(tmp_path)
    found = pictures.find_pictures(["./photos", "one.png", tmp_path / "photos" / "captions.jsonl"])
    shown = [found.as_given(image.path) for image in found.files]
    assert shown == ["one.png", "./photos/images/0000-red-circle.jpg", "./photos/images/0001-green-circle.jpg"]
    for paths, error, said in (
        (["gone.png"], UsageError, "no such file or folder: gone.png: check the path"),
        (["photos/captions.jsonl"], CorpusError, "no images among the files named"),
    ):
        with pytest.raises(error, match=said):
            pictures.find_pictures(paths)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"no images: .*empty is empty"):
        pictures.find_pictures(["empty"])


def test_pictures_inside_a_tar(tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar that is named gives all its images, CONTAINER::MEMBER one, a folder with a tar in it none of them."""
    write_corpus(tmp_path, 3, with_captions=False)
    names = sorted(os.listdir(tmp_path / "images"))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            tar.add(tmp_path / "images" / name, arcname=name)
    monkeypatch.chdir(tmp_path)
    found = pictures.find_pictures(["x.tar"])
    assert [found.as_given(file.path) for file in found.files] == [f"x.tar::{name}" for name in names]
    one = pictures.find_pictures([f"x.tar::{names[1]}", "images"])
    assert [one.as_given(file.path) for file in one.files] == [*(f"images/{n}" for n in names), f"x.tar::{names[1]}"]
    vectors = [e.vector for e in embedding.embed_images(one.files, encoder, workers=0)]
    assert vectors[1] is not None and vectors[3] is not None
    np.testing.assert_array_equal(vectors[1], vectors[3])
    record = vector_file.image_record(next(embedding.embed_images(one.files[3:], encoder, workers=0)).decoded, tmp_path)
    assert (record["path"], record["width"]) == (f"x.tar::{names[1]}", 96)
    with pytest.raises(UsageError, match=r"x\.tar::no\.jpg: file vanished"):
        pictures.find_pictures(["x.tar::no.jpg"])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_bad_pictures_are_named_in_their_place(tmp_path: Path, encoder: StubEncoder, batch_size: int) -> None:
    write_corpus(tmp_path, 9, with_captions=False)
    reasons = write_bad_files(tmp_path / "bad")
    files = [ImageFile(str(p), 1, 0) for p in sorted(tmp_path.rglob("*.*")) if p.is_file()]
    steps: list[int] = []
    got = list(embedding.embed_images(files, encoder, workers=0, batch_size=batch_size, advance=steps.append))
    assert [one.decoded.file for one in got] == files and sum(steps) == len(files)
    for one in got:
        name = os.path.basename(one.decoded.file.path)
        assert one.decoded.reason == reasons.get(name, "") and (one.vector is None) == (name in reasons)
    alone = StubEncoder()
    for one in got:
        if one.vector is not None and one.decoded.pixels is not None:
            np.testing.assert_allclose(one.vector, alone.encode_images(one.decoded.pixels[None])[0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vector_file(tmp_path: Path, dtype: embedding.DType) -> None:
    vectors = np.random.default_rng(0).standard_normal((1234, 7)).astype(np.float32)
    with vector_file.VectorFile(tmp_path / "x.npy", 7, dtype) as file:
        for number, vector in enumerate(vectors):
            file.add({"path": os.fsdecode(b"caf\xe9") if number else "狗"}, vector)
        assert not (tmp_path / "x.npy").exists()
    loaded = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert loaded.dtype == dtype and np.array_equal(loaded, vectors.astype(dtype))
    lines = (tmp_path / "x.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 1234 == file.rows and "狗" in lines[0]
    assert json.loads(lines[1])["path"] == os.fsdecode(b"caf\xe9")
    assert sorted(os.listdir(tmp_path)) == ["x.jsonl", "x.npy"]


def test_vector_file_after_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x.npy", "old")
    with pytest.raises(KeyboardInterrupt), vector_file.VectorFile(tmp_path / "x.npy", 2, "float32") as file:
        file.add({"path": "a"}, np.zeros(2, np.float32))
        raise KeyboardInterrupt
    assert (tmp_path / "x.npy").read_text() == "old" and os.listdir(tmp_path) == ["x.npy"]
    for name, said in (("x.bin", "ends in .npy"), ("no/x.npy", "name a file in a folder")):
        with pytest.raises(UsageError, match=said):
            vector_file.VectorFile(tmp_path / name, 2, "float32")


def test_numbers_are_short_and_exact() -> None:
    vector = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    numbers = embedding.numbers(vector, "float32")
    assert np.array_equal(np.array(numbers, dtype=np.float32), vector)
    assert np.array_equal(np.array(embedding.numbers(vector, "float16"), np.float16), vector.astype(np.float16))
    assert max(len(repr(number)) for number in numbers) <= 13
