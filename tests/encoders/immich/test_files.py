"""What is said of folders of immich's format that are not whole, damaged or not supported; names, the hub, verbs."""

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

from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.files import complete, wanted
from brivl_search.encoders.immich import encoder as encoders
from brivl_search.encoders.immich.layout import external
from brivl_search.encoders.inventory import inventory
from brivl_search.encoders.runtimes import store
from brivl_search.encoders.runtimes.choice import Choice
from brivl_search.errors import DependencyError, EncoderError, UsageError
from tests.support.folders import REPO
from tests.support.tiny_hf import TEXTS, edit_json, make_hub, photos
from tests.support.tiny_immich import (
    exported_fixture,  # noqa: F401 - the fixture `exported`
    load,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("open_clip")
JPEG = bytes([0xFF, 0xD8])
Exported = dict[str, tuple[Path, Path]]


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported["vit"][0], tmp_path / "model"))


@pytest.mark.parametrize("name", ["visual/model.onnx", "textual/model.onnx", "textual/tokenizer.json", "config.json",
                                  "visual/preprocess_cfg.json", "textual/tokenizer_config.json"])  # fmt: skip
def test_what_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert not complete(folder)
    with pytest.raises(EncoderError, match=f"is not whole: it has no {name}; download the model again"):
        load(folder)


@pytest.mark.parametrize("name", ["visual/model.onnx", "textual/model.onnx"])
def test_a_truncated_tower_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    encoder = load(folder)
    with pytest.raises(EncoderError, match=f"{name} is damaged or not whole"):
        encoder.encode_images(photos()) if name.startswith("visual") else encoder.encode_texts(TEXTS)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "textual" / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"textual/tokenizer\.json cannot be read"):
        load(folder).encode_texts("dog")
    edit_json(folder / "textual" / "tokenizer_config.json", pad_token=None)
    with pytest.raises(EncoderError, match=r"tokenizer_config\.json names no pad_token"):
        load(folder)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"resize_mode": "longest"}, "preprocess_cfg.json is not supported: resize_mode is 'longest'"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'; known are bilinear and bicubic"),
        ({"size": [32, 64]}, r"size is \[32, 64\], not a square"),
        ({"mode": "L"}, "mode is L"),
        ({"mean": None}, "preprocess_cfg.json is not supported: mean is missing"),
        ({"std": [1, 2]}, "preprocess_cfg.json is not supported"),
    ],
)
def test_preprocessing_that_is_not_known_is_named(folder: Path, values: dict[str, Any], message: str) -> None:
    edit_json(folder / "visual" / "preprocess_cfg.json", **values)
    with pytest.raises(EncoderError, match=message):
        load(folder)


def test_descriptions_of_another_model_are_told_before_vectors_are_made(folder: Path) -> None:
    edit_json(folder / "visual" / "preprocess_cfg.json", size=[64, 64])
    with pytest.raises(EncoderError, match="takes 3 x 32 x 32, and the settings beside it say 3 x 64 x 64"):
        load(folder).encode_images(photos())
    edit_json(folder / "config.json", embed_dim=99)
    with pytest.raises(EncoderError, match=r"gives vectors of 24 numbers, and config\.json says 99"):
        load(folder).encode_texts("dog")
    edit_json(folder / "config.json", embed_dim=None)
    with pytest.raises(EncoderError, match=r"config\.json is not supported: embed_dim is missing"):
        load(folder)


def test_the_fingerprint_is_of_all_that_decides_a_vector(exported: Exported, folder: Path) -> None:
    first = load(folder).fingerprint
    assert first.startswith("im-") and first == load(exported["vit"][0]).fingerprint
    (folder / "README.md").write_text("a card", encoding="utf-8")
    assert load(folder).fingerprint == first
    seen = {first}
    edit_json(folder / "visual" / "preprocess_cfg.json", mean=[0.5, 0.5, 0.5])
    seen.add(load(folder).fingerprint)
    tokenizer = json.loads((folder / "textual" / "tokenizer.json").read_text(encoding="utf-8"))
    edit_json(folder / "textual" / "tokenizer.json", version=tokenizer["version"] + " ")
    seen.add(load(folder).fingerprint)
    model = onnx.load(folder / "visual" / "model.onnx")
    model.doc_string = "changed"
    onnx.save(model, folder / "visual" / "model.onnx")
    seen.add(load(folder).fingerprint)
    assert len(seen) == 4


def test_weights_beside_the_file(folder: Path) -> None:
    """A tower over 2 GiB has its weights in files of their own."""
    path = folder / "visual" / "model.onnx"
    whole = load(folder)
    images = whole.encode_images(photos())
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert [part.name for part in external(path)] == ["weights.bin"] and complete(folder)
    encoder = load(folder)
    assert (encoder.encode_images(photos()) == images).all()
    (folder / "visual" / "weights.bin").write_bytes((folder / "visual" / "weights.bin").read_bytes()[:-4] + b"1234")
    assert load(folder).fingerprint not in (encoder.fingerprint, whole.fingerprint)
    (folder / "visual" / "weights.bin").unlink()
    assert not complete(folder)
    with pytest.raises(EncoderError, match=r"visual/model\.onnx has weights in weights\.bin"):
        load(folder)


