"""Names and folders of open_clip's models: what is found, hashed, refused."""

from __future__ import annotations

import importlib.util
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

from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.files import complete, wanted
from brivl_search.encoders.hf.layout import WEIGHTS, weight_file
from brivl_search.encoders.inventory import inventory
from brivl_search.encoders.open_clip import remembered
from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
from brivl_search.errors import DependencyError, EncoderError, UsageError
from tests.support.tiny_hf import TEXTS, edit_json, make_hf
from tests.support.tiny_open_clip import (
    load,
    make_open_clip,
    models_fixture,  # noqa: F401 - the fixture `models`
)

open_clip = pytest.importorskip("open_clip")
CONFIG, SAFE = "open_clip_config.json", "open_clip_model.safetensors"


def edit_model(folder: Path, part: str, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    target = config["model_cfg"] if part == "" else config["model_cfg"][part]
    target |= values
    (folder / CONFIG).write_text(json.dumps(config))


def test_every_way_to_a_folder_gives_one_encoder(models: dict[str, Path]) -> None:
    folder = models["vit"]
    ways = {name: load_encoder(name, device="cpu") for name in (f"open_clip:{folder}", f"hf:{folder}", str(folder))}
    assert all(isinstance(one, OpenClipEncoder) for one in ways.values())
    assert len({one.fingerprint for one in ways.values()}) == 1
    assert [one.name for one in ways.values()] == [f"open_clip:{folder}", f"hf:{folder}", f"hf:{folder}"]


def test_a_folder_that_transformers_loads_is_left_to_it(tmp_path: Path) -> None:
    folder = make_hf(tmp_path / "clip", "clip")
    before = load_encoder(f"hf:{folder}").fingerprint
    (folder / CONFIG).write_text("{}")
    assert load_encoder(f"hf:{folder}").fingerprint == before and before.startswith("hf-")


def test_making_one_imports_neither_torch_nor_open_clip(models: dict[str, Path]) -> None:
    code = (
        "import sys; from brivl_search.encoders import load_encoder; print(load_encoder(sys.argv[1]).fingerprint);"
        "print({'torch', 'open_clip', 'transformers', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, f"open_clip:{models['vit']}"], capture_output=True, text=True)
    assert done.stdout.split() == [load(models["vit"]).fingerprint, "set()"], done.stderr


def test_fingerprint_is_of_all_that_decides_a_vector(models: dict[str, Path], tmp_path: Path) -> None:
    def changed(name: str, change: Any) -> str:
        folder = shutil.copytree(models["xlm_roberta"], tmp_path / name)
        change(folder)
        return load(folder).fingerprint

    original = load(models["xlm_roberta"]).fingerprint
    assert changed("copied", lambda folder: (folder / "README.md").write_text("a card")) == original
    assert changed("renamed", lambda folder: edit_model(folder, "text_cfg", hf_model_name="a/b")) == original
    others = {
        changed("pixels", lambda folder: edit_json(folder / CONFIG, preprocess_cfg={"interpolation": "bilinear"})),
        changed("mean", lambda folder: edit_json(folder / CONFIG, preprocess_cfg={"mean": [0.5, 0.5, 0.4]})),
        changed("gelu", lambda folder: edit_model(folder, "", quick_gelu=True)),
        changed("words", lambda folder: (folder / "tokenizer_config.json").write_text("{}")),
        changed("tower", lambda folder: edit_json(folder / "config.json", layer_norm_eps=1e-3)),
        changed("weights", lambda folder: make_open_clip(folder, "xlm_roberta", seed=1)),
    }
    assert len(others) == 6 and original not in others


def test_pickled_weights_and_which_file_is_read(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = shutil.copytree(models["vit"], tmp_path / "pickle")
    torch.save(load_file(folder / SAFE), folder / "open_clip_pytorch_model.bin")
    (folder / SAFE).unlink()
    assert np.allclose(load(folder).encode_texts(TEXTS), load(models["vit"]).encode_texts(TEXTS), atol=1e-6)
    every = tmp_path / "every"
    every.mkdir()
    names = [*WEIGHTS, "a.pth", "z.safetensors", "b.bin"]
    for name in names:
        (every / name).touch()
    while (found := weight_file(every)) is not None:
        assert str(found) == open_clip.factory._find_checkpoint_in_dir(every)
        found.unlink()


def test_cut_vectors(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["vit"], tmp_path / "nested")
    with pytest.raises(EncoderError, match="does not say that it is a Matryoshka model"):
        load(folder, truncate_dim=8)
    edit_json(folder / CONFIG, matryoshka_dimensions=[8, 16, 24])
    short, whole = load(folder, truncate_dim=8), load(folder)
    assert short.dim == 8 and short.name.endswith("?dim=8") and short.fingerprint != whole.fingerprint
    first = whole.encode_texts(TEXTS)[:, :8]
    assert np.allclose(short.encode_texts(TEXTS), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5)


def test_bad_folders_are_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    def broken(kind: str, change: Any) -> str:
        folder = shutil.copytree(models[kind], tmp_path / f"{len(list(tmp_path.iterdir()))}")
        change(folder)
        with pytest.raises(EncoderError) as caught:
            load(folder).encode_texts(["dog"])
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        return str(caught.value)

    assert f"has no {CONFIG}" in broken("vit", lambda folder: (folder / CONFIG).unlink())
    assert "cannot be read" in broken("vit", lambda folder: (folder / CONFIG).write_text("{"))
    assert "no model_cfg" in broken("vit", lambda folder: (folder / CONFIG).write_text("{}"))
    assert "has no weights" in broken("vit", lambda folder: (folder / SAFE).unlink())
    assert "embed_dim is missing" in broken(
        "vit", lambda folder: edit_json(folder / CONFIG, model_cfg={"vision_cfg": {}, "text_cfg": {}})
    )
    assert "does not fit the config" in broken("vit", lambda folder: edit_model(folder, "text_cfg", width=48))
    assert "does not fit the config" in broken("vit", lambda folder: (folder / SAFE).write_bytes(b"x" * 40))
    assert "cannot build it" in broken("vit", lambda folder: edit_model(folder, "vision_cfg", timm_model_name="vit_no"))
    assert "resize_mode is 'longest'" in broken(
        "vit", lambda folder: edit_json(folder / CONFIG, preprocess_cfg={"resize_mode": "longest"})
    )
    assert "image_size is [32, 64]" in broken(
        "vit", lambda folder: edit_model(folder, "vision_cfg", image_size=[32, 64])
    )
    assert "its text tower from 'no model!'" in broken(
        "xlm_roberta",
        lambda folder: ((folder / "config.json").unlink(), edit_model(folder, "text_cfg", hf_model_name="no model!")),
    )
    assert "cannot be read" in broken("clipa", lambda folder: (folder / "tokenizer.json").write_text("{"))


def test_program_code_of_a_model_never_runs(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where its files ask for it, nor where its open_clip config says to trust them, nor with the switch on."""
    monkeypatch.setenv("BRIVL_SEARCH_TRUST_REMOTE_CODE", "1")
    folder = shutil.copytree(models["xlm_roberta"], tmp_path / "sly")
    mark = tmp_path / "ran"
    (folder / "sly.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Sly: pass\n")
    edit_model(folder, "text_cfg", tokenizer_kwargs={"trust_remote_code": True, "clean": "whitespace"})
    edit_json(folder / "config.json", auto_map={"AutoConfig": "sly.Sly", "AutoModel": "sly.Sly"})
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["sly.Sly", "sly.Sly"]})
    found = load(folder).encode_texts(TEXTS)
    assert not mark.exists() and np.allclose(found, load(models["xlm_roberta"]).encode_texts(TEXTS), atol=1e-6)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> str:
        with pytest.raises(UsageError) as caught:
            load_encoder(f"open_clip:{name}")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "the nearest: ViT-B-32/openai" in refused("ViT-B-23/openai")
    assert "add /PRETRAINED, one of: openai, " in refused("ViT-B-32")
    assert "take openai" in refused("ViT-B-32/opnai")
    assert "list_pretrained()" in refused("qqqqq")
    assert "write hf:a/b" in refused("hf-hub:a/b")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("brivl_search.encoders.open_clip.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"open_clip:ViT-B-32/openai needs open_clip: pip install .*open-clip\]'"):
        load_encoder("open_clip:ViT-B-32/openai")


def test_built_in_weights_from_the_hubs_cache(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name finds the file that open_clip downloaded before, and takes the activation of the weights."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repo = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repo / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        EncoderError, match=r"open_clip:ViT-B-32/openai is not on this disk .*hf download timm/vit_base"
    ):
        load_encoder("open_clip:ViT-B-32/openai")
    shutil.copy(models["vit"] / SAFE, snapshot / SAFE)
    encoder = load_encoder("open_clip:ViT-B/32/openai?dim=512", device="cpu")
    assert isinstance(encoder, OpenClipEncoder) and encoder.name == "open_clip:ViT-B-32/openai?dim=512"
    assert encoder.model.weights == snapshot / SAFE and encoder.about.model["quick_gelu"] is True
    assert (encoder.dim, encoder.pixels.size, encoder.pixels.resize) == (512, 224, "crop")
    # Asked once, open_clip is not imported again, until it is of another version.
    code = (
        "import sys; from brivl_search.encoders import load_encoder; print(load_encoder(sys.argv[1]).fingerprint);"
        "print({'torch', 'open_clip', 'transformers', 'timm'} & set(sys.modules))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "open_clip:ViT-B/32/openai"], capture_output=True, text=True, env=environment
    )
    whole = load_encoder("open_clip:ViT-B-32/openai", device="cpu")
    assert done.stdout.split() == [whole.fingerprint, "set()"], done.stderr
    monkeypatch.setattr(remembered, "version", lambda _: "another")
    assert remembered.read("ViT-B/32/openai") is None
    (tmp_path / "cache" / "brivl-search" / "open_clip.json").write_text('{"half": ')
    assert load_encoder("open_clip:ViT-B-32/openai", device="cpu").fingerprint == whole.fingerprint


def test_weights_that_open_clip_downloads_itself_are_remembered(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = shutil.copy(models["vit"] / SAFE, tmp_path / "weights.safetensors")
    asked: list[str] = []

    def download(about: dict[str, Any]) -> str:
        asked.append(about["url"])
        return str(file)

    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.org/weights"})
    monkeypatch.setattr(open_clip, "download_pretrained", download)
    for _ in range(2):
        encoder = load_encoder("open_clip:ViT-B-32/openai", device="cpu")
        assert isinstance(encoder, OpenClipEncoder) and encoder.model.weights == Path(file)
    assert asked == ["https://example.org/weights"]
    Path(file).rename(tmp_path / "moved.safetensors")
    file = tmp_path / "moved.safetensors"
    for _ in range(2):
        load_encoder("open_clip:ViT-B-32/openai", device="cpu")
    assert len(asked) == 2


def test_models_list_and_downloads(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["siglip"], tmp_path / "m" / "siglip")
    (folder / "model.safetensors").write_bytes((folder / SAFE).read_bytes())
    found = {entry.name: entry for entry in inventory([tmp_path / "m"])}
    one = found[f"open_clip:{folder}"]
    whole = open_clip.create_model(f"local-dir:{folder}")
    assert one.parameters == round(sum(value.numel() for value in whole.state_dict().values()) / 1e6, 1)
    assert one.dim == 64 and one.disk[0].complete and found["open_clip:nllb-clip-base-siglip/mrl"].dim == 768
    (folder / SAFE).unlink()
    (folder / "model.safetensors").unlink()
    assert not complete(folder)
    timm = [CONFIG, "config.json", "model.safetensors", SAFE, "open_clip_pytorch_model.bin", "tokenizer.json", "x.py"]
    assert wanted(timm) == [CONFIG, "config.json", "tokenizer.json", SAFE]
    both = [CONFIG, "config.json", "preprocessor_config.json", "pytorch_model.bin", "open_clip_pytorch_model.bin"]
    assert wanted(both) == [CONFIG, "config.json", "preprocessor_config.json", "pytorch_model.bin"]
