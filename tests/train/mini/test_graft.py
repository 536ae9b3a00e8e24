"""The text backbone's first weights: a bilingual vocabulary, characters from glosses, any transformers folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.text_tower import TextTower
from tests.support.tiny import tiny_model
from train.mini.graft import SPECIAL, choose_vocabulary, start_characters
from train.mini.teachers import dictionary_pairs
from train.model.start import load_text_backbone

CEDICT = """
# CC-CEDICT
狗 狗 [gou3] /dog/CL:隻|只[zhi1],條|条[tiao2]/
滑雪 滑雪 [hua2 xue3] /(to) ski/skiing/snow sport (winter)/fourth/
貓 猫 [mao1] /cat/variant of 貓[mao1]/
王 王 [Wang2] /surname Wang/
鳥 鸟 [niao3] /bird/
""".strip().splitlines()


def test_dictionary_entries_become_pairs() -> None:
    pairs = dictionary_pairs(CEDICT, {"狗", "滑雪", "猫", "王"})
    assert pairs == [("狗", "dog"), ("滑雪", "ski, skiing, snow sport"), ("猫", "cat"), ("貓", "cat")]


def test_the_vocabulary_keeps_frequent_needed_and_partial_pieces() -> None:
    own = ["[PAD]", "[unused0]", *SPECIAL[1:], "a", ".", "日", "the", "dog", "rare", "needed", "##s"]
    chosen = choose_vocabulary(own, ["[PAD]", "the", "##狗", "狗", "草", "，"], {"needed"}, frequent=2)
    assert chosen == [*SPECIAL, "a", ".", "the", "dog", "needed", "##s", "狗", "草", "，"]


def test_a_character_starts_as_what_its_words_mean() -> None:
    vocabulary = {"dog": 0, "grass": 1, "dogs": 2, "狗": 3, "草": 4, "谜": 5}
    table = torch.zeros(6, 4)
    table[0], table[1], table[2] = torch.eye(4)[:3]
    start_characters(vocabulary, table, [("狗", [0, 2]), ("草", [1]), ("草", []), ("无", [1])], noise=0)
    assert table[3].argsort(descending=True)[:2].sort().values.tolist() == [0, 2]
    assert int(table[4].argmax()) == 1
    torch.testing.assert_close(table[5], table[:3].mean(0))


@pytest.fixture
def given(tmp_path: Path) -> Path:
    from transformers import BertConfig, BertModel

    settings = {k: v for k, v in tiny_model()["text"]["backbone"].items() if k != "model_type"}
    BertModel(BertConfig(**settings | {"max_position_embeddings": 200})).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def tower(**changes: int) -> TextTower:
    config = tiny_model()
    config["text"]["backbone"].update(changes)
    parsed = ModelConfig.from_dict(config)
    return TextTower(parsed.text, parsed.dim)


def test_a_transformers_folder_fills_the_backbone(given: Path) -> None:
    from transformers import AutoModel

    text = tower()
    load_text_backbone(text, given)
    source = AutoModel.from_pretrained(given).state_dict()
    for name, tensor in text.backbone.state_dict().items():
        torch.testing.assert_close(tensor, source[name][: len(tensor)])
    assert text.backbone.embeddings.position_embeddings.weight.shape[0] < 200


def test_a_folder_that_does_not_fit_is_refused(given: Path, tmp_path: Path) -> None:
    size = tiny_model()["text"]["backbone"]["hidden_size"]
    with pytest.raises(SystemExit, match="does not fit"):
        load_text_backbone(tower(hidden_size=size * 2), given)
    with pytest.raises(SystemExit, match="holds no transformers model"):
        load_text_backbone(tower(), tmp_path / "nothing")
