"""Which language a text is taken for, by its script: NLLB's tokenizer marks every text with one.

A script says little about a language: Latin letters are taken for English, Cyrillic for Russian. Han is Chinese unless
there is kana beside it. It is traditional if Big5 can spell it and GB 2312 cannot.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

# First word of a letter's name in Unicode → NLLB's code.
_LANGUAGES = {
    "LATIN": "eng_Latn", "CJK": "zho_Hans", "HIRAGANA": "jpn_Jpan", "KATAKANA": "jpn_Jpan", "HANGUL": "kor_Hang",
    "CYRILLIC": "rus_Cyrl", "ARABIC": "arb_Arab", "HEBREW": "heb_Hebr", "GREEK": "ell_Grek", "DEVANAGARI": "hin_Deva",
    "THAI": "tha_Thai", "BENGALI": "ben_Beng", "TAMIL": "tam_Taml", "TELUGU": "tel_Telu", "GUJARATI": "guj_Gujr",
    "GURMUKHI": "pan_Guru", "KANNADA": "kan_Knda", "MALAYALAM": "mal_Mlym", "ORIYA": "ory_Orya", "SINHALA": "sin_Sinh",
    "KHMER": "khm_Khmr", "LAO": "lao_Laoo", "MYANMAR": "mya_Mymr", "TIBETAN": "bod_Tibt", "GEORGIAN": "kat_Geor",
    "ARMENIAN": "hye_Armn", "ETHIOPIC": "amh_Ethi",
}  # fmt: skip
DEFAULT = "eng_Latn"


def language(text: str) -> str:
    """NLLB's code of the language that a text is taken for. English if no letter tells."""
    names = (unicodedata.name(char, "").split(" ", 1)[0] for char in text if char.isalpha())
    scripts = Counter(name for name in names if name in _LANGUAGES)
    if not scripts:
        return DEFAULT
    if "CJK" in scripts and ("HIRAGANA" in scripts or "KATAKANA" in scripts):
        return "jpn_Jpan"
    # A Chinese or Korean letter is a syllable or a word: a name in Latin letters beside some is no English text.
    weights = {script: count * (4 if script in ("CJK", "HANGUL") else 1) for script, count in scripts.items()}
    script = max(weights, key=lambda one: weights[one])
    return "zho_Hant" if script == "CJK" and _is_traditional(text) else _LANGUAGES[script]


def _is_traditional(text: str) -> bool:
    han = "".join(char for char in text if unicodedata.name(char, "").startswith("CJK"))
    return _spells(han, "big5") and not _spells(han, "gb2312")


def _spells(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
