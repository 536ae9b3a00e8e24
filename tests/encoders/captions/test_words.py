"""A captioner's words: which there are, and how they become a text."""

from __future__ import annotations

import pytest

from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.captions.words import Words, choose_words, without_end
from tests.support.tiny import write_vocab


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_vocab(tmp_path_factory.mktemp("words"))
    with (folder / "vocab.txt").open("a", encoding="utf-8") as out:
        out.write("\n".join(["'", "-", ",", ".", "(", ")", '"', "，"]) + "\n")
    return TextTokenizer(folder, 32)


@pytest.mark.parametrize(
    ("given", "back"),
    [
        ("a red dog on the grass", "A red dog on the grass"),
        ("A dog's photo, the red-blue one (a dog)", "A dog's photo, the red-blue one (a dog)"),
        ('the "red dog" on grass', 'The "red dog" on grass'),
        ("一只红色的狗，在草地上", "一只红色的狗，在草地上"),
        ("穿 t 恤的狗", None),
        ("一只 dog 在草地上", "一只dog在草地上"),
    ],
)
def test_a_text_comes_back(tokenizer: TextTokenizer, given: str, back: str | None) -> None:
    words = Words(tokenizer, choose_words(tokenizer, [given], 1))
    rows = words.rows([given])[0]
    if back is None:  # 穿 and 恤 are no words of the tokenizer
        assert 0 in rows
    else:
        assert 0 not in rows and words.text(rows) == back


def test_rare_words_are_left_out(tokenizer: TextTokenizer) -> None:
    texts = ["a red dog", "a blue dog", "a dog"]
    kept = choose_words(tokenizer, texts, 2)
    assert kept[:2] == [tokenizer.unknown_id, tokenizer.end_id]
    words = Words(tokenizer, kept)
    assert sorted(words.pieces[2:]) == ["a", "dog"]
    assert [row == 0 for row in words.rows(["a red dog"])[0]] == [False, True, False]


@pytest.mark.parametrize("text", ["a dog .", "a dog.", "a dog", "a dog ! "])
def test_the_end_is_left_out(text: str) -> None:
    assert without_end(text) == "a dog" and without_end("一只狗。") == "一只狗"
