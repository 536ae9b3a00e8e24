"""BLEU, ROUGE-L and CIDEr by pycocoevalcap, the plain-Python part of COCO's evaluation. Nothing of it starts Java.

Chinese is counted by characters, English by lower-case words; punctuation is left out. COCO's own tokenizer is Java, so
figures of other papers are near, not equal. CIDEr is CIDEr-D; its document frequencies are those of the references
given. All are in percent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_EN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ZH = re.compile(r"[a-z0-9]+|[^\W_]")


def tokens(text: str, language: str) -> list[str]:
    """What is counted: characters of "zh" (a run of Latin letters or digits is one), words of "en"."""
    found: list[str] = (_ZH if language == "zh" else _EN).findall(text.lower())
    return found


def figures(captions: Sequence[str], references: Sequence[Sequence[str]], language: str) -> dict[str, float]:
    """One caption for each picture against its references → BLEU-1, BLEU-4, ROUGE-L, CIDEr."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said = {at: [" ".join(tokens(text, language))] for at, text in enumerate(captions)}
    true = {at: [" ".join(tokens(text, language)) for text in texts] for at, texts in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(true, said, verbose=0)
    rouge, _ = Rouge().compute_score(true, said)
    cider, _ = Cider().compute_score(true, said)
    found = {"BLEU-1": bleu[0], "BLEU-4": bleu[3], "ROUGE-L": rouge, "CIDEr": cider}
    return {name: round(100 * float(value), 1) for name, value in found.items()}
