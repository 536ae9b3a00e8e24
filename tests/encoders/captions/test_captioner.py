"""A captioner's folder: what is written is what writes, and it fits one image tower."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captioners import load_captioner
from brivl_search.encoders.captioning import Draft, ranked
from brivl_search.encoders.captions.beam import Search, search
from brivl_search.encoders.captions.captioner import FolderCaptioner
from brivl_search.encoders.captions.checkpoint import is_captioner
from brivl_search.errors import EncoderError, UsageError
from tests.support.captioners import make_captioner
from tests.support.stub import StubEncoder
from tests.support.tiny import make_checkpoint

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
ORIGINS = [Origin("", 64, 64)] * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    return make_captioner(tmp_path_factory.mktemp("captioner"), checkpoint)


def load(folder: Path, checkpoint: Path) -> FolderCaptioner:
    encoder = BriVLEncoder(checkpoint, device="cpu", precision="fp32")
    found = load_captioner(str(folder), encoder, device="cpu", precision="fp32")
    assert isinstance(found, FolderCaptioner)
    return found


@torch.inference_mode()
def test_captions_are_the_models(folder: Path, checkpoint: Path) -> None:
    captioner = load(folder, checkpoint)
    found = captioner.write(PIXELS, ORIGINS, ["en", "zh"], 2)
    towers = captioner.encoder
    features, boxes, mask = towers.regions(PIXELS)
    vectors = towers.encode_images(PIXELS)
    memory = captioner.model.look(features, boxes, torch.from_numpy(vectors), mask)
    for language, number in (("zh", 0), ("en", 1)):
        own = search(captioner.model, memory, number, Search(3, 0.7, 2, 7))
        for drafts, vector, some in zip(found, vectors, own, strict=True):
            texts = list(dict.fromkeys(captioner.words.text(one.words) for one in some))
            assert [one.text for one in drafts.captions[language]] == texts
            assert drafts.vector is not None and np.allclose(drafts.vector, vector, atol=1e-5)
    assert len({one.captions["en"][0].score for one in found}) == 3  # each sees its own picture
    alone = captioner.write(PIXELS[1:2], ORIGINS[:1], ["en"], 2)[0].captions["en"]
    assert [one.text for one in alone] == [one.text for one in found[1].captions["en"]]


def test_it_fits_one_image_tower_and_any_text_tower(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(EncoderError, match="reads another image tower"):
        load(folder, other)
    with pytest.raises(EncoderError, match="reads the regions of a BriVL image tower"):
        load_captioner(str(folder), StubEncoder())
    with pytest.raises(UsageError, match="reads the regions of an encoder"):
        load_captioner(str(folder), None)
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    changed = {name: value * 2 if name.startswith("text.") else value for name, value in tensors.items()}
    again = make_checkpoint(tmp_path / "again")
    save_file(changed, again / "model.safetensors")
    a, b = (BriVLEncoder(one, device="cpu") for one in (checkpoint, again))
    assert a.fingerprint != b.fingerprint and a.vectors_fingerprint == b.vectors_fingerprint
    assert load(folder, again).fingerprint == load(folder, checkpoint).fingerprint


def test_damage_is_told(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert is_captioner(folder) and not is_captioner(checkpoint) and not is_captioner(tmp_path)
    bad = make_captioner(tmp_path / "bad", checkpoint)
    (bad / "model.safetensors").write_bytes(b"x")
    with pytest.raises(EncoderError, match=r"model\.safetensors"):
        load(bad, checkpoint).write(PIXELS, ORIGINS, ["en"], 1)
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "layers": "two"}))
    with pytest.raises(EncoderError, match="layers = 'two' is no int"):
        load(bad, checkpoint)
    with pytest.raises(EncoderError, match="holds no captioner"):
        load_captioner(str(checkpoint), BriVLEncoder(checkpoint, device="cpu"))


def test_the_cosine_counts_as_it_is_said_to() -> None:
    drafts = [Draft("a", -1.0), Draft("b", -1.1), Draft("c", -1.1)]
    cosines = np.array([0.1, 0.2, 0.2], np.float32)
    assert ranked(drafts, cosines, 0.0) == [0, 1, 2]
    assert ranked(drafts, cosines, 2.0) == [1, 2, 0]
    assert ranked([], cosines[:0], 2.0) == []


def test_a_bundled_one_is_no_encoder(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from brivl_search.encoders import registry
    from brivl_search.encoders.captioners import bundled_captioners, default_captioner

    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    with pytest.raises(UsageError, match="no captioner is bundled"):
        default_captioner()
    shutil.copytree(folder, tmp_path / "writer")
    shutil.copytree(checkpoint, tmp_path / "towers")
    assert registry.bundled() == ["towers"] and bundled_captioners() == ["writer"] and default_captioner() == "writer"
    assert load_captioner("writer", BriVLEncoder(checkpoint, device="cpu")).name == "writer"
