"""The published BriVL: its names and sizes, its quirks one by one, import, conversion and the parity check."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.corpus.pixels import sample_bilinear
from brivl_search.encoders import load_encoder, official
from brivl_search.encoders.base import Origin
from brivl_search.encoders.boxes import BoxFile
from brivl_search.encoders.brivl import BriVLEncoder
from brivl_search.encoders.config import ModelConfig
from brivl_search.encoders.convert import convert, corrected, expected
from brivl_search.encoders.numpy_text import NumpyTextTower
from brivl_search.encoders.official import UNUSED, OfficialCheckpoint, published_config
from brivl_search.encoders.parity import check_sample
from brivl_search.errors import CorpusError, EncoderError, UsageError
from tests.e2e.site import Ended
from tests.official import Reference, tiny_official, write_official

# sha256 over the 2,320 lines "name (shape) dtype", sorted, of the released BriVL-1.0-5500w.pth.
RELEASED = "0dc29be43a01279eb33e6a072d0b65100f5e5d12df87ad4d8725f6e7cf2a2dc1"
TEXTS = ["a red dog", "一只在草地上的狗", "the green circle on the blue square", "狗"]


def photo(seed: int, size: tuple[int, int] = (300, 180)) -> bytes:
    """A picture with edges everywhere, so that resizing without antialiasing shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of any number."""
    return float(np.abs(a - b).max())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    path = tmp_path_factory.mktemp("official") / "BriVL.pth"
    return path, write_official(path)


# -- names and sizes ---------------------------------------------------------------------------------------------


def synthetic(config: ModelConfig) -> dict[str, torch.Tensor]:
    """A whole official state dict in which every tensor is one number, seen through strides of zero."""
    with torch.device("meta"):
        state = Reference(config.to_dict()).official_state(momentum=True)
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in state.items()}


def parameters(state: dict[str, torch.Tensor], prefix: str) -> float:
    buffers = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
    return sum(t.numel() for n, t in state.items() if n.startswith(prefix) and not n.endswith(buffers)) / 1e6


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    state = synthetic(published_config("brivl-1.0"))
    path = tmp_path_factory.mktemp("released") / "BriVL-1.0-5500w.pth"
    torch.save({"learnable": state}, path)
    return path, state


def test_every_name_and_shape_of_the_released_file(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    """All 2,320 tensors: each has a place in our towers, or is one that BriVL never uses; no place stays empty."""
    path, state = released
    lines = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in sorted(state.items())]
    assert len(lines) == 2320 and hashlib.sha256("\n".join(lines).encode()).hexdigest() == RELEASED
    assert path.stat().st_size < 3_000_000
    checkpoint = OfficialCheckpoint(str(path))
    assert checkpoint.config.name == "brivl-1.0"
    for tower, prefix in official.TOWERS.items():
        wanted = {name: t.shape for name, t in expected(checkpoint.config, tower).items()}
        for momentum in (False, True):
            found = {name: t.shape for name, t in checkpoint.tensors(tower, momentum=momentum).items()}
            assert found == wanted
        names = [name.removeprefix(prefix + ".") for name in state if name.startswith(prefix + ".")]
        unused = [name for name in names if name.startswith(UNUSED[tower])]
        assert len(unused) == {"image": 2, "text": 3}[tower] and len(names) == len(wanted) + len(unused)


def test_strict_load_at_the_released_size(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    from brivl_search.encoders.image_tower import ImageTower
    from brivl_search.encoders.text_tower import TextTower

    path, _ = released
    checkpoint = OfficialCheckpoint(f"{path}@brivl-1.0")
    with torch.device("meta"):
        image = ImageTower(checkpoint.config.image, 2048)
        text = TextTower(checkpoint.config.text, 2048)
    for tower, module in (("image", image), ("text", text)):
        module.load_state_dict(checkpoint.tensors(tower), strict=True, assign=True)
        assert not any(p.is_meta for p in module.parameters())


def test_parameters_of_the_released_and_the_papers_size(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    _, state = released
    paper = synthetic(published_config("brivl-paper"))
    counts = [[round(parameters(s, t + "."), 1) for t in official.TOWERS.values()] for s in (state, paper)]
    assert counts == [[143.7, 130.1], [232.9, 368.3]]
    # ours are these without the CNN's classifier and BERT's pooler
    for tower, left_out in (("image", 2560 * 1000 + 1000), ("text", 1024 * 1024 + 1024)):
        ours = sum(
            t.numel()
            for n, t in expected(published_config("brivl-paper"), tower).items()
            if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))
        )
        prefix = official.TOWERS[tower] + "."
        assert ours + left_out == round(parameters(paper, prefix) * 1e6)


@pytest.mark.shared
def test_the_digest_is_of_the_published_list() -> None:
    facts = Path(__file__).resolve().parents[2] / "shared/facts/brivl_state_dict_keys.json"
    if not facts.is_file():
        pytest.skip("no ../shared")
    names = json.loads(facts.read_text(encoding="utf-8"))
    lines = [f"{name} {tuple(shape)} {dtype}" for name, (shape, dtype) in sorted(names.items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == RELEASED


def test_model_by_size_then_by_file_name(released: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    path, state = released
    towers = {"1": "brivl-1.0", "2": "brivl-2.0"}
    for name, sign in (("x-2.0.pth", "2"), ("brivl-with-roberta-base.pth", "2"), ("brivl-5500w.pth", "1")):
        (tmp_path / name).write_bytes(path.read_bytes())
        assert OfficialCheckpoint(str(tmp_path / name)).config.name == towers[sign]
    (tmp_path / "weights.pth").write_bytes(path.read_bytes())
    with pytest.raises(EncoderError, match=r"brivl-1\.0 or brivl-2\.0.*official:.*@brivl-2\.0"):
        OfficialCheckpoint(str(tmp_path / "weights.pth"))
    assert OfficialCheckpoint(f"{tmp_path}/weights.pth@brivl-2.0").config.image.pixels.size == 456
    with pytest.raises(EncoderError, match="no published model 'brivl-3'"):
        OfficialCheckpoint(f"{tmp_path}/weights.pth@brivl-3")
    one = {n: t for n, t in state.items() if n.startswith("textencoder.")}
    one["textencoder.learnable.textFC.fc2.bias"] = torch.zeros(99)
    torch.save({"learnable": one}, tmp_path / "odd-1.0.pth")
    with pytest.raises(EncoderError, match=r"no published size: describe it in odd-1\.0\.json"):
        OfficialCheckpoint(str(tmp_path / "odd-1.0.pth"))


# -- the quirks, one by one --------------------------------------------------------------------------------------


def test_quirk_bert_sees_the_padding(tiny: tuple[Path, Reference]) -> None:
    """The vector depends on the length texts are padded to; the corrected mode's does not."""
    path, reference = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    ids = encoder.tokenizer.ids(TEXTS)
    assert apart(encoder.encode_texts(TEXTS), reference.texts(ids)) < 1e-5
    assert apart(encoder.encode_texts(TEXTS[3:]), reference.texts(ids)[3:]) < 1e-5  # alone as in a batch
    masked = BriVLEncoder(_with(OfficialCheckpoint(str(path)), corrected), device="cpu", precision="fp32")
    assert apart(masked.encode_texts(TEXTS), reference.texts(ids)) > 1e-3


