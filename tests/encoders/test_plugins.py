"""Encoders of other packages: the plug-in of docs/encoders.md in a package of its own, and faulty ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.plugins import plugins
from brivl_search.errors import EncoderError, UsageError
from tests.support.pictures import draw, encoded
from tests.support.plugins import install, plugin_source
from tests.support.warm import run_warm


def test_the_documented_plugin_builds_and_answers(tmp_path: Path) -> None:
    """Through the real command line: build, query by text and by picture, eval, the list of models."""
    code = plugin_source()
    assert len(code.splitlines()) <= 46
    site, photos = tmp_path / "site", tmp_path / "photos"
    site.mkdir()
    photos.mkdir()
    install(site, code)
    for colour in ("red", "green", "blue"):
        (photos / f"{colour}.png").write_bytes(encoded(draw(colour, "square"), "PNG"))
    lines = [{"image": f"{colour}.png", "en": f"a {colour} thing"} for colour in ("red", "green", "blue")]
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.getcwd()}"}

    def run(*args: str) -> str:
        done = run_warm("brivl_search", args, cwd=tmp_path, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    run("build-index", str(photos), "--encoder", "colours:3", "--workers", "0", "-q")
    assert run("query", "something blue", "-k", "1", "--format", "paths").strip().endswith("blue.png")
    found = json.loads(run("query", "--image", str(photos / "green.png"), "-k", "1"))
    assert found["text"] == "a green thing"
    report = json.loads(run("eval", "--recall-at", "1", "--no-ci"))
    assert json.dumps(report).count("100.0") >= 2
    (listed,) = [entry for entry in json.loads(run("models", "list")) if entry["name"] == "colours"]
    assert listed["package"] == "colours 1.0"


def test_what_is_wrong_with_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = plugin_source()

    def message(number: int, code: str, name: str = "") -> str:
        site = tmp_path / str(number)
        site.mkdir()
        package = f"plug{number}"
        install(site, code, package=package, points=f"{package} = {package}:make")
        monkeypatch.syspath_prepend(str(site))
        with pytest.raises(EncoderError) as caught:
            load_encoder(name or f"{package}:x")
        assert "\n" not in str(caught.value) and f"{package} 1.0" in str(caught.value)
        return str(caught.value)

    assert "failed: ModuleNotFoundError: No module named 'nowhere'" in message(1, "import nowhere")
    assert "failed: ValueError: bad argument x" in message(
        2, "def make(argument, **options):\n    raise ValueError('bad argument ' + argument)"
    )
    assert "has no name, dim" in message(3, "def make(argument, **options):\n    return object()")
    assert "its name is 'colours:2', by which" in message(4, good, "plug4:2")
    nameless = good.replace('f"colours-1-{cells}"', "None").replace('f"colours:{cells}"', '"plug5"')
    assert "fingerprint is no text" in message(5, nameless, "plug5")


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "two"):
        (tmp_path / package).mkdir()
        install(tmp_path / package, plugin_source(), package=package, points=f"twice = {package}:make")
        monkeypatch.syspath_prepend(str(tmp_path / package))
    assert len(plugins()["twice"]) == 2
    with pytest.raises(EncoderError, match=r"one 1\.0 and two 1\.0 both register|two 1\.0 and one 1\.0 both register"):
        load_encoder("twice")


def test_names_that_exist_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "raise SystemExit('never imported')", package="greedy", points="brivl-mini = greedy:make")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_encoder("brivl-mini").fingerprint.startswith("brivl-")
    with pytest.raises(UsageError, match="give a known name"):
        load_encoder("no-such-encoder")
