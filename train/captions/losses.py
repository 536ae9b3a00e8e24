"""What teaches a captioner: the next word, given the picture and the words before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from brivl_search.encoders.captions.model import Captioner, Memory

PADDING = -1


def caption_loss(
    model: Captioner, starts: Tensor, words: Tensor, memory: Memory, smoothing: float = 0.0, dropped: float = 0.0
) -> Tensor:
    """Mean cross-entropy of every word and of the end, by the words before and the picture.

    Args:
        model: the decoder.
        starts: int64 (B, N), numbers of the first tokens.
        words: int64 (B, N, T), `PADDING` behind a caption's end. Unknown words are read, and not asked for.
        memory: of the B pictures.
        smoothing: of labels.
        dropped: share of the words before that are hidden.
    """
    there = words != PADDING
    read = words.clamp(min=0)
    if dropped and model.training:
        read = read.masked_fill(torch.rand(words.shape, device=words.device) < dropped, Captioner.UNKNOWN)
    before = model(starts, read, memory)
    ends = F.pad(there, (1, 0), value=True) & ~F.pad(there, (0, 1), value=False)
    wanted = F.pad(words, (0, 1), value=PADDING).masked_fill(ends, Captioner.END)
    asked = (wanted != PADDING) & (wanted != Captioner.UNKNOWN)
    return F.cross_entropy(model.logits(before[asked]), wanted[asked], label_smoothing=smoothing)
