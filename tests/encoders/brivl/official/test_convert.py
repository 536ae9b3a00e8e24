"""Official checkpoints become checkpoint folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brivl_search.corpus.images import decode
from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.numpy_text import NumpyTextTower
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint
from brivl_search.encoders.brivl.official.convert import convert
from brivl_search.errors import EncoderError, UsageError
from tests.support.official import (
    TEXTS,
    Reference,
    apart,
    photo,
    tiny_fixture,  # noqa: F401 - the fixture `tiny`
    write_official,
)


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