def test_texts_are_computed_by_a_copy_that_opens_fast(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made with the first text, gives the same vectors, and a damaged one, or none, costs nothing but time."""
    first = load(folder)
    wanted = first.encode_texts(TEXTS)
    copy = store.place(first.fingerprint, "text", Choice("onnx", "fp32"))
    facts = store.read(copy)
    assert facts is not None and facts.cosine > 0.99999 and (copy / "model.onnx").is_file()
    opened: list[Path] = []
    own = encoders.open_session

    def note(path: Path, **options: Any) -> Any:
        opened.append(path)
        return own(path, **options)

    monkeypatch.setattr(encoders, "open_session", note)
    np.testing.assert_allclose(load(folder).encode_texts(TEXTS), wanted, atol=1e-5)
    assert opened == [copy / "model.onnx"]
    (copy / "model.onnx").write_bytes(bytes((copy / "model.onnx").stat().st_size))  # damaged in spite of its length
    for _ in range(2):
        np.testing.assert_allclose(load(folder).encode_texts(TEXTS), wanted, atol=1e-5)
    monkeypatch.setenv("BRIVL_SEARCH_EXPORTS", str(folder / "config.json" / "no folder"))
    np.testing.assert_allclose(load(folder).encode_texts(TEXTS), wanted, atol=1e-5)


def test_devices_precisions_and_dimensions_that_it_does_not_have(folder: Path) -> None:
    with pytest.raises(UsageError, match="`device` is cpu or auto, not cuda"):
        load(folder, device="cuda")
    with pytest.raises(UsageError, match="`precision` is fp32 or auto, not bf16"):
        load(folder, precision="bf16")
    with pytest.raises(EncoderError, match="cannot be cut to 8 dimensions"):
        load(folder, truncate_dim=8)


def test_without_onnx_runtime_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brivl_search.encoders.immich.encoder.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"needs ONNX Runtime: pip install .*\[onnx\]"):
        load(folder)


def test_a_bare_folder_and_the_list_of_models(folder: Path) -> None:
    encoder = load_encoder(str(folder))
    assert encoder.name == f"hf:{folder}" and encoder.fingerprint == load(folder).fingerprint
    (found,) = [entry for entry in inventory([folder]) if entry.name == f"hf:{folder}"]
    assert (found.dim, found.disk[0].complete) == (24, True)


def test_download_takes_onnx_alone(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = exported["vit"][0]
    names = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
    files = {name: (source / name).read_bytes() for name in names}
    others = dict.fromkeys(
        ["README.md", "visual/fp16.armnn", "visual/rknpu/rk3588/model.rknn", "textual/model.armnn", "x.json"], b"x"
    )
    assert set(wanted([*files, *others])) == set(files)
    asked: list[str] = []
    server = make_hub("immich-app/ViT-B-32__openai", {**files, **others}, asked)
    code = (
        "import numpy as np; from brivl_search.encoders import load_encoder\n"
        "encoder = load_encoder('hf:immich-app/ViT-B-32__openai')\n"
        "print(encoder.name, encoder.fingerprint)"
    )
    address = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(REPO)}
    environment.pop("HF_HUB_OFFLINE", None)
    lines = []
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):  # the second time from the cache
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **more}, timeout=120
        )
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.strip())
    server.shutdown()
    assert lines == [f"hf:immich-app/ViT-B-32__openai {load(source).fingerprint}"] * 2
    assert set(asked) == set(files)


@pytest.mark.slow
def test_building_and_asking_imports_neither_torch_nor_transformers(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "photos"
    pictures.mkdir()
    for number, data in enumerate(photos()):
        (pictures / f"{number}.{'jpg' if data[:2] == JPEG else 'png'}").write_bytes(data)
    index = str(tmp_path / "index")
    code = (
        "import sys\nfrom brivl_search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(sorted({'torch', 'transformers', 'timm', 'open_clip'} & set(sys.modules)), file=sys.stderr)"
    )

    def run(*arguments: str) -> tuple[str, str]:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.strip().splitlines()[-1]

    built = run("build-index", str(pictures), "--index", index, "--encoder", f"hf:{folder}", "--workers", "0", "-q")
    assert built[1] == "[]"
    hits, imported = run("query", "a red dog", "--index", index)
    assert imported == "[]" and len(hits.splitlines()) == len(photos())
    assert run("query", "--image", str(pictures / "0.jpg"), "--index", index)[1] == "[]"
