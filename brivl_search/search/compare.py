"""How values of fields are compared with what people type: texts as texts, whole numbers exactly, others as floats."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 10**300  # beyond it a whole number need not fit into a float
_WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class Accepted:
    """Values that are looked for, as they were typed.

    A number is found by any way to write it (2003, 2003.0), a boolean by true or false, a list by each of its values.
    Texts are compared in Unicode's NFC.
    """

    def __init__(self, typed: Iterable[str]) -> None:
        self._texts: set[str] = set()
        self._booleans: set[bool] = set()
        self._whole: set[int] = set()  # for whole numbers
        self._plain: set[int] = set()  # typed as digits alone: for floats that are whole numbers
        self._floats: set[float] = set()
        for text in typed:
            self._texts.add(unicodedata.normalize("NFC", text))
            if (lower := text.lower()) in ("true", "false"):
                self._booleans.add(lower == "true")
            if _WHOLE.fullmatch(text):
                self._whole.add(int(text))
                self._plain.add(int(text))
            elif len(text) <= 400 and _NUMBER.fullmatch(text):
                self._floats.add(float(text))
                try:
                    exact = Decimal(text)
                    if exact.adjusted() < 400 and exact == exact.to_integral_value():
                        self._whole.add(int(exact))
                except InvalidOperation:
                    pass

    def fits(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if isinstance(value, str):
            return value in self._texts or (not value.isascii() and unicodedata.normalize("NFC", value) in self._texts)
        if isinstance(value, bool):
            return value in self._booleans
        if isinstance(value, int):
            return value in self._whole
        if isinstance(value, float):
            return value in self._floats or (value.is_integer() and int(value) in self._plain)
        return isinstance(value, list) and any(self.fits(one) for one in value if not isinstance(one, list))

    def among(self, values: Iterable[Any], count: int) -> NDArray[np.bool_]:
        """bool (count,): which values are found."""
        return np.fromiter(map(self.fits, values), np.bool_, count)


def pixels(value: Any) -> float:
    """A width or height as a number; 0 for what is none, such as "x" out of an import."""
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        return 0
    return value if abs(value) < _MOST else (math.inf if value > 0 else -math.inf)
