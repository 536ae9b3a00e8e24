"""A text as a person wrote it → as a model reads it: NFKC, nothing invisible, and plain forms of fancy characters.

What is shown to people stays as it was written; only the towers see the result. Ｔ恤 is read as T恤, 𝐝𝐨𝐠 as dog, ﬁsh as
fish, Ⅷ as VIII, and ’ as ' where the model does not know ’. Three things are kept as they are:

- punctuation and symbols that the model knows, such as ，！ and ™: ordinary text keeps its vectors;
- letters of Thai, Lao and Korean that NFKC would take apart although they are everyday spelling;
- characters that the model knows and whose plain form it does not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

Knows = Callable[[str], bool]  # whether a model's vocabulary has a character by itself

# Unicode's Default_Ignorable_Code_Point beyond the category Cf: fillers, joiners, variation selectors, tags.
_IGNORED = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_VISIBLE_FORMAT = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")  # Cf, but drawn
_KEPT = re.compile("[\u0e33\u0eb3\u0edc\u0edd\u0f77\u0f79\u3131-\u3163\u3165-\u318e]")
_PLAIN = {
    **dict.fromkeys("‘’‚‛′‵ʹʻʼʽˈ＇`´", "'"),
    **dict.fromkeys("“”„‟″‶〝〞〟«»＂", '"'),
    **dict.fromkeys("‐‑‒–—―−⸺⸻﹘﹣－", "-"),
    **dict.fromkeys("〜～∼", "~"),
    **dict.fromkeys("「」『』", '"'),
    **dict.fromkeys("〈‹", "<"),
    **dict.fromkeys("〉›", ">"),
    **dict.fromkeys("【〔〖［", "["),
    **dict.fromkeys("】〕〗］", "]"),
    **dict.fromkeys("•·・‧∙●", "."),
    **dict.fromkeys("，、،", ","),
    **dict.fromkeys("。．", "."),
    "；": ";", "：": ":", "！": "!", "？": "?", "（": "(", "）": ")", "⁄": "/", "∕": "/", "×": "x", "…": "...",
    "※": "*", "∗": "*", "￥": "¥",
}  # fmt: skip
_BLANK = "\u2800"  # braille without dots
_FANCY = ("<circle>", "<font>", "<square>", "<wide>", "<narrow>")


class Spelling:
    """How one model reads texts.

    Args:
        knows: whether its vocabulary has a character by itself; None: it takes every byte, or nobody can say. Then
            punctuation and symbols stay, except letters in circles and the like.
    """

    def __init__(self, knows: Knows | None = None) -> None:
        self._table = _Table(knows)
        self._apart = knows is not None

    def __call__(self, text: str) -> str:
        """The text as the model reads it. Doing it twice changes nothing more."""
        if text.isascii() and text.isprintable():
            return text
        read = unicodedata.normalize("NFC", text.translate(self._table))
        return " ".join(read.split()) if self._apart else read


class _Table(dict[int, str]):
    """Character → what it is read as; worked out when a character is first met."""

    def __init__(self, knows: Knows | None) -> None:
        super().__init__()
        self._knows = knows

    def __missing__(self, code: int) -> str:
        read = self[code] = self._read(chr(code))
        return read

    def _read(self, char: str) -> str:
        if "!" <= char <= "~":
            return char
        if char.isspace() or char == _BLANK:
            return " "
        if is_invisible(char):
            return ""
        known = self._is_known(char)
        other = _PLAIN.get(char)
        if other is not None and self._knows is not None and not known and all(map(self._is_known, other)):
            return other
        plain = unicodedata.normalize("NFKC", char)
        if plain == char or self._stays(char, plain, known):
            plain = char
        if plain != char:
            return "".join(self._read(one) for one in plain if one != char)
        if known or self._knows is None:
            return char
        # A word tokenizer takes dog🐶 for one unknown word: apart, it knows the dog.
        return f" {char} " if unicodedata.category(char) in ("So", "Sk", "Sm", "Sc") else char

    def _stays(self, char: str, plain: str, known: bool) -> bool:
        """Whether a character that NFKC would replace is left alone."""
        if _KEPT.fullmatch(char):
            return True
        kind = unicodedata.category(char)[0]
        if self._knows is None:
            fancy = unicodedata.decomposition(char).startswith(_FANCY) or "\u2e80" <= char <= "\u2fd5"  # radicals
            return kind == "P" or (kind == "S" and not (fancy and plain.isalnum()))
        if not known:
            return False
        return kind in "PS" or not all(map(self._is_known, plain))

    def _is_known(self, char: str) -> bool:
        return self._knows is not None and self._knows(char)


def is_invisible(char: str) -> bool:
    """Whether a character draws nothing and is no space: zero-width, control, a mark of direction, a filler.

    A lone surrogate is none of these: it is refused elsewhere.
    """
    if _IGNORED.fullmatch(char):
        return True
    return unicodedata.category(char) in ("Cf", "Cc") and not char.isspace() and not _VISIBLE_FORMAT.fullmatch(char)


def visible(text: str) -> str:
    """The text without what is invisible, and without white space around it: empty if there is nothing to see."""
    return "".join(char for char in text if not is_invisible(char)).replace(_BLANK, " ").strip()


def plainest(text: str) -> str:
    """The text in the form that every spelling of it has in common; for comparing, not for models."""
    seen = unicodedata.normalize("NFKC", "".join(_PLAIN.get(char, char) for char in visible(text)))
    plain = unicodedata.normalize("NFKC", "".join(_PLAIN.get(char, char) for char in seen))
    return " ".join(plain.casefold().split())


def nothing_known(text: str, unknown: Sequence[str]) -> bool:
    """Whether a model knows no word of a text: without the unknown ones, only punctuation and space are left.

    Args:
        text: as it was written, or as the model reads it.
        unknown: the words of it that the model does not know.
    """
    if not unknown:
        return False
    rest = plainest(text)
    for word in sorted(map(plainest, unknown), key=len, reverse=True):
        rest = rest.replace(word, " ")
    return all(unicodedata.category(char)[0] in "PZCM" for char in rest)
