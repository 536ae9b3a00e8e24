"""Models of transformers as folders and from a hub: what is read and what is refused, fingerprints, and the verbs."""

from __future__ import annotations

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

from brivl_search.encoders import digests, load_encoder
from brivl_search.encoders.hf.files import cached, complete, wanted, weight_files
from brivl_search.encoders.known import known_matryoshka
from brivl_search.errors import BrivlSearchError, EncoderError, UsageError
from tests.support.tiny_hf import (
    KINDS,
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    edit_json,
    load,
    make_hf,
    make_hub,
    photos,
)


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
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.run import build_index
    from brivl_search.output import Bar
    from brivl_search.search.engine import Engine, SearchOptions

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
    with pytest.raises(UsageError, match="`truncate_dim` 0"):
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
