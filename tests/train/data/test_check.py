"""Data is looked at before the first step: what cannot be used is left out and named, pictures are the index's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.errors import CorpusError
from tests.support.tiny import tiny_model, write_vocab
from train.data.check import check_words, usable
from train.data.features import cached_views
from train.data.photos import Augment, Photo, Photos, StepDataset, read_folder, read_photos
from train.pairs.pack import shrink
from train.recipe import Data


def gradient(size: tuple[int, int] = (200, 120)) -> Image.Image:
    """Every corner has its own colour."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / np.array([size[1], size[0]])[:, None, None]
    return Image.fromarray((np.stack([x, y, 1 - x], 2) * 255).astype(np.uint8))


def write(folder: Path, lines: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    said = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "captions.jsonl").write_text("\n".join(said) + "\n", encoding="utf-8")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_turned_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient().save(tmp_path / "turned.png", exif=exif)
    whole = load_pixels(str(tmp_path / "turned.png"), PixelSpec(200)).astype(int)
    upright = (200, 120) if orientation < 5 else (120, 200)
    seen = []

    def crop(width: int, height: int) -> tuple[float, float, float, float]:
        seen.append((width, height))
        return 0.5 * width, 0.25 * height, 0.75 * width, 0.5 * height

    part = load_pixels(str(tmp_path / "turned.png"), PixelSpec(50), crop=crop).astype(int)
    assert set(seen) == {upright}
    wanted = whole[50:100, 100:150]
    assert np.abs(part - wanted)[2:-2, 2:-2].max() <= 3


