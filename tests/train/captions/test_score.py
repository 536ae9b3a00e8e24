"""Figures of captions by pycocoevalcap, and what is counted."""

from __future__ import annotations

import math
import sys

import pytest

from train.captions.score import figures, tokens


def test_what_is_counted() -> None:
    assert tokens("一只T恤的狗，在 2 个球上。", "zh") == [
        "一",
        "只",
        "t",
        "恤",
        "的",
        "狗",
        "在",
        "2",
        "个",
        "球",
        "上",
    ]
    assert tokens("A brown-haired girl's dog , running !", "en") == ["a", "brown", "haired", "girl's", "dog", "running"]


def test_a_caption_that_is_a_reference_is_perfect() -> None:
    true = [["a red dog on grass", "one dog"], ["two cats sleep in a box", "cats"], ["the boy runs over the hill", "x"]]
    found = figures([some[0] for some in true], true, "en")
    assert found["BLEU-4"] == pytest.approx(100, abs=0.1) and found["ROUGE-L"] == 100
    wrong = figures(["the sea", "a bus", "one tall tree"], true, "en")
    assert all(wrong[name] < found[name] / 5 for name in found)
    assert not [name for name in sys.modules if "meteor" in name or "spice" in name or "ptbtokenizer" in name]


def test_bleu_and_rouge_are_their_definitions() -> None:
    found = figures(["the dog runs fast"], [["the dog runs home"]], "en")
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, none of 1 quadruple
    assert found["BLEU-1"] == 75.0 and found["BLEU-4"] < 1
    assert found["ROUGE-L"] == 75.0
    short = figures(["the dog"], [["the dog runs home"]], "en")
    assert short["BLEU-1"] == pytest.approx(100 * math.exp(1 - 4 / 2), abs=0.1)  # the brevity penalty


def test_chinese_is_by_characters() -> None:
    found = figures(["一只狗在跑"], [["一只猫在跑。"]], "zh")
    assert found["BLEU-1"] == 80.0
