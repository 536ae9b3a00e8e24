"""Models of transformers by name: every class against transformers' own pipeline, on checkpoints made here."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.corpus.patches import grid, square_side, unpack
from brivl_search.encoders import digests, load_encoder
from brivl_search.encoders.hf.encoder import TransformersEncoder
from brivl_search.encoders.hf.family import FAMILIES, normalisation, pixel_spec, read_facts
from brivl_search.encoders.hf.files import cached, complete, wanted, weight_files
from brivl_search.encoders.hf.towers import features
from brivl_search.encoders.known import known_matryoshka
from brivl_search.errors import BrivlSearchError, EncoderError, UsageError
from tests.tiny_hf import edit_json, make_hf, make_hub

KINDS = list(FAMILIES)
TEXTS = [
    "a red dog on grass",
    "草地上的狗",
    "Dog, Blue!",
    "a photo of a green square with a red circle on the grass 草地",
]
COLOURS = ((1, 0, 0), (0, 1, 0.1), (0, 0, 1), (1, 1, 0), (0.9, 0.9, 1))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hf")
    return {kind: make_hf(folder / kind, kind) for kind in KINDS}


def load(folder: Path, **options: Any) -> TransformersEncoder:
    encoder = load_encoder(f"hf:{folder}", device="cpu", precision="fp32", **options)
    assert isinstance(encoder, TransformersEncoder)
    return encoder


def photo(width: int, height: int, colour: tuple[float, float, float], kind: str, seed: int = 0) -> bytes:
    """Noise as photographs have it, of all sizes and most of it large."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None])
    frequency[0, 0] = 1
    grey = rng.normal(size=(height, frequency.shape[1])) + 1j * rng.normal(size=(height, frequency.shape[1]))
    wave = np.fft.irfft2(grey / frequency, s=(height, width))
    picture = (128 + 50 * wave / wave.std())[..., None] * np.array(colour)
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(
        buffer, kind, **({"quality": 92} if kind == "JPEG" else {})
    )
    return buffer.getvalue()


def photos() -> list[bytes]:
    """JPEGs and PNGs of several shapes, odd sides among them, up to four times the tower's side."""
    shapes = ((90, 71, "JPEG"), (47, 80, "PNG"), (40, 40, "JPEG"), (25, 33, "PNG"), (127, 41, "PNG"))
    return [photo(w, h, COLOURS[n], kind, n) for n, (w, h, kind) in enumerate(shapes)]


