"""Beam search: the captions with the best score, several for each picture at once.

A caption's score is the sum of its log-probabilities, the end's among them, divided by its tokens ** power; that is
what transformers' `generate` calls a length penalty. The words before are not read again (`model.Cache`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from brivl_search.encoders.captions.model import Captioner, Memory


@dataclass(frozen=True)
class Written:
    """A caption: its words (without start and end), and its score."""

    words: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Search:
    """How captions are searched.

    Attributes:
        beams: captions of a picture that are followed at once.
        power: of the length.
        no_repeat: no sequence of so many words stands twice in a caption; 0: it may.
        longest: words of a caption.
        shortest: words of a caption.
    """

    beams: int
    power: float
    no_repeat: int
    longest: int
    shortest: int = 1


@torch.inference_mode()
def search(model: Captioner, memory: Memory, start: int, how: Search) -> list[list[Written]]:
    """The best captions of each of B pictures, at most `how.beams`, best first; all different.

    Args:
        model: in eval mode.
        memory: of the pictures.
        start: number of the first token.
        how: see `Search`; `longest` is at most the model's `max_length` - 1.
    """
    pictures, beams, device = len(memory.mask), how.beams, memory.mask.device
    written: list[list[tuple[int, ...]]] = [[()] for _ in range(pictures)]
    done: list[list[Written]] = [[] for _ in range(pictures)]
    sums = torch.zeros(pictures, 1, device=device)
    tokens = model.first(torch.full((pictures, 1, 1), start, device=device))
    past = None
    for length in range(how.longest + 1):
        hidden, past = model.write(tokens, memory, past)
        chances = _allowed(model, hidden[:, :, -1], written, length, how)
        alive, words = chances.shape[1:]
        best = (sums[:, :, None] + chances).flatten(1).topk(min(2 * beams, alive * words), 1)
        following: list[list[tuple[float, int, int]]] = []
        for picture, (values, places) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            going: list[tuple[float, int, int]] = []
            for rank, (value, place) in enumerate(zip(values, places, strict=True)):
                beam, word = divmod(place, words)
                if value == -torch.inf:
                    break
                if word != Captioner.END:
                    going.append((value, beam, word))
                elif rank < beams:
                    done[picture].append(Written(written[picture][beam], value / (length + 1) ** how.power))
            following.append(going[:beams])
        if length == how.longest or all(len(found) >= beams for found in done):
            break
        count = max(map(len, following))
        if not count:
            break
        # Beams that are missing follow the first one, at no chance.
        following = [going + [(-torch.inf, 0, Captioner.END)] * (count - len(going)) for going in following]
        sums = torch.tensor([[value for value, _, _ in going] for going in following], device=device)
        written = [
            [(*rows[beam], word) for _, beam, word in going] for rows, going in zip(written, following, strict=True)
        ]
        parents = torch.tensor([[beam for _, beam, _ in going] for going in following], device=device)
        rows = (parents + torch.arange(pictures, device=device)[:, None] * alive).flatten()
        past = [(keys[rows], values[rows]) for keys, values in past]
        tokens = model.words(torch.tensor([[[word] for _, _, word in going] for going in following], device=device))
    return [sorted(found, key=lambda one: -one.score)[:beams] for found in done]


def _allowed(
    model: Captioner, hidden: Tensor, written: list[list[tuple[int, ...]]], length: int, how: Search
) -> Tensor:
    """Log-probabilities (B, N, words) of the next word, -inf where it may not stand."""
    logits = model.logits(hidden)
    logits[..., Captioner.UNKNOWN] = -torch.inf
    chances = logits.log_softmax(-1)
    if length < how.shortest:
        chances[..., Captioner.END] = -torch.inf
    if length == how.longest:
        end = chances[..., Captioner.END].clone()
        chances.fill_(-torch.inf)
        chances[..., Captioner.END] = end
    elif how.no_repeat:
        for picture, beams in enumerate(written):
            for beam, words in enumerate(beams):
                if barred := _repeats(words, how.no_repeat):
                    chances[picture, beam, barred] = -torch.inf
    return chances


def _repeats(words: tuple[int, ...], size: int) -> list[int]:
    """Words that would end a sequence of `size` words that is there already."""
    tail = words[len(words) - size + 1 :]
    if len(words) < size:
        return []
    return [words[at + size - 1] for at in range(len(words) - size + 1) if words[at : at + size - 1] == tail]