def test_quirk_pictures_shrink_without_antialiasing() -> None:
    spec = PixelSpec(96, antialias=False)
    for seed, size in ((0, (300, 180)), (1, (96, 96)), (2, (40, 333))):
        data = photo(seed, size)
        whole = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32)).permute(2, 0, 1)[None]
        want = F.interpolate(whole, (96, 96), mode="bilinear", align_corners=False, antialias=False)[0]
        got = decode(data, spec).pixels
        assert apart(got, want.permute(1, 2, 0).numpy()) <= 0.5 + 1e-3  # rounded to a grey level, nothing else
    smooth = decode(photo(0), PixelSpec(96)).pixels.astype(float)
    assert np.abs(smooth - decode(photo(0), spec).pixels).mean() > 10


def test_quirk_jpegs_are_not_scaled_while_decoding() -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(photo(3, (1600, 1200)))).save(out, "JPEG", quality=95)
    whole = torch.from_numpy(np.array(Image.open(io.BytesIO(out.getvalue())), dtype=np.float32)).permute(2, 0, 1)[None]
    want = F.interpolate(whole, (96, 96), mode="bilinear", align_corners=False, antialias=False)[0]
    assert apart(decode(out.getvalue(), PixelSpec(96, antialias=False)).pixels, want.permute(1, 2, 0).numpy()) <= 0.52


