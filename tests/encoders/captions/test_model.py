"""The decoder: what it sees, and what beam search finds with it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from brivl_search.encoders.captions.beam import Search, search
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.captions.model import Captioner, Memory
from brivl_search.errors import EncoderError

CONFIG = CaptionConfig(
    words=6, tokenizer_size=120, starts=["zh", "en"], region_size=5, vector_size=8, width=16, heads=2, feedforward=16,
    layers=2, max_length=8, dropout=0.0,
)  # fmt: skip
BOXES = torch.rand(3, 4)


def made(seed: int = 0, **changes: object) -> Captioner:
    torch.manual_seed(seed)
    model = Captioner(replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():  # far from uniform, so that orders are no accident
        parameter.data += 0.4 * torch.randn_like(parameter)
    return model


def looked(model: Captioner, count: int = 2, mask: torch.Tensor | None = None) -> Memory:
    torch.manual_seed(1)
    return model.look(torch.randn(count, 3, 5), BOXES, torch.nn.functional.normalize(torch.randn(count, 8)), mask)


def chance(model: Captioner, memory: Memory, start: int, words: tuple[int, ...]) -> torch.Tensor:
    """Log-probability of a caption of each picture, the end's with it, by one pass over the whole."""
    count = len(memory.mask)
    given = torch.tensor(words, dtype=torch.long).expand(count, 1, len(words))
    logits = model.logits(model(torch.full((count, 1), start), given, memory))
    logits[..., Captioner.UNKNOWN] = -torch.inf
    wanted = torch.tensor([*words, Captioner.END]).expand(count, 1, len(words) + 1)
    return logits.log_softmax(-1).gather(3, wanted[..., None]).sum((1, 2, 3))


@torch.no_grad()
def test_beam_search_finds_the_best_of_all_captions() -> None:
    model = made()
    memory = looked(model)
    longest, power = 3, 0.7
    every = [c for n in range(1, longest + 1) for c in itertools.product(range(2, 6), repeat=n)]
    scores = torch.stack([chance(model, memory, 1, c) / (len(c) + 1) ** power for c in every])
    # so many beams that nothing is lost: the search is the whole tree
    found = search(model, memory, 1, Search(90, power, 0, longest))
    for picture in range(2):
        order = scores[:, picture].argsort(descending=True).tolist()
        assert [one.words for one in found[picture][:10]] == [every[at] for at in order[:10]]
        assert found[picture][0].score == pytest.approx(float(scores[order[0], picture]), abs=1e-4)
    assert [one.words for one in found[0]] != [one.words for one in found[1]]


@torch.no_grad()
def test_one_beam_is_greedy_and_alone_as_in_a_batch() -> None:
    model = made(3)
    memory = looked(model, 4)
    how = Search(1, 1.0, 0, 6)
    together = search(model, memory, 0, how)
    for picture in range(4):
        words: list[int] = []
        while len(words) < 6:
            row = Memory([(k[picture : picture + 1], v[picture : picture + 1]) for k, v in memory.layers],
                         memory.mask[picture : picture + 1])  # fmt: skip
            logits = model.logits(model(torch.tensor([[0]]), torch.tensor([[words]], dtype=torch.long), row))[0, 0, -1]
            logits[Captioner.UNKNOWN] = -torch.inf
            if not words:
                logits[Captioner.END] = -torch.inf
            word = int(logits.argmax())
            if word == Captioner.END:
                break
            words.append(word)
        assert list(together[picture][0].words) == words
        assert search(model, row, 0, how)[0][0].words == together[picture][0].words


@torch.no_grad()
def test_nothing_stands_twice_and_nothing_is_unknown() -> None:
    model = made(5)
    model.word_bias[Captioner.END] = -9.0
    memory = looked(model)
    plain = search(model, memory, 0, Search(3, 1.0, 0, 7))[0][0].words
    pairs = list(itertools.pairwise(plain))
    assert len(set(pairs)) < len(pairs)  # left alone it says things twice
    for found in search(model, memory, 0, Search(3, 1.0, 2, 7)):
        assert found
        for one in found:
            pairs = list(itertools.pairwise(one.words))
            assert len(set(pairs)) == len(pairs) and Captioner.UNKNOWN not in one.words


@torch.no_grad()
def test_a_word_sees_the_words_before_and_the_pictures_regions() -> None:
    model = made()
    mask = torch.tensor([[True, True, False]] * 2)
    memory = looked(model, mask=mask)
    words = torch.tensor([[[2, 3, 4]], [[5, 2, 3]]])
    base = model(torch.zeros(2, 1, dtype=torch.long), words, memory)
    later = words.clone()
    later[:, :, 2] = 5
    assert torch.allclose(model(torch.zeros(2, 1, dtype=torch.long), later, memory)[:, :, :3], base[:, :, :3])
    assert not torch.allclose(model(torch.ones(2, 1, dtype=torch.long), words, memory), base, atol=1e-3)
    torch.manual_seed(1)
    features, vectors = torch.randn(2, 3, 5), torch.nn.functional.normalize(torch.randn(2, 8))
    hidden, seen = features.clone(), features.clone()
    hidden[:, 2] += 9
    seen[:, 1] += 9
    starts = torch.zeros(2, 1, dtype=torch.long)
    assert torch.allclose(model(starts, words, model.look(hidden, BOXES, vectors, mask)), base, atol=1e-5)
    assert not torch.allclose(model(starts, words, model.look(seen, BOXES, vectors, mask)), base, atol=1e-3)
    assert not torch.allclose(model(starts, words, model.look(features, BOXES, -vectors, mask)), base, atol=1e-3)


@torch.no_grad()
def test_captions_of_a_picture_do_not_see_each_other() -> None:
    model = made()
    memory = looked(model)
    words = torch.randint(2, 6, (2, 3, 4))
    starts = torch.tensor([[0, 1, 0], [1, 0, 1]])
    together = model(starts, words, memory)
    for at in range(3):
        alone = model(starts[:, at : at + 1], words[:, at : at + 1], memory)
        assert torch.allclose(together[:, at : at + 1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "one-tower"}, "not of a captioner"),
        ({"heads": 3}, "heads = 3 must divide width = 16"),
        ({"layers": 0}, "layers = 0: give 1 or more"),
        ({"starts": []}, "give the name of a language"),
        ({"starts": "zh"}, "starts = 'zh' is no list"),
        ({"cosine_weight": "a"}, "cosine_weight = 'a' is no float"),
        ({"colour": 3}, "unknown field 'colour'"),
    ],
)
def test_a_config_that_is_wrong_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        CaptionConfig.from_dict({**CONFIG.to_dict(), **changes})
    assert CaptionConfig.from_dict(CONFIG.to_dict()) == CONFIG
