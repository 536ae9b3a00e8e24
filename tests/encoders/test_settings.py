"""Settings at the end of an encoder's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.encoders.known import known_matryoshka
from brivl_search.encoders.registry import truncated
from brivl_search.encoders.settings import Settings, split
from brivl_search.errors import UsageError


@pytest.mark.parametrize(
    "name, bare, settings",
    [
        ("a/b", "a/b", Settings()),
        ("a/b@main?dim=64", "a/b@main", Settings(dim=64)),
        ("a/b?query_prompt=query: &dim=8", "a/b", Settings(8, "query: ")),
        ("a/b?query_prompt=&document_prompt=x=y?z", "a/b", Settings(None, "", "x=y?z")),
        ("a/b?query_prompt=what%3F a %26 b %25", "a/b", Settings(None, "what? a & b %")),
        ("a/b?document_prompt=一张图：\n", "a/b", Settings(None, None, "一张图：\n")),
        ("a/b?walk=long&patches=256", "a/b", Settings(walk="long", patches=256)),
        ("/what?/is", "/what?/is", Settings()),
        ("hf:a/b?query_prompt=query:", "hf:a/b", Settings(None, "query:")),  # after the colon is nothing, or a folder
        ("hf:a/b?document_prompt=what lies in:/tmp", "hf:a/b", Settings(None, None, "what lies in:/tmp")),
        ("open_clip:a/b?query_prompt=~nobody: {x} %s", "open_clip:a/b", Settings(None, "~nobody: {x} %s")),
        (f"a/b?query_prompt={'long ' * 99}", "a/b", Settings(None, "long " * 99)),
    ],
)
def test_a_name_and_its_settings(name: str, bare: str, settings: Settings) -> None:
    assert split(name) == (bare, settings)
    assert split(bare + settings.suffix) == (bare, settings)


def test_the_same_settings_have_one_name() -> None:
    one, other = split("m?dim=8&query_prompt=a b"), split("m?query_prompt=a b&dim=8")
    assert one == other and one[1].suffix == "?dim=8&query_prompt=a b"
    assert truncated("hf:a/b?query_prompt=a b&dim=64", 8) == "hf:a/b?dim=8&query_prompt=a b"
    assert known_matryoshka("hf:jinaai/jina-clip-v2@main?query_prompt=a\nb") == (64, 1024)


def test_a_folder_may_be_called_like_settings(tmp_path: Path) -> None:
    folder = tmp_path / "model?dim=8"
    folder.mkdir()
    assert split(f"open_clip:{folder}") == (f"open_clip:{folder}", Settings())


@pytest.mark.parametrize(
    "name, message",
    [
        ("m?prompt=x", "no setting 'prompt': known are dim, query_prompt, document_prompt"),
        ("m?query_prompt=a&b", "no setting 'b': .* write & inside a value as %26"),
        ("m?dim=8&dim=9", "dim is there twice"),
        ("m?dim=0", "dim=0: give a whole number from 1 on"),
        ("m?dim=x", "dim=x: give a whole number"),
        ("m?patches=0", "patches=0: give a whole number"),
        ("m?patches=4097", "patches=4097: give at most 4096"),
        ("m?walk=box", "walk=box: give short or long"),
        (f"m?dim={'9' * 5000}", "9: give a whole number"),
        ("m?query_prompt=%B9%B7", "query_prompt is not UTF-8: write % itself as %25"),
    ],
)
def test_what_is_no_setting_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split(name)
