"""What the encoders of `load_encoder` take: batches, paths, PIL images, bytes, arrays; one text or several."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import load_pixels
from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Encoder, Origin, PictureEncoder
from brivl_search.encoders.inputs import as_texts, encode_any
from brivl_search.encoders.plugins import PluggedEncoder
from brivl_search.errors import ImageError, UsageError
from brivl_search.index import IndexReader
from tests.support.building import build
from tests.support.pictures import draw
from tests.support.plugins import install, plugin_source
from tests.support.tiny_hf import make_hf

SPEC = PixelSpec(size=16)
DIM = 4
KINDS = ["brivl", "brivl+boxes", "hf", "hf-patches", "sentence", "plugin"]


class Tower:
    """Stands for a tower: keeps what it is given, and answers with each picture's first pixels."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []
        self.origins: list[Sequence[Origin] | None] = []

    def __call__(self, pixels: np.ndarray, origins: Sequence[Origin] | None) -> np.ndarray:
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (16, 16, 3)
        self.batches.append(pixels)
        self.origins.append(origins)
        return pixels.reshape(len(pixels), -1)[:, :DIM].astype(np.float32)


@pytest.fixture
def tower() -> Tower:
    return Tower()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is hard to treat alike: a turned JPEG larger than the tower's pixels, transparency, 16 bits, a tar."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw("red", "cross", (900, 601)).save(folder / "a-turned.jpg", exif=exif)
    clear = draw("blue", "ring", (90, 61)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "b-clear.png")
    deep = np.linspace(0, 65535, 80 * 120).reshape(80, 120).astype(np.uint16)
    Image.fromarray(deep).save(folder / "c-deep.png")
    draw("green", "square", (64, 64)).save(folder / "member.png")
    with tarfile.open(folder / "d.tar", "w") as tar:
        tar.add(folder / "member.png", "member.png")
    (folder / "member.png").unlink()
    return folder