def test_without_antialiasing_only_bilinear() -> None:
    with pytest.raises(ValueError, match="bilinear"):
        PixelSpec(96, interpolation="bicubic", antialias=False)
    spec = PixelSpec(96, antialias=False)
    assert PixelSpec.from_dict(spec.to_dict()) == spec


def boxed(tmp_path: Path, sizes: list[tuple[int, int]], boxes: list[list[list[float]]]) -> tuple[BoxFile, list[Origin]]:
    lines = [json.dumps({"image_id": f"{i}.png", "bbox": some}) for i, some in enumerate(boxes)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    origins = [Origin(str(tmp_path / f"{i}.png"), *size) for i, size in enumerate(sizes)]
    return BoxFile(tmp_path / "boxes.jsonl"), origins


def test_quirk_regions_and_the_whole_image_tower(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """Boxes of different number, one list longer than the most: as the published loop over pictures and boxes."""
    path, reference = tiny
    sizes = [(300, 180), (120, 200), (96, 96)]
    boxes = [
        [[10, 20, 150, 170], [0, 0, 299, 90], [200, 100, 300, 180], [5, 5, 60, 60], [70, 7, 90, 99], [1, 1, 2, 2]],
        [[60, 100, 120, 200]],
        [],
    ]
    data = [photo(i, size) for i, size in enumerate(sizes)]
    source, origins = boxed(tmp_path, sizes, boxes)
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)), device="cpu", precision="fp32", boxes=source)
    pixels = np.stack([decode(one, encoder.pixels).pixels for one in data])
    got = encoder.encode_pictures(pixels, origins)
    in_square = [
        [[v * 96 / side for v, side in zip(box, size * 2, strict=True)] for box in some]
        for some, size in zip(boxes, sizes, strict=True)
    ]
    rounded = [
        (torch.from_numpy(p).permute(2, 0, 1) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for p in pixels
    ]
    assert apart(got, reference.images(rounded, in_square)) < 2e-5
    exact = reference.images([reference.pixels(one) for one in data], in_square)  # not rounded to grey levels
    whole = [
        (np.asarray(Image.open(io.BytesIO(one))), (0.0, 0.0, *size)) for one, size in zip(data, sizes, strict=True)
    ]
    floats = np.stack([sample_bilinear(picture, box, 96) for picture, box in whole]).astype(np.float64)
    assert apart(encoder.encode_unrounded(floats, origins), exact) < 5e-4
    assert 5e-3 < apart(got, exact) < 0.1  # rounding, through a random network
    aligned = _with(OfficialCheckpoint(str(path)), lambda c: _roi(c, "aligned"))
    other = BriVLEncoder(aligned, device="cpu", precision="fp32", boxes=source).encode_pictures(pixels, origins)
    assert apart(other, got) > 1e-3


def test_without_boxes_the_fixed_grid(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, reference = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    pixels = np.stack([decode(photo(i), encoder.pixels).pixels for i in range(2)])
    grid = [[0, 0, 48, 48], [0, 48, 48, 96], [48, 0, 96, 48], [48, 48, 96, 96]]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tensors = [(torch.from_numpy(p).permute(2, 0, 1) / 255 - mean) / std for p in pixels]
    assert apart(encoder.encode_images(pixels), reference.images(tensors, [grid, grid])) < 2e-5


def _with(checkpoint: OfficialCheckpoint, change: Callable[[ModelConfig], ModelConfig]) -> OfficialCheckpoint:
    checkpoint.config = change(checkpoint.config)
    return checkpoint


def _roi(config: ModelConfig, roi: str) -> ModelConfig:
    raw = config.to_dict()
    raw["image"]["roi"] = roi
    return ModelConfig.from_dict(raw)


def test_corrected_is_the_default_for_models_trained_here(tiny: tuple[Path, Reference]) -> None:
    config = ModelConfig()
    assert config.image.pixels.antialias and config.text.padding == "masked"
    for name in official.PUBLISHED:
        quirky = published_config(name)
        assert not quirky.image.pixels.antialias and quirky.text.padding == "seen" and quirky.image.roi == "brivl"
        right = corrected(quirky)
        assert right.image.pixels.antialias and right.text.padding == "masked" and right.image.roi == "aligned"
        assert right.sizes() != quirky.sizes()


# -- reading and converting --------------------------------------------------------------------------------------


def test_conversion_keeps_the_vectors(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    source = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    done = convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    encoder = load_encoder(str(tmp_path / "out"), device="cpu", precision="fp32")
    pixels = np.stack([decode(photo(i), encoder.pixels).pixels for i in range(2)])
    np.testing.assert_array_equal(encoder.encode_images(pixels), source.encode_images(pixels))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), source.encode_texts(TEXTS))
    assert (tmp_path / "out/README.md").read_text().startswith("# tiny-official") and not done.momentum
    assert not (tmp_path / "out/momentum.safetensors").exists()
    half = convert(OfficialCheckpoint(str(path)), tmp_path / "half")
    assert half.bytes < 0.6 * done.bytes
    small = load_encoder(str(tmp_path / "half"), device="cpu", precision="fp32")
    assert (small.encode_texts(TEXTS) * source.encode_texts(TEXTS)).sum(1).min() > 0.99999
    with pytest.raises(UsageError, match="not empty"):
        convert(OfficialCheckpoint(str(path)), tmp_path / "out")


def test_round_trip_back_to_the_official_names(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """Every number of the file is in the folder, momentum copies included where they are asked for."""
    path, _ = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False, keep_momentum=True)
    state = torch.load(path, weights_only=True)["learnable"]
    back = {
        "image.backbones.0.net.": "imgencoder.backbone.",
        "image.project.": "imgencoder.learnable.max_pool.0.",
        "image.head.attention.": "imgencoder.learnable.imgAtt.",
        "image.head.": "imgencoder.learnable.imgFC.",
        "text.backbone.": "textencoder.backbone.bert.",
        "text.head.attention.": "textencoder.learnable.textAtt.",
        "text.head.": "textencoder.learnable.textFC.",
    }
    seen = set()
    for file, suffix in (("model.safetensors", ""), ("momentum.safetensors", "_mom")):
        for name, tensor in load_file(tmp_path / "out" / file).items():
            ours = next(prefix for prefix in back if name.startswith(prefix))
            theirs = (back[ours] + name.removeprefix(ours)).replace("encoder.", f"encoder{suffix}.", 1)
            torch.testing.assert_close(tensor.reshape(state[theirs].shape), state[theirs], rtol=0, atol=0)
            seen.add(theirs)
    left = {name for name in state if name not in seen}
    assert {n.split(".", 1)[1] for n in left} == {
        "backbone.classifier.weight",
        "backbone.classifier.bias",
        "backbone.bert.pooler.dense.weight",
        "backbone.bert.pooler.dense.bias",
        "backbone.bert.embeddings.position_ids",
    }


def test_corrected_conversion_differs_and_says_so(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", parity=False)
    encoder = load_encoder(str(tmp_path / "out"))
    assert (
        encoder.pixels.antialias and "without the published code's quirks" in (tmp_path / "out/README.md").read_text()
    )
    convert(OfficialCheckpoint(str(path)), tmp_path / "same")
    assert load_encoder(str(tmp_path / "same")).fingerprint != encoder.fingerprint


def test_numpy_text_tower_sees_padding_too(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, reference = tiny
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    encoder = BriVLEncoder(tmp_path / "out")
    ids = encoder.tokenizer.ids(TEXTS)
    assert apart(NumpyTextTower(tmp_path / "out", encoder.config.text).encode(ids), reference.texts(ids)) < 1e-5


def test_one_tower_alone(tmp_path: Path) -> None:
    reference = write_official(tmp_path / "t.pth", only="textencoder.")
    encoder = load_encoder(f"official:{tmp_path}/t.pth", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    assert apart(encoder.encode_texts(TEXTS), reference.texts(encoder.tokenizer.ids(TEXTS))) < 1e-5
    with pytest.raises(EncoderError, match=r"holds no image tower: it has no tensors imgencoder\.\*"):
        encoder.encode_images(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(EncoderError, match="no image tower"):
        convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "both")
    convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "text", towers=["text"])
    folder = load_encoder(str(tmp_path / "text"), device="cpu")
    assert folder.encode_texts(["dog"]).shape == (1, 24)
    with pytest.raises(EncoderError, match="holds no image tower"):
        folder.encode_images(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(EncoderError, match="holds no momentum copy of the text tower"):
        convert(OfficialCheckpoint(f"{tmp_path}/t.pth"), tmp_path / "m", towers=["text"], keep_momentum=True)


def test_files_of_old_torch_and_of_other_wrappings(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """The format before torch 1.6, a bare state dict, DataParallel's prefix: the same vectors."""
    path, _ = tiny
    want = load_encoder(f"official:{path}", device="cpu", precision="fp32").encode_texts(TEXTS)
    write_official(tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = torch.load(path, weights_only=True)["learnable"]
    for name, raw in (("bare", state), ("parallel", {"learnable": {f"module.{n}": t for n, t in state.items()}})):
        torch.save(raw, tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.json").write_text(json.dumps(tiny_official()))
    for name in ("old", "bare", "parallel"):
        encoder = load_encoder(f"official:{tmp_path}/{name}.pth", device="cpu", precision="fp32")
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=1e-6)


def test_fingerprint_follows_weights_sizes_and_boxes(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    base = OfficialCheckpoint(str(path)).fingerprint
    write_official(tmp_path / "a.pth")
    assert OfficialCheckpoint(f"{tmp_path}/a.pth").fingerprint == base  # the same numbers elsewhere
    write_official(tmp_path / "b.pth", seed=1)
    assert OfficialCheckpoint(f"{tmp_path}/b.pth").fingerprint != base
    raw = tiny_official()
    raw["text"]["max_length"] = 12
    (tmp_path / "short.json").write_text(json.dumps(raw))
    assert OfficialCheckpoint(f"{path}@{tmp_path}/short.json").fingerprint != base
    (tmp_path / "x.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 1]]}\n')
    with_boxes = load_encoder(f"official:{path}+boxes={tmp_path}/x.jsonl")
    (tmp_path / "y.jsonl").write_text('{"image_id": "a.jpg", "bbox": [[0, 0, 1, 2]]}\n')
    other = load_encoder(f"official:{path}+boxes={tmp_path}/y.jsonl")
    assert len({base, with_boxes.fingerprint, other.fingerprint}) == 3
    assert load_encoder(with_boxes.name).fingerprint == with_boxes.fingerprint  # what an index remembers


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("owned",))


def test_what_is_not_a_brivl_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(tiny_official()))
    with pytest.raises(EncoderError, match="there is no file"):
        load_encoder(f"official:{tmp_path}/nothing.pth")
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"learnable": Evil()}))
    with pytest.raises(EncoderError, match="cannot be read as a checkpoint of plain tensors"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    assert "owned" not in capsys.readouterr().out
    torch.save({"learnable": {"weight": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match=r"no tensors imgencoder\.\*"):
        OfficialCheckpoint(f"{tmp_path}/x.pth").state()
    write_official(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-5000])
    with pytest.raises(EncoderError):
        load_encoder(f"official:{tmp_path}/x.pth").encode_texts(["dog"])


def test_weights_of_another_size_are_named(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, _ = tiny
    raw = tiny_official()
    raw["text"]["backbone"]["num_hidden_layers"] = 1
    (tmp_path / "c.json").write_text(json.dumps(raw))
    checkpoint = OfficialCheckpoint(f"{path}@{tmp_path}/c.json")
    with pytest.raises(EncoderError, match=r"does not fit tiny-official: .*backbone\.encoder\.layer\.1"):
        load_encoder(checkpoint.name).encode_texts(["dog"])
    with pytest.raises(EncoderError, match=r"text tower: there is no place for backbone\.encoder\.layer\.1"):
        convert(checkpoint, tmp_path / "out", towers=["text"])
    raw = tiny_official() | {"dim": 25}
    (tmp_path / "d.json").write_text(json.dumps(raw))
    with pytest.raises(EncoderError, match=r"head\.fc1\.bias is \(24,\), not \(25,\)"):
        convert(OfficialCheckpoint(f"{path}@{tmp_path}/d.json"), tmp_path / "out")


def test_vocabulary_beside_the_file_or_a_way_out(
    tiny: tuple[Path, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    moved = tmp_path / "alone.pth"
    moved.write_bytes(path.read_bytes())
    moved.with_suffix(".json").write_text(json.dumps(tiny_official()))
    with pytest.raises(EncoderError, match=r"put its vocab\.txt beside the checkpoint, or set HF_ENDPOINT"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(200))]))
    with pytest.raises(EncoderError, match="a vocabulary of 204 words for 120 word embeddings"):
        load_encoder(f"official:{moved}").encode_texts(["dog"])


# -- the parity check --------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tiny: tuple[Path, Reference], tmp_path: Path) -> Path:
    """A sample like BriVL's, with the vectors that the reference gives for it."""
    path, reference = tiny
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)))
    sizes = [(300, 180), (120, 200), (160, 160)]
    data = [photo(i + 7, size) for i, size in enumerate(sizes)]
    boxes = [[[10 * i, 20, 90, 100 + i], [0, 0, 50, 60]] for i in range(3)]
    folder = tmp_path / "sample"
    folder.mkdir()
    lines = []
    for i, content in enumerate(data):
        (folder / f"p{i}.png").write_bytes(content)
        sentences = [["alt_text", "dog"], ["sur_text", TEXTS[i]]]
        lines.append(json.dumps({"image_id": f"../data/imgs/p{i}.png", "sentences": sentences, "bbox": boxes[i]}))
    (folder / "example.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    square = [
        [[v * 96 / s for v, s in zip(b, size * 2, strict=True)] for b in some]
        for some, size in zip(boxes, sizes, strict=True)
    ]
    np.save(folder / "np_img.npy", reference.images([reference.pixels(one) for one in data], square))
    np.save(folder / "np_text.npy", reference.texts(encoder.tokenizer.ids(TEXTS[:3])))
    return folder


def test_check_reproduces_a_sample(tiny: tuple[Path, Reference], sample: Path, tmp_path: Path) -> None:
    path, _ = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    report = check_sample(encoder, sample)
    assert report.ok and report.names == ["p0.png", "p1.png", "p2.png"] and encoder.boxes is None
    assert min(report.image_cosines) > 0.9999 and min(report.text_cosines) > 0.9999
    convert(OfficialCheckpoint(str(path)), tmp_path / "out", half=False)
    folder = load_encoder(str(tmp_path / "out"), device="cpu", precision="fp32")
    assert isinstance(folder, BriVLEncoder) and check_sample(folder, sample).ok
    (sample / "np_text.npy").unlink()
    with pytest.raises(UsageError, match=r"it has no np_text\.npy"):
        check_sample(encoder, sample)


def test_check_as_a_verb(
    tiny: tuple[Path, Reference],
    sample: Path,
    tmp_path: Path,
    run_here: Callable[..., Ended],
) -> None:
    def call(*arguments: str) -> Ended:
        return run_here("models", *arguments)

    path, _ = tiny
    code, out, err = call("check", f"official:{path}", "--sample", str(sample), "--device", "cpu")
    found = json.loads(out)
    assert code == 0 and found["ok"] and len(found["scores"]) == 3, err
    code, out, err = call("check", f"official:{path}", "--sample", str(sample), "--format", "table", "--device", "cpu")
    assert code == 0 and "published" in out and f"{found['published'][0]:.3f}" in out
    write_official(tmp_path / "other.pth", seed=5)
    code, out, err = call("check", f"official:{tmp_path}/other.pth", "--sample", str(sample), "--device", "cpu")
    assert code == 1 and not json.loads(out)["ok"]
    assert "does not reproduce the sample: a score is off by more than 0.01" in err and "Traceback" not in err
    code, _, err = call("check", "brivl-mini", "--sample", str(tmp_path / "nowhere"))
    assert code == 2 and "is not a BriVL sample" in err
    code, _, err = call("convert", f"official:{path}", str(tmp_path / "out"), "--towers", "text")
    assert code == 0 and "text tower" in err and (tmp_path / "out/config.json").is_file()
    code, _, err = call("convert", f"official:{path}", str(tmp_path / "o"), "--towers", "audio")
    assert code == 2 and "--towers audio" in err
    code, _, err = call("convert", str(path), str(tmp_path / "o"))
    assert code == 2 and f"write official:{path}" in err


@pytest.mark.shared
def test_the_published_sample_scores_what_its_vectors_say() -> None:
    """Without the weights: the sample is read whole, and its own vectors give .611, .818 and .744."""
    folder = Path(__file__).resolve().parents[2] / "shared/data/brivl-official-sample"
    if not folder.is_dir():
        pytest.skip("no ../shared")
    images, texts = np.load(folder / "np_img.npy"), np.load(folder / "np_text.npy")

    class Known(BriVLEncoder):
        """Answers with the published vectors; everything around it is real."""

        def __init__(self) -> None:
            self.name, self.dim, self.boxes = "known", 2048, None
            self.pixels = published_config("brivl-1.0").image.pixels

        def encode_unrounded(self, pixels: np.ndarray, origins: Any) -> np.ndarray:
            assert self.boxes is not None and pixels.shape == (3, 380, 380, 3)
            found = self.boxes.find(pixels, origins)
            assert [None if f is None else f.shape for f in found] == [(100, 4)] * 3
            return images

        def encode_texts(self, texts_: Any) -> np.ndarray:
            assert texts_[0] == "诺伍德大厅酒店位于阿伯丁，是家4星级酒店。"
            return texts

    report = check_sample(Known(), folder)
    assert [round(score, 3) for score in report.scores] == [0.611, 0.818, 0.744]


def test_a_broken_sample_is_one_line(tiny: tuple[Path, Reference], sample: Path) -> None:
    path, _ = tiny
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)), device="cpu")
    np.save(sample / "np_img.npy", np.zeros((3, 7), np.float32))
    with pytest.raises(EncoderError, match="24 dimensions, the sample has 7"):
        check_sample(encoder, sample)
    (sample / "example.jsonl").write_text('{"image_id": "p0.png"}\n')
    with pytest.raises(CorpusError, match="1 lines, 3 pictures, 3 texts"):
        check_sample(encoder, sample)
