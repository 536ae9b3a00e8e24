"""Which texts of a crawl may be captions: rules by name, each a small function with its thresholds in `TextRules`.

A rule answers with what it met, or "" where it has nothing against the text. A text that says little about its picture
passes: the paper trains on weak pairs by design. Chinese and English are told apart by script and common words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from train.pairs.privacy import personal_data

BOILERPLATE = (
    r"点击(?:查看|进入|图片|下载|放大|这里)",
    r"(?:图片|图文|文章|资料)?来源[:：于]?(?:网络|互联网)",
    r"(?:版权|著作权)(?:归|所有)|未经(?:授权|许可|允许)|(?:禁止|谢绝|请勿)转载|转载请",
    r"(?:扫一?扫|扫描|长按)(?:下方|上方|识别)?.{0,4}二维码|关注(?:我们|公众号|官方)",
    r"(?:如有|若有)?侵权.{0,6}(?:删除|联系)|责任编辑|原标题|查看原图|上一[页篇]|下一[页篇]",
    r"all rights reserved|click (?:here|to (?:view|enlarge))|copyright ©|©\s*\d{4}|terms of (?:use|service)",
    r"image may contain|no (?:image|photo) (?:available|description)|photo (?:courtesy of )?(?:via )?getty images",
    r"subscribe to our|sign up for|cookie(?:s)? (?:policy|settings)|\b(?:file|stock) photo",
    r"^(?:img|dsc|dscn|p|image|photo|screenshot|截图|图片?|照片)[-_\s]?\d*(?:[-_]\d+)*(?:\.(?:jpe?g|png|gif|webp))?$",
    r"^\S+\.(?:jpe?g|png|gif|webp|bmp)$",
)

_TAG = re.compile(r"<[^<>]{1,500}>")
_URL = re.compile(r"(?:https?://|www\.)[^\s\u4e00-\u9fff]+", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_RUN = re.compile(r"(.)\1{6,}|(.{2,16})\2{3,}")
_COMMON = re.compile(
    r"\b(?:the|an?|and|of|to|in|on|at|for|with|from|by|is|are|was|were|be|as|its?|this|that|his|her|their|my|our|your|i|he|"
    r"she|they|we|you|one|two|three|m[ae]n|wom[ae]n|people|not|or|but|has|have|into|over|near|up|out|new|how|what|when|who|"
    r"through|across|behind|under|after|before|during|while|down|off|all|some|[a-z]{3,}ing)\b",
    re.IGNORECASE,
)  # words, and one ending, that are frequent in English and rare in its neighbours


@dataclass(frozen=True)
class TextRules:
    """Thresholds. Lengths are Chinese characters, or English words.

    Attributes:
        min_zh, max_zh, min_en, max_en: lengths that pass.
        min_letters: least share of letters and Chinese characters in what is not space.
        min_han: share of Chinese characters among the letters from which a text is Chinese.
        max_foreign: largest share of letters of other scripts (or, in English, with accents).
        min_distinct: least share of distinct characters (Chinese) or words (English) in a longer text.
        personal: drop texts with personal data.
        boilerplate: regular expressions, case-insensitive, that are no caption.
    """

    min_zh: int = 4
    max_zh: int = 200
    min_en: int = 3
    max_en: int = 80
    min_letters: float = 0.5
    min_han: float = 0.3
    max_foreign: float = 0.1
    min_distinct: float = 0.25
    personal: bool = True
    boilerplate: tuple[str, ...] = BOILERPLATE


def clean(text: str) -> str:
    """Without tags, entities, addresses of pages, control characters and surplus space; composed (NFC)."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "://" in text or "www." in text.lower():
        text = _URL.sub(" ", text)
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return _SPACE.sub(" ", text).strip()


def language(text: str, rules: TextRules) -> str:
    """ "zh", "en", or "" for anything else."""
    han = len(_HAN.findall(text))
    latin = len(_LATIN.findall(text))
    other = sum(c.isalpha() for c in text) - han - latin if not text.isascii() else 0
    if han + latin == 0 or other > rules.max_foreign * (han + latin + other):
        return ""
    if han >= rules.min_han * (han + latin):
        return "zh"
    if han or other > 0.03 * (latin + other):
        return ""
    return "en" if _COMMON.search(text) or len(_WORD.findall(text)) < 5 else ""


def length(text: str, kind: str) -> int:
    """Chinese: characters without spaces; English: words."""
    return len(text.replace(" ", "")) if kind == "zh" else len(_WORD.findall(text))


def too_short(text: str, kind: str, rules: TextRules) -> str:
    count = length(text, kind)
    return f"{count}" if count < (rules.min_zh if kind == "zh" else rules.min_en) else ""


def too_long(text: str, kind: str, rules: TextRules) -> str:
    count = length(text, kind)
    return f"{count}" if count > (rules.max_zh if kind == "zh" else rules.max_en) else ""


def symbols(text: str, kind: str, rules: TextRules) -> str:
    """Mostly digits and signs: prices, tables, codes."""
    dense = text.replace(" ", "")
    share = sum(c.isalpha() for c in dense) / max(len(dense), 1)
    return f"{share:.2f} letters" if share < rules.min_letters else ""


def repetitive(text: str, kind: str, rules: TextRules) -> str:
    """One character or a short piece again and again, or few distinct ones in all."""
    if found := _RUN.search(text):
        return found.group()[:20]
    parts: list[str] | str = text.replace(" ", "") if kind == "zh" else _WORD.findall(text.lower())
    share = len(set(parts)) / max(len(parts), 1)
    return f"{share:.2f} distinct" if len(parts) >= 20 and share < rules.min_distinct else ""


Rule = Callable[[str, str, TextRules], str]
BY_LANGUAGE: dict[str, Rule] = {
    "too short": too_short,
    "too long": too_long,
    "mostly symbols": symbols,
    "repetitive": repetitive,
}


class TextJudge:
    """All text rules in order. Made once: it compiles the boilerplate patterns."""

    def __init__(self, rules: TextRules) -> None:
        """Raises: ValueError, a pattern is no regular expression."""
        self.rules = rules
        try:
            for pattern in rules.boilerplate:
                re.compile(pattern)
            self._boilerplate = re.compile("|".join(f"(?:{p})" for p in rules.boilerplate) or r"(?!)", re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"text.boilerplate: {pattern!r} is no regular expression: {error}") from None

    def boilerplate(self, text: str) -> str:
        found = self._boilerplate.search(text)
        return found.group()[:40] if found else ""

    def judge(self, text: str) -> tuple[str, str, str]:
        """(cleaned text, "zh" or "en", "") or (cleaned text, "", the name of the rule that refuses it)."""
        text = clean(text)
        if not text:
            return text, "", "no text"
        if self.rules.personal and (found := personal_data(text)):
            return text, "", f"personal data: {found}"
        if self.boilerplate(text):
            return text, "", "boilerplate"
        kind = language(text, self.rules)
        if not kind:
            letters = any(c.isalpha() for c in text)
            return text, "", "neither Chinese nor English" if letters else "mostly symbols"
        for name, rule in BY_LANGUAGE.items():
            if rule(text, kind, self.rules):
                return text, "", name
        return text, kind, ""