@pytest.fixture(scope="module")
def load(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, photos: Path
) -> Callable[[str, pytest.MonkeyPatch], Any]:
    """An encoder of each kind, as `load_encoder` returns it."""
    folder = tmp_path_factory.mktemp("encoders")

    def loaded(kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        name = str(tiny_checkpoint)
        if kind == "brivl+boxes":
            boxes = folder / "boxes.jsonl"
            boxes.write_text(
                f'{{"image_id": "{photos}/a-turned.jpg", "bbox": [[10, 10, 200, 300], [300, 500, 600, 899]]}}\n'
            )
            name += f"+boxes={boxes}"
        elif kind.startswith("hf"):
            name = f"hf:{make_hf(folder / kind, 'siglip2' if kind == 'hf-patches' else 'chinese_clip')}"
        elif kind == "sentence":
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import Transformer

            whole = SentenceTransformer(modules=[Transformer(str(make_hf(folder / "clip", "clip")))], device="cpu")
            whole.save_pretrained(str(folder / "st"))
            name = f"hf:{folder / 'st'}"
        elif kind == "plugin":
            site = folder / "site"
            if not site.exists():
                site.mkdir()
                install(site, plugin_source(), package="colours")
            monkeypatch.syspath_prepend(str(site))
            name = "colours:3"
        return load_encoder(name, device="cpu", precision="fp32")

    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_gives_the_vector_that_build_index_stores(
    kind: str, load: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(kind, monkeypatch)
    build([photos, photos / "d.tar"], tmp_path / "index", encoder)
    with IndexReader.open(tmp_path / "index") as reader:
        stored = {record["path"]: reader.vector("image", shard, row) for shard, row, record in reader.records("image")}
    assert [os.path.basename(path) for path in sorted(stored)] == [
        "a-turned.jpg",
        "b-clear.png",
        "c-deep.png",
        "d.tar::member.png",
    ]
    found = encoder.encode_images(sorted(stored))
    assert found.dtype == np.float32 and found.shape == (4, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    for path, vector in zip(sorted(stored), found, strict=True):
        np.testing.assert_allclose(vector, stored[path].astype(np.float32), atol=2e-3)  # kept as float16
        np.testing.assert_allclose(vector, encoder.encode_images([Path(path)])[0], atol=1e-5)
    spread = (found @ found.T)[~np.eye(4, dtype=bool)]
    assert kind == "sentence" or spread.min() < 0.99  # or any vector would have done
    if kind == "brivl+boxes":  # the file of boxes was asked by path
        pixels = np.stack([load_pixels(str(photos / "a-turned.jpg"), encoder.pixels)])
        assert np.abs(encoder.encode_images(pixels)[0] - found[0]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_picture(
    kind: str, load: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(kind, monkeypatch)
    picture = draw("red", "circle", (150, 101))
    path = tmp_path / "photo.png"
    picture.save(path)
    forms = [str(path), path, path.read_bytes(), Image.open(path), picture, np.asarray(picture)]
    ready = load_pixels(str(path), encoder.pixels)[None]
    wanted = encoder.encode_images(ready)
    found = encoder.encode_images(forms)
    assert found.shape == (6, encoder.dim)
    np.testing.assert_allclose(found, np.repeat(wanted, 6, 0), atol=1e-5)
    for one in forms:  # a single picture is a sequence of one
        np.testing.assert_allclose(encoder.encode_images(one), wanted, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(iter(forms[:2])), found[:2], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(np.stack([np.asarray(picture)] * 2)), found[:2], atol=1e-5)
    assert encoder.encode_images([]).shape == (0, encoder.dim)
    for wrong in (ready.astype(np.float32), torch.zeros(1, 3, 8, 8), 3, None, [path, 3], ready[..., :2], [[str(path)]]):
        with pytest.raises(UsageError, match=r"encode_images takes paths, .*PIL images, arrays uint8 .*; number \d is"):
            encoder.encode_images(wrong)


@pytest.mark.parametrize("kind", ["brivl", "hf", "sentence", "plugin"])
def test_one_text_is_one_text(kind: str, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one text for every letter of it."""
    encoder = load(kind, monkeypatch)
    many = encoder.encode_texts(["red dog", "a blue dog"])
    one = encoder.encode_texts("red dog")
    assert one.shape == (1, encoder.dim)
    np.testing.assert_allclose(one[0], many[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(text for text in ("red dog", "a blue dog")), many, atol=1e-5)
    assert encoder.cut_tokens("red dog") == [0] and encoder.encode_texts(()).shape == (0, encoder.dim)
    for wrong, words in (
        (b"red dog", "not a bytes"),
        (7, "not an int"),
        (["dog", 7], "number 2 is an int"),
        ([None], "number 1 is a NoneType"),
        (np.zeros(2, np.float32), "number 1 is a float32"),
    ):
        for takes_texts in (encoder.encode_texts, encoder.cut_tokens):
            with pytest.raises(UsageError, match=f"encode_texts takes .*{words}"):
                takes_texts(wrong)


def test_a_ready_batch_goes_to_the_tower_as_it_is(tower: Tower) -> None:
    batch = np.zeros((3, 16, 16, 3), np.uint8)
    assert encode_any(batch, SPEC, DIM, tower).shape == (3, DIM)
    assert tower.batches[0] is batch and tower.origins == [None]


def test_many_pictures_are_decoded_a_few_at_a_time_and_keep_their_order(tower: Tower) -> None:
    pictures = [np.full((20, 30, 3), value, np.uint8) for value in range(7)]
    found = encode_any(pictures, SPEC, DIM, tower, chunk=3)
    assert [len(batch) for batch in tower.batches] == [3, 3, 1]
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_the_tower_learns_where_pixels_come_from(tower: Tower, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    content = (photos / "b-clear.png").read_bytes()
    encode_any(["a-turned.jpg", content, Image.open("a-turned.jpg")], SPEC, DIM, tower)
    turned = (601, 900)
    assert tower.origins == [
        [Origin(str(photos / "a-turned.jpg"), *turned), Origin("", 90, 61, content), Origin("", *turned)]
    ]


def test_an_image_of_pillow_is_treated_as_its_file(photos: Path, tower: Tower) -> None:
    """EXIF turn, transparency on white, 16 bits scaled; a large JPEG is decoded whole here and halved from a file."""
    for name in ("a-turned.jpg", "b-clear.png", "c-deep.png"):
        encode_any([photos / name, Image.open(photos / name)], SPEC, DIM, tower)
        file, opened = tower.batches.pop().astype(int)
        assert np.abs(file - opened).mean() < (1 if name.endswith("jpg") else 0.001), name
    for mode in ("L", "P", "1", "CMYK", "LA", "F", "YCbCr", "I;16"):
        picture = Image.new("L", (20, 20), 255).convert(mode) if mode != "I;16" else Image.new("I;16", (20, 20), 65535)
        encode_any(picture, SPEC, DIM, tower)
        assert tower.batches.pop().min() >= 254, mode


def test_what_cannot_be_read_is_named(tmp_path: Path, tower: Tower) -> None:
    broken = tmp_path / "broken.jpg"
    draw("red", "circle").save(tmp_path / "good.jpg")
    broken.write_bytes((tmp_path / "good.jpg").read_bytes()[:400])
    with pytest.raises(ImageError, match=rf"^truncated: {broken}: ") as told:
        encode_any([tmp_path / "good.jpg", broken], SPEC, DIM, tower)
    assert told.value.reason == "truncated"
    with pytest.raises(UsageError, match=f"^no such file: {tmp_path}/gone.jpg: check the path"):
        encode_any(str(tmp_path / "gone.jpg"), SPEC, DIM, tower)
    with pytest.raises(ImageError, match="not an image: picture 2"):
        encode_any([tmp_path / "good.jpg", b"words"], SPEC, DIM, tower)
    with pytest.raises(ImageError, match=f"not a regular file: {tmp_path}"):
        encode_any(tmp_path, SPEC, DIM, tower)
    closed = Image.open(tmp_path / "good.jpg")
    closed.close()
    with pytest.raises(ImageError, match="picture 1"):
        encode_any([closed], SPEC, DIM, tower)
    with pytest.raises(UsageError, match="number 5 is a float"):  # told before anything is decoded
        encode_any([broken] * 4 + [0.5], SPEC, DIM, tower)  # type: ignore[list-item]
    assert tower.batches == []


def test_texts() -> None:
    some = ["a", "b"]
    assert as_texts(some) is some and as_texts("ab") == ["ab"] and as_texts({"a": 1}) == ["a"]


def test_a_plugins_encoder_keeps_all_that_it_has(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load("plugin", monkeypatch)
    assert isinstance(encoder, PluggedEncoder) and type(encoder.plugged).__name__ == "Colours"
    assert encoder.cells == 3 and encoder.name == "colours:3" and encoder.pixels.size == 24
    assert "Colours" in repr(encoder) and encoder.calibration is None
    with pytest.raises(AttributeError, match="nothing"):
        encoder.nothing  # noqa: B018


def test_a_plugin_that_asks_where_pixels_come_from_is_told(photos: Path) -> None:
    asked: list[Any] = []

    class Asks:
        name, dim, fingerprint, pixels, calibration = "asks", DIM, "1", SPEC, None

        def encode_images(self, pixels: np.ndarray) -> np.ndarray:
            return np.zeros((len(pixels), DIM), np.float32)

        def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
            asked.extend(origin.path for origin in origins)
            return self.encode_images(pixels)

        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), DIM), np.float32)

        def warm_up(self) -> None: ...

        def cut_tokens(self, texts: Sequence[str]) -> list[int]:
            return [0] * len(texts)

    plugged: Encoder = Asks()
    loaded = PluggedEncoder(plugged)
    assert isinstance(loaded, PictureEncoder)
    loaded.encode_images([photos / "c-deep.png"])
    loaded.encode_images(np.zeros((1, 16, 16, 3), np.uint8))
    assert asked == [str(photos / "c-deep.png")]
