"""Where a model of the Hugging Face hub lies: forms of weights, fingerprints, the cache, a hub away, a mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.files import cached, complete, wanted, weight_files
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny_hf import (
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    edit_json,
    load,
    make_hf,
    make_hub,
)


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


def test_a_hub_that_has_no_such_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong name is wrong usage. A name that only points there, open_clip's or a config's, is not the user's."""
    import httpx
    from huggingface_hub import HfApi, constants, errors

    from brivl_search.encoders.hf.files import download
    from brivl_search.encoders.open_clip import files, names

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kinds: list[tuple[type[errors.HfHubHTTPError], type[Exception], str]] = [
        (errors.RepositoryNotFoundError, UsageError, "there is no model no/such at .*check the name"),
        (errors.RevisionNotFoundError, UsageError, "no/such has no revision 'v9'"),
        (errors.GatedRepoError, EncoderError, "asks for its terms to be accepted"),
    ]
    answer = httpx.Response(404, request=httpx.Request("GET", "http://hub"))

    def refuse(*_: object, **__: object) -> None:
        raise raised[0]("no", response=answer)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    raised: list[type[errors.HfHubHTTPError]] = []
    for kind, expected, said in kinds:
        raised[:] = [kind]
        with pytest.raises(expected, match=said):
            load_encoder("hf:no/such@v9")
        with pytest.raises(expected, match=said):
            download("no/such", "v9", list)
        with pytest.raises(EncoderError, match="open_clip:A/b"):
            files._part("open_clip:A/b", None, "no/such", "tokenizer")
        with pytest.raises(EncoderError, match="no/such" if expected is UsageError else said):
            names._weights("open_clip:A/b", {"hf_hub": "no/such/"})


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


def test_files_wanted_of_a_repository() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.txt", "onnx/model.onnx"]
    assert wanted(both) == ["config.json", "model.safetensors", "vocab.txt"]
    old = ["config.json", "pytorch_model.bin", "flax_model.msgpack", "README.md", "sub/config.json"]
    assert wanted(old) == ["config.json", "pytorch_model.bin"]
    sentence = ["modules.json", "0_CLIPModel/config.json", "0_CLIPModel/pytorch_model.bin", "onnx/model.onnx"]
    assert wanted(sentence) == sentence[:3]
