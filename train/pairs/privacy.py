"""Personal data that patterns can see, in Chinese and English texts: numbers and accounts that lead to a person.

Names, addresses and faces are not seen. A number with a check digit must pass it, so that other long numbers stay.
"""

from __future__ import annotations

import re
import unicodedata

from stdnum import luhn as luhn_check
from stdnum.cn import ric
from stdnum.exceptions import InvalidComponent

_HINT = re.compile("\\d{3}|[@\uff20]")  # full-width digits and signs as well
_MOBILE = re.compile(r"(?<![\d.])(?:(?:\+|00)?86[-\s]?)?1[3-9]\d[-\s]?\d{4}[-\s]?\d{4}(?![\d.]\d|\d)")
_LANDLINE = re.compile(r"(?<![\d-])\(?0\d{2,3}\)?[-\s]\d{7,8}(?![\d-])|(?<!\d)[48]00[-\s]\d{3}[-\s]?\d{4}(?!\d)")
_EMAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}", re.ASCII)
_ID = re.compile(r"(?<!\d)(\d{17}[\dXx])(?!\d)")
_ID_GROUPED = re.compile(r"(?<!\d)(\d{6}[-\s]\d{8}[-\s]\d{3}[\dXx])(?!\d)")
_CARD = re.compile(r"(?<!\d)(?:62|[345])(?:[ -]?\d){13,17}(?!\d)")
_MESSENGER = re.compile(
    r"(?:qq|微信|weixin|wechat|vx|v信|薇信|加v)(?:号码?|群|id)?(?:\s*[:：]\s*[A-Za-z][-\w]{5,19}|\s*[:：]?\s*\d{5,12})(?!\d)",
    re.IGNORECASE | re.ASCII,
)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·•\s]?(?=[A-Z0-9]*\d)[A-HJ-NP-Z0-9]{5,6}"
    r"(?![A-Za-z0-9])"
)


def personal_data(text: str) -> str:
    """The kind of personal data a text holds, the first that is found; "" for none."""
    if not _HINT.search(text):
        return ""
    text = unicodedata.normalize("NFKC", text)
    for name, found in (
        ("e-mail address", _EMAIL.search(text) is not None if "@" in text else False),
        ("id number", has_id_number(text)),
        ("bank card", has_card_number(text)),
        ("mobile number", _MOBILE.search(text) is not None),
        ("landline number", _LANDLINE.search(text) is not None),
        ("messenger account", _MESSENGER.search(text) is not None),
        ("number plate", _PLATE.search(text) is not None),
    ):
        if found:
            return name
    return ""


def has_id_number(text: str) -> bool:
    """A Chinese citizen's number of 18 places: its date exists and its last place is the check (GB 11643, MOD 11-2)."""
    return any(is_id_number(number) for pattern in (_ID, _ID_GROUPED) for number in pattern.findall(text))


def is_id_number(number: str) -> bool:
    """18 places, grouped or not, with a date of 1900 to 2100 and the right check place.

    The county code is not looked up: old and new codes come and go, and a number that may be a person's goes.
    """
    number = re.sub(r"[-\s]", "", number).upper()
    try:
        born = ric.get_birth_date(number)
    except InvalidComponent:
        return False
    return bool(1900 <= born.year <= 2100 and ric.calc_check_digit(number) == number[17])


def has_card_number(text: str) -> bool:
    """14 to 19 digits that begin like a bank's card and pass the Luhn check (ISO/IEC 7812)."""
    return any(luhn(found.group()) for found in _CARD.finditer(text))


def luhn(number: str) -> bool:
    """Whether the digits pass the Luhn check; signs between them are skipped."""
    return bool(luhn_check.is_valid("".join(str(unicodedata.digit(c)) for c in number if c.isdigit())))
