"""The command line with each family: build-index, query, info, eval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.tiny_hf import (
    KINDS,
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    edit_json,
    load,
    make_hf,
    photos,
)


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
