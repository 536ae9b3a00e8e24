"""The command line with a model of open_clip: models show, build-index, query, info, a calibration, lost weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tiny_hf import TEXTS, photos
from tests.support.tiny_open_clip import load, make_open_clip

pytest.importorskip("open_clip")


def test_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from brivl_search.cli import app
    from brivl_search.encoders import calibration

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    model = make_open_clip(tmp_path / "model", "xlm_roberta")
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, (data, text) in enumerate(zip(photos(), [*TEXTS, "a blue cross"], strict=True)):
        name = f"{n}.jpg" if data.startswith(b"\xff\xd8") else f"{n}.png"
        (folder / name).write_bytes(data)
        with (folder / "captions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"image": name, "captions": [text]}, ensure_ascii=False) + "\n")

    def run(*args: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(args))
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    index, encoder = str(tmp_path / "index"), f"open_clip:{model}"
    run("build-index", str(folder), "--index", index, "--encoder", encoder, "--workers", "0", "-q", "--device", "cpu")
    about = json.loads(run("info", "--index", index))["encoder"]
    assert (about["name"], about["fingerprint"]) == (encoder, load(model).fingerprint)
    hits = [json.loads(line) for line in run("query", "a red dog", "--index", index, "--device", "cpu").splitlines()]
    assert len(hits) == 5 and hits[0]["score"] >= hits[-1]["score"] and hits[0].get("match") is None
    calibration.save(about["fingerprint"], {"slope": 10, "intercept": 0})
    hits = [json.loads(line) for line in run("query", "a red dog", "--index", index, "--device", "cpu").splitlines()]
    assert all(0 < hit["match"] < 1 for hit in hits)
    assert json.loads(run("models", "show", "open_clip:nllb-clip-base-siglip/mrl"))["needs"] == "open-clip"
    (model / "open_clip_model.safetensors").unlink()
    run("query", "a red dog", "--index", index, "--device", "cpu", code=1)
