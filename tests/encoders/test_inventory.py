"""`models list`: known encoders, and what lies in the package, the hub's cache and folders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brivl_search.encoders.cpu import cpu_name
from brivl_search.encoders.inventory import inventory
from brivl_search.encoders.speeds import Speed
from brivl_search.errors import UsageError
from brivl_search.output.models import show_model, show_models
from tests.support.matchers import make_matcher
from tests.support.site import Ended

SIGLIP = {
    "model_type": "siglip",
    "text_config": {"hidden_size": 48, "projection_size": 40},
    "vision_config": {"image_size": 32},
}


def write_model(folder: Path, weights: bool = True) -> Path:
    """A folder as a download leaves it; its weights are 3 × 5 000 numbers that no model reads."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SIGLIP))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 32, "width": 32}}))
    (folder / "tokenizer.json").write_text("{}")
    if weights:
        save_file({"x": np.zeros((3, 5000), np.float16)}, folder / "model.safetensors")
    return folder


def test_what_lies_where(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for repo, weights in (("google--siglip2-base-patch16-224", True), ("some--half", False)):
        snapshot = tmp_path / "hub" / f"models--{repo}" / "snapshots" / "abc"
        write_model(snapshot, weights)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("abc")
    other = tmp_path / "hub" / "models--some--bert" / "snapshots" / "abc"
    other.mkdir(parents=True)
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (other.parent.parent / "refs").mkdir()
    (other.parent.parent / "refs" / "main").write_text("abc")
    models = tmp_path / "models"
    write_model(models / "copied")
    (models / "notes").mkdir()
    found = {entry.name: entry for entry in inventory([models, tiny_checkpoint])}
    assert found["brivl-mini"].disk[0].place == "bundled" and found["brivl-mini"].disk[0].complete
    cached = found["hf:google/siglip2-base-patch16-224"]
    assert cached.known is not None and [one.place for one in cached.disk] == ["hub cache"] and cached.dim == 768
    half = found["hf:some/half"]
    assert half.known is None and not half.disk[0].complete and (half.dim, half.parameters) == (40, None)
    copied = found[f"hf:{models / 'copied'}"]
    assert copied.disk[0].complete and (copied.dim, copied.parameters) == (40, 0.0) and copied.disk[0].bytes > 30_000
    ours = found[str(tiny_checkpoint)]
    assert ours.dim == 32 and ours.parameters and ours.disk[0].place == "folder"
    assert "hf:some/bert" not in found and f"hf:{models / 'notes'}" not in found
    assert found["hf:BAAI/AltCLIP"].disk == []
    with pytest.raises(UsageError, match="no such folder"):
        inventory([tmp_path / "nowhere"])


def test_what_was_measured_of_a_folder_is_shown_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Ended]
) -> None:
    write_model(tmp_path / "models" / "copied")
    name = f"hf:{tmp_path / 'models' / 'copied'}"
    one = Speed(name, "f", cpu_name(), "cpu", "fp32", 10.0, 8, 99.0, 1 << 30, None, 1.5, 0.5, "2026-11-30")
    monkeypatch.setattr("brivl_search.encoders.speeds.read", lambda: [one])
    monkeypatch.chdir(tmp_path)
    found = {entry.name: entry for entry in inventory([Path("models")])}
    assert found["hf:models/copied"].speeds == [one]
    for asked in ("hf:models/copied", "models/copied", name):
        shown = run_here("models", "show", asked)
        assert shown.code == 0 and json.loads(shown.out)["speeds"], asked


def test_the_table_names_sources(capsys: pytest.CaptureFixture[str]) -> None:
    entries = {entry.name: entry for entry in inventory()}
    show_model(entries["hf:OFA-Sys/chinese-clip-vit-base-patch16"])
    show_model(entries["hf:jinaai/jina-clip-v2"])
    shown = capsys.readouterr().out
    (row,) = [line for line in shown.splitlines() if "62.7 / 86.9 / 92.8" in line]
    mark = row.split()[-1]
    assert "text → image" in row and f"{mark} Chinese-CLIP (arXiv 2211.01335)" in shown
    assert "--truncate-dim 64 to 1024" in shown
    show_models(list(entries.values()))
    listed = capsys.readouterr().out.splitlines()
    assert listed[1].startswith("brivl-mini") and "bundled, " in listed[1]
    first = listed.index("")
    assert first == 1 + len(entries)  # a line each; then which to take
    assert "Which to take" in listed[first + 1] and "Apache-2.0" in listed[first + 3]
    assert "62.7, 74.6 (Flickr30K-CN test" in listed[first + 3] and listed[-2].startswith("models show NAME")


def test_matchers_and_captioners_are_listed(
    tiny_checkpoint: Path, tmp_path: Path, run_here: Callable[..., Ended]
) -> None:
    own = make_matcher(tmp_path / "models" / "own", tiny_checkpoint)
    listed = json.loads(run_here("models", "list", str(tmp_path / "models")).out)
    encoders = [one for one in listed if one["kind"] == "encoder"]
    others = {(one["name"], one["kind"]): one for one in listed if one["kind"] != "encoder"}
    assert "brivl-mini" in [one["name"] for one in encoders] and len(encoders) + len(others) == len(listed)
    bundled = others["brivl-mini-rerank", "matcher"]
    assert bundled["argument"] == "rerank_with" and bundled["on_disk"][0]["place"] == "bundled"
    assert bundled["on_disk"][0]["complete"] and bundled["parameters_millions"] > 1
    assert others[str(own), "matcher"]["on_disk"][0]["place"] == "folder"
    assert "BlipForImageTextRetrieval" in others["hf:ORG/NAME", "matcher"]["architectures"]
    family = others["hf:ORG/NAME", "captioner"]
    assert family["argument"] == "captioner" and "GitForCausalLM" in family["architectures"]
    there = json.loads(run_here("models", "list", "--on-disk").out)
    assert [one["name"] for one in there if one["kind"] != "encoder"] == ["brivl-mini-rerank"]
    shown = run_here("models", "list", "--format", "table").out
    assert "brivl-mini-rerank" in shown and "--rerank-with" in shown and "BLIP, BLIP-2 or ViLT" in shown
    refused = run_here("models", "show", "brivl-mini-rerank")
    assert refused.code == 2 and "it is a matcher or captioner" in refused.err


def test_json_in_a_pipe_and_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['brivl-search', 'models', 'list']\n"
        "from brivl_search.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'timm', 'lmdb'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    chinese = listed["hf:OFA-Sys/chinese-clip-vit-base-patch16"]
    assert (chinese["dim"], chinese["parameters_millions"], chinese["languages"]) == (512, 188, "zh")
    first = {"test": "MUGE valid, zero-shot", "direction": "text → image", "r1": 52.1, "r5": 76.7, "r10": 84.4}
    assert first.items() <= chinese["figures"][0].items() and "Chinese-CLIP" in chinese["figures"][0]["source"]