def test_views_are_decoded_as_the_index_decodes(tmp_path: Path) -> None:
    art = Image.new("RGBA", (80, 80), (255, 255, 255, 0))
    art.paste((255, 255, 255, 255), (20, 20, 60, 60))
    art.save(tmp_path / "white.png")
    Image.fromarray(np.linspace(0, 4095, 6400).reshape(80, 80).astype(np.uint16)).save(tmp_path / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient((1600, 1000)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    for name in ("white.png", "grey.png", "turned.jpg"):
        path, spec = str(tmp_path / name), PixelSpec(64)
        plain = load_pixels(path, spec)
        np.testing.assert_array_equal(Augment(spec, 1.0, 0.0)(path, 5), plain)
        crop = Augment(spec, 0.98, 0.0)(path, 5).astype(int)  # nearly all of it
        assert np.abs(crop - plain).mean() < 20, name
    odd = PixelSpec(64, antialias=False)
    np.testing.assert_array_equal(Augment(odd, 1.0, 0.0)(path, 5), load_pixels(path, odd))
    assert (Augment(spec, 0.3, 0.2)(path, 5) == Augment(spec, 0.3, 0.2)(path, 5)).all()
    small = Image.open(io.BytesIO(shrink((tmp_path / "white.png").read_bytes(), 40, 92)))
    assert np.ptp(np.asarray(small)) > 100  # white on a ground that it can be seen on


def test_bad_lines_and_files_are_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "c", "cut"):
        gradient().save(folder / f"{name}.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    good = [{"image": f"{name}.jpg", "en": "a dog"} for name in "abc"]
    write(folder, [*good, "", "{", {"image": "a.jpg", "en": ""}, {"en": "no image"}, {"image": "cut.jpg", "en": "x"},
                   {"image": "gone.jpg", "en": "x"}, "[1]"])  # fmt: skip
    said: list[str] = []
    photos = read_photos([Data(folder=str(folder))], tmp_path)
    left = usable(photos, tmp_path / "known.json", said.append)
    assert [Path(photo.path).name for photo in left.train] == ["a.jpg", "b.jpg", "c.jpg"]
    text = "\n".join(said)
    for line, reason in ((5, "not JSON"), (6, "empty caption"), (7, "no `image`"), (8, "truncated"),
                         (9, "file vanished"), (10, "not an object")):  # fmt: skip
        assert any(f"captions.jsonl:{line}: " in one and reason in one for one in said), (line, text)
    assert "4 caption lines" in text and "2 photos" in text


def test_a_file_is_looked_at_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from train.data import check

    for name in "ab":
        gradient().save(tmp_path / f"{name}.jpg")
    photos = Photos([Photo(str(tmp_path / f"{name}.jpg"), {"en": ["x"]}, {"en": 1.0}) for name in "ab"])
    looked: list[str] = []
    real = check._reason
    monkeypatch.setattr(check, "_reason", lambda path: looked.append(Path(path).name) or real(path))
    for _ in range(2):
        usable(photos, tmp_path / "known.json", print)
    assert sorted(looked) == ["a.jpg", "b.jpg"]
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert [Path(photo.path).name for photo in usable(photos, tmp_path / "known.json", print).train] == ["a.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(CorpusError, match="none of the 2 training photos can be read"):
        usable(photos, tmp_path / "known.json", print)


def test_a_photo_that_vanishes_in_training_is_replaced_with_its_captions(tmp_path: Path) -> None:
    for name in "abcd":
        gradient().save(tmp_path / f"{name}.jpg")
    photos = [Photo(str(tmp_path / f"{name}.jpg"), {"en": [name]}, {"en": 1.0}) for name in "abcd"]
    tokenizer = TextTokenizer(write_vocab(tmp_path / "vocab"), 16)
    steps = StepDataset(photos, tokenizer, batch=4, captions=1, seed=0, pixels=PixelSpec(32))
    (tmp_path / "b.jpg").unlink()
    with pytest.warns(UserWarning, match=r"b.jpg: file vanished"):
        batch = steps[0]
    ids = batch["ids"].tolist()
    assert sorted(ids) == [0, 2, 2, 3]
    said = [tokenizer.ids(["abcd"[row]])[0] for row in ids]
    assert [row[:3] for row in batch["token_ids"].tolist()] == said


def test_held_out_photos_stay_so_when_the_file_grows(tmp_path: Path) -> None:
    rows = [{"image": f"{i}.jpg", "en": "x"} for i in range(200)]
    write(tmp_path / "few", [*rows[:100], *rows[:50]])
    few = read_folder(Data(folder="few", hold_out=0.2), tmp_path)
    write(tmp_path / "few", rows)
    more = read_folder(Data(folder="few", hold_out=0.2), tmp_path)
    held = {photo.path for photo in few.val}
    assert held and not held & {photo.path for photo in few.train}
    assert held <= {photo.path for photo in more.val} and 20 <= len(more.val) <= 60


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ({"enn": 1.0}, "has a caption in enn: did you mean en?"),
        ({"title": 1.0}, "has a caption in title: there are en"),
    ],
)
def test_fields_that_no_line_has(tmp_path: Path, captions: dict[str, float], said: str) -> None:
    write(tmp_path / "photos", [{"image": "a.jpg", "en": "a dog"}])
    with pytest.raises(CorpusError) as caught:
        read_photos([Data(folder="photos", captions=captions)], tmp_path)
    assert said in str(caught.value)


def test_other_mistakes_of_a_data_table(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no caption file"):
        read_photos([Data(folder="nowhere")], tmp_path)
    write(tmp_path / "photos", ["{", "{"])
    with pytest.raises(CorpusError, match=r"no line that can be used; the first: .*captions.jsonl:1: not JSON"):
        read_photos([Data(folder="photos")], tmp_path)
    write(tmp_path / "photos", [{"image": "a.jpg", "en": "a dog", "zh": "狗"}])
    with pytest.raises(CorpusError, match="hold no training photos"):
        read_photos([Data(folder="photos", hold_out_last=5)], tmp_path)
    both = read_photos([Data(folder="photos", captions={"en": 1.0, "zh": 0.0})], tmp_path).train
    assert both[0].captions == {"en": ["a dog"], "zh": ["狗"]}  # a field of weight 0 is validated, never drawn


def test_words_that_the_tokenizer_does_not_know_are_named(tmp_path: Path) -> None:
    tokenizer, said = TextTokenizer(write_vocab(tmp_path / "vocab"), 16), []
    check_words([Photo("a", {"en": ["a dog on grass"]}, {"en": 1.0})], tokenizer, said.append)
    assert not said
    check_words([Photo("a", {"en": ["собака", "a dog"]}, {"en": 1.0})], tokenizer, said.append)
    assert "a word of 50 % of the captions, such as собака" in said[0]


def test_cached_views_know_weights_files_and_settings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gradient().save(tmp_path / "a.png")
    photos = [Photo(str(tmp_path / "a.png"), {}, {})]
    config = ModelConfig.from_dict(tiny_model())
    tower = ImageTower(config.image, config.dim).eval()
    pixels = config.image.pixels

    def views(tower: ImageTower, **changes: Any) -> np.ndarray:
        options = {"blocks": [3], "views": 1, "pixels": pixels, "augment": Augment(pixels, 0.5, 0.1), "bf16": False}
        return np.array(cached_views(tmp_path / "cache", tower, photos, **options | changes))

    def files() -> int:
        return len(list((tmp_path / "cache").glob("*.npy")))

    first = views(tower)
    np.testing.assert_array_equal(views(tower), first)
    assert files() == 1
    other = ImageTower(config.image, config.dim).eval()  # the same network with other weights
    assert np.abs(views(other) - first).max() > 1e-3 and files() == 2
    with torch.no_grad():
        tower.project.weight.add_(1.0)  # behind the frozen blocks
    views(tower)
    assert files() == 2
    tiny_model_mean = tiny_model(
        image=tiny_model()["image"] | {"backbones": [{"name": "mobilenetv2_035", "mean": [0.1] * 3}]}
    )
    shifted = ImageTower(ModelConfig.from_dict(tiny_model_mean).image, config.dim).eval()
    shifted.load_state_dict(tower.state_dict())
    assert np.abs(views(shifted) - first).max() > 1e-3 and files() == 3
    views(tower, bf16=True)
    assert files() == 4
    gradient().transpose(Image.Transpose.ROTATE_180).save(tmp_path / "a.png")
    assert np.abs(views(tower) - first).max() > 1e-3 and files() == 5


def test_held_out_photos_that_are_trained_on_under_another_name_are_named(tmp_path: Path) -> None:
    lines = []
    for name, colour in (("a.png", 1), ("b.png", 90), ("copy of a.png", 1), ("other.png", 2)):
        Image.new("RGB", (40, 30), (colour, 0, 0)).save(tmp_path / name)
        lines.append(Photo(str(tmp_path / name), {"en": ["x"]}, {"en": 1.0}))
    said: list[str] = []
    usable(Photos(lines[:2], lines[2:]), tmp_path / "known.json", said.append)
    assert [line for line in said if "another name" in line] == [
        f"1 validation photos are trained on under another name, such as {tmp_path}/copy of a.png as {tmp_path}/a.png: "
        "recall on them flatters; leave one of each pair out of captions.jsonl"
    ]
