"""Which lines of a caption file are trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brivl_search.errors import CorpusError
from train.data.photos import read_folder
from train.recipe import Data


def write(folder: Path, *lines: dict[str, object]) -> None:
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")


def test_what_a_model_wrote_is_not_trained_on(tmp_path: Path) -> None:
    by_model = {"image": "b.jpg", "en": "a dog", "generated": True, "captioner": "c"}
    write(tmp_path, {"image": "a.jpg", "en": "a red dog"}, by_model)
    found = read_folder(Data(folder=str(tmp_path), captions={"en": 1.0}), tmp_path)
    assert [photo.captions for photo in found.train] == [{"en": ["a red dog"]}]
    write(tmp_path, by_model)
    for captions in ({"en": 1.0}, None):
        with pytest.raises(CorpusError, match="captions by models alone"):
            read_folder(Data(folder=str(tmp_path), captions=captions), tmp_path)
