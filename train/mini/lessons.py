"""What the heads of an image tower are taught with: captions, names of what is seen, and the classifiers themselves.

All three compare a picture's vector with vectors of texts that are given: the text tower's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brivl_search.embedding.zero_shot import TEMPLATES
from train.mini.labelled import Language, Names

LANGUAGES: tuple[Language, ...] = ("zh", "en")


def caption_loss(
    pictures: Tensor, captions: Tensor, others: Tensor, past: Tensor, owners: Tensor, temperature: float
) -> Tensor:
    """Both directions of InfoNCE. A picture's own captions, and those of an equal picture, are no negatives.

    Args:
        pictures: (B, dim), with gradient.
        captions: (B·C, dim), the C captions of picture 0 first.
        others: (N, dim), captions of other pictures.
        past: (K, dim), vectors of pictures of earlier steps.
        owners: (B,), the number of each picture; a picture may be in a batch twice.
        temperature: τ.
    """
    count = len(captions) // len(pictures)
    own = owners[:, None] == owners.repeat_interleave(count)[None]  # (B, B·C)
    scores = pictures @ captions.T / temperature
    right = torch.unflatten(scores, 1, (-1, count))[torch.arange(len(pictures)), torch.arange(len(pictures))]  # (B, C)
    wrong = torch.cat([scores.masked_fill(own, float("-inf")), pictures @ others.T / temperature], 1)
    to_text = torch.logaddexp(right, wrong.logsumexp(1, keepdim=True)) - right
    wrong = torch.cat([scores.T.masked_fill(own.T, float("-inf")), captions @ past.T / temperature], 1)
    to_image = torch.logaddexp(right.flatten(), wrong.logsumexp(1)) - right.flatten()
    loss: Tensor = to_text.mean() + to_image.mean()
    return loss


def label_loss(scores: Tensor, shown: Tensor, among: Tensor) -> Tensor:
    """−log of the share of what is shown in the softmax over some names; several names of a picture count alike.

    Args:
        scores: (L, names), cosine / τ.
        shown: bool (L, names), what each picture shows; at least one.
        among: bool (L, names), the names each is compared with; those shown are always.
    """
    nothing = -1e4  # not −∞: where a collection has one name, nothing is wrong, and there would be no gradient
    wrong = scores.masked_fill(~among | shown, nothing).logsumexp(1, keepdim=True)
    each = torch.logaddexp(scores, wrong) - scores  # a name against what is wrong, as if it were the only right one
    weights = shown.to(scores.dtype) / shown.sum(1, keepdim=True)
    return torch.where(shown, each * weights, 0.0).sum(1).mean()


def translation_loss(one: Tensor, other: Tensor, names: Tensor, temperature: float) -> Tensor:
    """InfoNCE of names in one language to the same names in the other.

    Args:
        one: (N, dim), with gradient.
        other: (names, dim), all names.
        names: (N,), the place of each of `one` in `other`.
        temperature: τ.
    """
    return F.cross_entropy(one @ other.T / temperature, names)


def teacher_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """KL from the classifiers' probabilities (B, classes) to the softmax of `scores`, cosine / τ with their names."""
    return F.kl_div(scores.log_softmax(1), teacher, reduction="batchmean")


class NameVectors:
    """The text tower's vectors of all names, in both languages and several sentences.

    Attributes:
        texts: all sentences, each once, in the order of the vectors that `fill` takes.
    """

    def __init__(self, names: Names, kinds: dict[str, dict[Language, list[str]]]) -> None:
        """`kinds`: kind → language → sentences with {} for the name."""
        self.count = len(names.names)
        numbers: dict[str, int] = {}
        self._usual: dict[Language, Tensor] = {}
        self._forms: dict[Language, list[list[int]]] = {}
        for language in LANGUAGES:
            usual, forms = [], []
            for name, its_kinds in zip(names.names, names.kinds, strict=True):
                word = getattr(name, language)
                mine = [form.replace("{}", word) for kind in its_kinds for form in kinds[kind][language]]
                usual.append([numbers.setdefault(f.replace("{}", word), len(numbers)) for f in TEMPLATES[language]])
                forms.append([numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(mine)])
            self._usual[language], self._forms[language] = torch.tensor(usual), forms
        self.texts = list(numbers)
        self.vectors = torch.empty(0)

    def fill(self, vectors: Tensor) -> None:
        """Takes the vectors (texts, dim) of `texts`; what is changed in them is changed here."""
        self.vectors = vectors

    def mean(self, language: Language) -> Tensor:
        """As `classify` makes them: the direction of the mean over the built-in sentences, (names, dim)."""
        return F.normalize(self.vectors[self._usual[language]].mean(1), dim=1)

    def drawn(self, language: Language, rng: np.random.Generator) -> tuple[Tensor, list[int] | None]:
        """A vector for each name, (names, dim): half of the time `mean`, else of one sentence, and which that is."""
        if rng.random() < 0.5:
            return self.mean(language), None
        rows = [forms[int(rng.integers(len(forms)))] for forms in self._forms[language]]
        return self.vectors[rows], rows


def by_name(classes: Sequence[int], count: int) -> Tensor:
    """A matrix (classes, names) of ones that adds the probabilities of classes that have one name."""
    table = torch.zeros(len(classes), count)
    table[torch.arange(len(classes)), torch.tensor(classes)] = 1
    return table