def reference(folder: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and texts through transformers' own processor and whole model, unit length."""
    import transformers

    model = getattr(transformers, FAMILIES[kind].model_class).from_pretrained(folder).eval()
    pictures = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    lengths: dict[str, Any] = {"padding": True, "truncation": True, "max_length": read_facts(folder).max_length}
    if kind.startswith("siglip"):
        lengths["padding"] = "max_length"
    images, texts = [], []
    with torch.inference_mode():
        for data in photos():
            found = pictures(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")
            images.append(features(model.get_image_features(**found)))
        for text in TEXTS:
            ids = tokenizer([text], return_tensors="pt", **lengths)
            if kind.startswith("siglip"):
                ids.pop("attention_mask", None)
            ids.pop("token_type_ids", None)
            texts.append(features(model.get_text_features(**ids)))
    return tuple(torch.nn.functional.normalize(torch.cat(one), dim=-1).numpy() for one in (images, texts))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers_own_pipeline(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = load(checkpoints[kind])
    images, texts = reference(checkpoints[kind], kind)
    found_texts = encoder.encode_texts(TEXTS)
    found_images = encoder.encode_images(np.stack([load_pixels(data, encoder.pixels) for data in photos()]))
    for found, wanted_vectors in ((found_texts, texts), (found_images, images)):
        assert found.dtype == np.float32 and found.shape == wanted_vectors.shape
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert ((found * wanted_vectors).sum(1) > 0.999).all()
        # and the vectors differ from each other by far more than from the reference
        others = (wanted_vectors @ wanted_vectors.T)[~np.eye(len(found), dtype=bool)]
        assert others.max() < 0.99


@pytest.mark.parametrize("resize", ["crop", "squash", "patches"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (1499, 1001), (301, 1203)])
def test_pixels_are_the_processors_own(resize: str, width: int, height: int) -> None:
    """At the real sizes. Where a large picture is halved first (by libjpeg, or by whole pixels) some pixels differ: by
    less than one grey level of 255 on average. An odd side must not shift it."""
    import transformers

    data = photo(width, height, (1, 0.9, 0.8), "JPEG")
    plain = {"do_rescale": False, "do_normalize": False}
    square = {"height": 224, "width": 224}
    processor = {
        "crop": lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=square, **plain),
        "squash": lambda: transformers.SiglipImageProcessor(size=square, **plain),
        "patches": lambda: transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=196, **plain),
    }[resize]()
    found = processor(images=Image.open(io.BytesIO(data)), return_tensors="np")
    if resize == "patches":
        spec = PixelSpec(square_side(16, 196), "patches", "bilinear", patch=16, max_patches=196)
        tiles, shapes = unpack(load_pixels(data, spec)[None], 16, 196)
        assert shapes.tolist() == found["spatial_shapes"].tolist()
        mine, reference = tiles[0], found["pixel_values"][0]
    else:
        mine = load_pixels(data, PixelSpec(224, resize, "bicubic"))  # type: ignore[arg-type]
        reference = found["pixel_values"][0].transpose(1, 2, 0)
    apart = np.abs(mine.astype(np.float32) - reference)
    halved = max(width, height) > 1000
    assert apart.mean() < (1 if halved else 0.05) and np.percentile(apart, 99) <= (3 if halved else 1)
    assert reference.std() > 20  # there is something to differ


def test_patches_are_as_many_as_transformers_makes() -> None:
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 9000), (9000, 1), (224, 224), *np.exp(rng.uniform(0, 9, (200, 2))).astype(int).tolist()]
    for height, width in sizes:
        for patch, most in ((16, 256), (16, 1024), (14, 300)):
            rows, columns = grid(height, width, patch, most)
            assert (rows * patch, columns * patch) == get_image_size_for_max_num_patches(height, width, patch, most)
            assert 1 <= rows * columns <= most


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_patches_of_every_mode_of_picture(mode: str) -> None:
    spec = PixelSpec(square_side(8, 30), "patches", patch=8, max_patches=30)
    grey = Image.linear_gradient("L").resize((50, 21))
    picture = grey if mode == "L" else grey.convert(mode) if mode != "I;16" else grey.convert("I").convert("I;16")
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    tiles, shapes = unpack(load_pixels(buffer.getvalue(), spec)[None], 8, 30)
    assert shapes.tolist() == [list(grid(21, 50, 8, 30))] and tiles.any()


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_patches_of_pictures_that_lie_on_their_side(orientation: int) -> None:
    picture = Image.open(io.BytesIO(photo(120, 40, (1, 0.5, 0.2), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, upright = io.BytesIO(), io.BytesIO()
    picture.save(stored, "PNG", exif=exif)
    turn = {3: "ROTATE_180", 6: "ROTATE_270", 7: "TRANSVERSE"}.get(orientation)
    (picture.transpose(Image.Transpose[turn]) if turn else picture).save(upright, "PNG")
    spec = PixelSpec(square_side(8, 30), "patches", patch=8, max_patches=30)
    assert np.array_equal(load_pixels(stored.getvalue(), spec), load_pixels(upright.getvalue(), spec))
    assert unpack(load_pixels(stored.getvalue(), spec)[None], 8, 30)[1].tolist() in ([[3, 9]], [[9, 3]])


def test_text_is_prepared_as_each_family_was_trained(checkpoints: dict[str, Path]) -> None:
    assert {kind: read_facts(checkpoints[kind]).max_length for kind in KINDS} == {
        "clip": 16, "chinese_clip": 52, "altclip": 18, "metaclip_2": 20, "siglip": 16, "siglip2": 16
    }  # fmt: skip
    chinese = load(checkpoints["chinese_clip"])
    assert np.array_equal(*(chinese.encode_texts([text]) for text in ("“狗” Dog", '"狗" dog')))
    siglip = load(checkpoints["siglip"])
    seen = []
    tower = siglip.text_tower
    tower.get_text_features = lambda original=tower.get_text_features, **inputs: (
        seen.append(inputs),
        original(**inputs),
    )[1]
    siglip.encode_texts(["Dog", "a red dog"])
    assert set(seen[0]) == {"input_ids"} and seen[0]["input_ids"].shape == (2, 16)  # padded to the end, padding seen
    # a text's vector does not depend on what it is embedded with
    for kind in KINDS:
        encoder = load(checkpoints[kind])
        assert np.allclose(encoder.encode_texts(TEXTS)[:1], encoder.encode_texts(TEXTS[:1]), atol=1e-5)
    long = "dog " * 80
    assert chinese.cut_tokens([long, "dog"]) == [80 + 2 - 52, 0]
    assert np.array_equal(chinese.encode_texts([long]), chinese.encode_texts(["dog " * 50]))
    assert chinese.encode_texts([]).shape == (0, 24)


def test_siglip_with_the_sentencepiece_tokenizer_of_its_first_models(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentencepiece
    import transformers

    folder = shutil.copytree(checkpoints["siglip"], tmp_path / "siglip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in TEXTS] * 4),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=-1,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16)
    tokenizer.save_pretrained(folder)
    encoder = load(folder)
    assert type(encoder.tokenizer).__name__ == "SiglipTokenizer"
    wanted_ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        reference = features(encoder.text_tower.get_text_features(input_ids=wanted_ids["input_ids"]))
    assert np.allclose(encoder.encode_texts(TEXTS), torch.nn.functional.normalize(reference, dim=-1).numpy(), atol=1e-5)
    assert np.array_equal(encoder.encode_texts(["a red dog!"]), encoder.encode_texts(["A Red Dog"]))


def test_one_tower_is_read_and_the_other_not(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoints["chinese_clip"], tmp_path / "halved")
    tensors = load_file(folder / "model.safetensors")
    whole = load(folder).encode_texts(TEXTS)
    texts_only = {name: value for name, value in tensors.items() if not name.startswith("vision_model")}
    save_file(texts_only, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = load(folder)
    assert np.array_equal(encoder.encode_texts(TEXTS), whole)
    assert "image_tower" not in encoder.__dict__
    assert not hasattr(encoder.text_tower, "vision_model")
    with pytest.raises(EncoderError, match=r"lacks \d+ tensors of its image tower, such as vision_model"):
        encoder.warm_up()


@pytest.mark.parametrize("form", ["shards", "pickle"])
def test_other_forms_of_weights(checkpoints: dict[str, Path], tmp_path: Path, form: str) -> None:
    import transformers

    folder = shutil.copytree(checkpoints["clip"], tmp_path / form)
    model = transformers.CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    if form == "shards":
        model.save_pretrained(folder, max_shard_size="30KB")
        assert len(weight_files(folder)) > 1
    else:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert np.allclose(load(folder).encode_texts(TEXTS), load(checkpoints["clip"]).encode_texts(TEXTS), atol=1e-6)
    if form == "shards":
        weight_files(folder)[1].unlink()
        with pytest.raises(EncoderError, match=r"is incomplete: it has no model-00002"):
            load(folder)


def test_bfloat16_stays_near(checkpoints: dict[str, Path]) -> None:
    half = load_encoder(f"hf:{checkpoints['siglip']}", device="cpu", precision="bf16")
    exact = load(checkpoints["siglip"]).encode_texts(TEXTS)
    close = (half.encode_texts(TEXTS) * exact).sum(1)
    assert (close > 0.99).all() and not np.array_equal(half.encode_texts(TEXTS), exact)


def test_fingerprint_is_of_all_that_decides_a_vector(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def changed(name: str, change: Any) -> str:
        folder = shutil.copytree(checkpoints["clip"], tmp_path / name)
        change(folder)
        return load(folder).fingerprint

    original = load(checkpoints["clip"]).fingerprint
    assert changed("copied", lambda folder: (folder / "README.md").write_text("a card")) == original
    assert (
        changed("saved again", lambda folder: edit_json(folder / "config.json", transformers_version="5.9")) == original
    )
    others = {
        changed("pixels", lambda folder: edit_json(folder / "preprocessor_config.json", resample=2)),
        changed("mean", lambda folder: edit_json(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5])),
        changed("words", lambda folder: (folder / "merges.txt").write_text("a b")),
        changed("weights", lambda folder: make_hf(folder, "clip", seed=1)),
    }
    assert len(others) == 4 and original not in others


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 10)
    hashed: list[Path] = []
    real = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: (hashed.append(path), real(path))[1])
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"x" * 11)
    small.write_bytes(b"x")
    for _ in range(2):
        assert digests.file_sha256(large) == hashlib.sha256(b"x" * 11).hexdigest()
        digests.file_sha256(small)
    assert hashed == [large, small, small]
    large.write_bytes(b"y" * 12)
    assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    memory = next((tmp_path / "cache").rglob("*.json"))
    for damage in ("[]", "{"):
        memory.write_text(damage)
        assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(large))  # not a folder: nothing is remembered
    assert digests.file_sha256(large) == hashlib.sha256(b"y" * 12).hexdigest()
    with pytest.raises(EncoderError, match="cannot be read"):
        digests.file_sha256(tmp_path / "gone")


@pytest.mark.parametrize("dim", [256, 2560])
def test_dimensions(tmp_path: Path, dim: int) -> None:
    from brivl_search.build import BuildOptions, build_index
    from brivl_search.engine import Engine, SearchOptions
    from brivl_search.output import Bar

    encoder = load(make_hf(tmp_path / "model", "clip", projection_dim=dim))
    (tmp_path / "photos").mkdir()
    for n, data in enumerate(photos()):
        (tmp_path / "photos" / f"{n}.jpg").write_bytes(data)
    build_index([tmp_path / "photos"], tmp_path / "index", encoder, BuildOptions(workers=0), Bar(quiet=True))
    hits = Engine(tmp_path / "index", device="cpu").by_image(tmp_path / "photos" / "3.jpg", SearchOptions(2))
    assert encoder.dim == dim and hits[0].path.endswith("3.jpg") and hits[0].score > 0.999


def test_truncation_is_for_matryoshka_models(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not say that it is a Matryoshka model"):
        load(checkpoints["clip"], truncate_dim=12)
    with pytest.raises(UsageError, match="--truncate-dim 0"):
        load(checkpoints["clip"], truncate_dim=0)
    with pytest.raises(EncoderError, match="only Matryoshka models by hf:"):
        load_encoder("brivl-mini", truncate_dim=64)
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "nested")
    edit_json(folder / "config.json", matryoshka_dimensions=[8, 16, 24])
    whole, short = load(folder), load(folder, truncate_dim=12)
    assert (whole.dim, short.dim) == (24, 12) and whole.fingerprint != short.fingerprint
    assert short.name == f"hf:{folder}?dim=12" and load_encoder(short.name).fingerprint == short.fingerprint
    first = whole.encode_texts(TEXTS)[:, :12]
    assert np.allclose(short.encode_texts(TEXTS), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    for wrong in (4, 25):
        with pytest.raises(EncoderError, match="give 8 to 24"):
            load(folder, truncate_dim=wrong)
    assert known_matryoshka("hf:jinaai/jina-clip-v2@main?dim=128") == (64, 1024)


def test_defaults_are_transformers_own() -> None:
    """config.json leaves out what is at its default, so we must know the defaults."""
    import transformers

    for kind, family in FAMILIES.items():
        config = getattr(transformers, family.model_class).config_class()
        assert config.model_type == kind
        assert config.text_config.max_position_embeddings == family.positions
        dim = config.text_config.projection_size if "projection_size" in family.dim_key else config.projection_dim
        assert dim == family.dim


def test_processors_that_no_square_can_stand_for() -> None:
    clip = {**FAMILIES["clip"].pictures}
    assert pixel_spec({**clip, "size": 256, "crop_size": 224}) == PixelSpec(224, "crop", "bicubic", short_side=256)
    for change, what in (
        ({"do_resize": False}, "do_resize"),
        ({"resample": 0}, "resample is 0"),
        ({"do_center_crop": False}, "without a crop"),
        ({"size": {"height": 224, "width": 192}}, "not a square"),
        ({"size": 200}, "short_side"),
    ):
        with pytest.raises(ValueError, match=what):
            pixel_spec({**clip, **change})
    mean, std = normalisation({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [-2, 2])
    mean, std = normalisation({"do_normalize": False})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [0, 1])


def test_what_is_wrong_with_a_folder_is_said(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def broken(name: str, change: Any) -> str:
        folder = shutil.copytree(checkpoints["siglip"], tmp_path / name)
        change(folder)
        with pytest.raises(BrivlSearchError) as caught:
            load(folder).encode_texts(["dog"])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "known are clip, chinese_clip" in broken("bert", lambda f: edit_json(f / "config.json", model_type="bert"))
    assert "has no preprocessor_config.json" in broken("bare", lambda f: (f / "preprocessor_config.json").unlink())
    assert "has no weights" in broken("empty", lambda f: (f / "model.safetensors").unlink())
    assert "takes 32 x 32 pixels, and its preprocessing makes 48 x 48" in broken(
        "sizes", lambda f: edit_json(f / "preprocessor_config.json", size={"height": 48, "width": 48})
    )
    assert "cannot be read" in broken("torn", lambda f: (f / "config.json").write_text("{"))
    assert "cannot be loaded as SiglipModel" in broken(
        "cut", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:2000])
    )
    assert "tokenizer" in broken(
        "words", lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")]
    )
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EncoderError, match="has no config"):
        load(tmp_path / "nothing")
    with pytest.raises(EncoderError, match="no such folder, and it is not of the form ORG/NAME"):
        load_encoder("hf:/not/there/at all")


def test_a_folder_needs_no_hf_before_it(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(str(checkpoints["clip"]))
    assert encoder.name == f"hf:{checkpoints['clip']}" and encoder.fingerprint == load(checkpoints["clip"]).fingerprint


def test_the_cache_is_used_without_a_network(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache laid out as the hub's: blobs named by their hash, a snapshot of links, a ref."""
    import hashlib

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--model"
    snapshot = repo / "snapshots" / ("c" * 40)
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text("c" * 40)
    for path in checkpoints["clip"].iterdir():
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    encoder = load_encoder("hf:some/model", device="cpu")
    assert cached("some/model") == snapshot and encoder.name == "hf:some/model"
    assert encoder.fingerprint == load(checkpoints["clip"]).fingerprint
    for name in ("tokenizer.json", "model.safetensors"):  # as a download leaves them that was interrupted
        target = os.readlink(snapshot / name)
        (snapshot / name).unlink()
        assert not complete(snapshot) and cached("some/model") is None
        if name == "tokenizer.json":
            (snapshot / name).symlink_to(target)
    with pytest.raises(EncoderError, match=r"hf:some/model is not on this disk .* `hf download some/model --local-dir"):
        load_encoder("hf:some/model")


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """In a process of its own, because the endpoint is read when huggingface_hub is imported."""
    code = "from brivl_search.encoders import load_encoder; load_encoder('hf:some/model')"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    last = found.stderr.strip().splitlines()[-1]
    assert "http://127.0.0.1:9 cannot be reached" in last and "HF_ENDPOINT" in last and "hf:FOLDER" in last


def test_a_mirror_is_asked_for_the_files_that_matter(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A hub on this machine: only what an encoder is made of is downloaded, into HF_HOME."""
    asked: list[str] = []
    files = {path.name: path.read_bytes() for path in checkpoints["clip"].iterdir()}
    files |= {"README.md": b"card", "pytorch_model.bin": b"x" * 99, "onnx/model.onnx": b"x"}
    hub = make_hub("some/model", files, asked)
    code = "from brivl_search.encoders import load_encoder; print(load_encoder('hf:some/model').fingerprint)"
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environment["HF_HUB_DISABLE_XET"] = "1"
    for offline in ("0", "1"):
        environment["HF_HUB_OFFLINE"] = offline
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert found.stdout.strip() == load(checkpoints["clip"]).fingerprint, found.stderr
    hub.shutdown()
    assert "model.safetensors" in asked and not {"pytorch_model.bin", "onnx/model.onnx", "README.md"} & set(asked)


@pytest.mark.parametrize("kind", KINDS)
def test_verbs_work_with_each(checkpoints: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """build-index, query by text and picture, info, and eval --compare, through the command line's own code."""
    from typer.testing import CliRunner

    from brivl_search.cli import app

    for n, (data, text) in enumerate(zip(photos(), [*TEXTS, "a blue cross"], strict=True)):
        name = f"{n}.jpg" if data.startswith(b"\xff\xd8") else f"{n}.png"
        (tmp_path / name).write_bytes(data)
        with (tmp_path / "captions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"image": name, "captions": [text]}, ensure_ascii=False) + "\n")

    def run(*args: str) -> str:
        done = CliRunner().invoke(app, [*args, "--device", "cpu"] if args[0] != "info" else list(args))
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    index, encoder = str(tmp_path / "index"), f"hf:{checkpoints[kind]}"
    run("build-index", str(tmp_path), "--index", index, "--encoder", encoder, "--workers", "0", "-q")
    about = json.loads(run("info", "--index", index))
    assert about["encoder"]["name"] == encoder and about["encoder"]["dim"] == load(checkpoints[kind]).dim
    hits = [json.loads(line) for line in run("query", "a red dog", "--index", index).splitlines()]
    assert len(hits) == 5 and hits[0]["score"] >= hits[-1]["score"]
    own = json.loads(
        run("query", "--image", str(tmp_path / "1.png"), "--target", "images", "-k", "1", "--index", index)
    )
    assert own["path"].endswith("1.png") and own["score"] > 0.999
    if kind == "clip":
        other = f"hf:{checkpoints['siglip']}"
        options = ("--dataset", str(tmp_path), "--encoder", encoder, "--compare", other, "--recall-at", "1", "--no-ci")
        report = json.loads(run("eval", *options))
        assert [report["encoder"], report["compared"][0]["encoder"]] == [encoder, other]
        nested = shutil.copytree(checkpoints["clip"], tmp_path / "nested")
        edit_json(nested / "config.json", matryoshka_dimensions=[8, 16, 24])
        report = json.loads(run("eval", *options[:2], "--encoder", f"hf:{nested}", "--truncate-dim", "8", "--no-ci"))
        assert report["encoder"] == f"hf:{nested}?dim=8"


def test_files_wanted_of_a_repository() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.txt", "onnx/model.onnx"]
    assert wanted(both) == ["config.json", "model.safetensors", "vocab.txt"]
    old = ["config.json", "pytorch_model.bin", "flax_model.msgpack", "README.md", "sub/config.json"]
    assert wanted(old) == ["config.json", "pytorch_model.bin"]
    sentence = ["modules.json", "0_CLIPModel/config.json", "0_CLIPModel/pytorch_model.bin", "onnx/model.onnx"]
    assert wanted(sentence) == sentence[:3]
