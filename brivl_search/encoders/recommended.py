"""Which encoder to take for what, among those that load here.

By published figures, licence and size; `known` has the figures with their sources. Those of different tests cannot be
compared, so each purpose names its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["Chinese", "Chinese and English", "a laptop", "a GPU"]

_CHINESE_B = "hf:OFA-Sys/chinese-clip-vit-base-patch16"
_CHINESE_H = "hf:OFA-Sys/chinese-clip-vit-huge-patch14"
_FG_B, _FG_SO = "hf:qihoo360/fg-clip2-base", "hf:qihoo360/fg-clip2-so400m"
_XLM_B = "open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"
_XLM_H = "open_clip:xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k"


@dataclass(frozen=True)
class Advice:
    """One encoder for one purpose."""

    purpose: Purpose
    name: str


RECOMMENDED = (
    Advice("Chinese", _CHINESE_B),
    Advice("Chinese", _CHINESE_H),
    Advice("Chinese", _FG_SO),
    Advice("Chinese and English", _FG_B),
    Advice("Chinese and English", _XLM_B),
    Advice("Chinese and English", _XLM_H),
    Advice("a laptop", "brivl-mini"),
    Advice("a laptop", _XLM_B),
    Advice("a laptop", _CHINESE_B),
    Advice("a GPU", _FG_SO),
    Advice("a GPU", _CHINESE_H),
    Advice("a GPU", _XLM_H),
    Advice("a GPU", "hf:Qwen/Qwen3-VL-Embedding-2B"),
)


def purposes_of(name: str) -> list[Purpose]:
    """What an encoder is recommended for; nothing for most."""
    return [advice.purpose for advice in RECOMMENDED if advice.name == name]
