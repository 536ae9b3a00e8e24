"""When a picture was taken, out of its EXIF block, and which of such times are none.

EXIF writes local time; only newer cameras add the zone. Times are ISO 8601: "2021-07-03T18:22:05", with parts of a
second ("…:05.250") and the zone ("…:05+02:00") where the file has them.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_EXIF_IFD = 0x8769
_FIELDS = (  # time, parts of a second, zone: when it was taken, when it was made digital, when the file was written
    (0x9003, 0x9291, 0x9011),
    (0x9004, 0x9292, 0x9012),
    (0x0132, 0x9290, 0x9010),
)
_ZONE = r"\s*(Z|[+-]\d\d:?\d\d)?"
_DATE = re.compile(r"\s*(\d{4})[:/.\- ] ?(\d\d?)[:/.\- ] ?(\d\d?)(?!\d)")
_TIME = re.compile(r"[\sT]\s*(\d\d?)[:.] ?(\d\d?)(?:[:.] ?(\d\d?)(?:[.,](\d+))?)?(?: ?([AaPp])\.?[Mm])?" + _ZONE)
_NO_CLOCK = frozenset(  # days on which clocks begin that were never set, and end
    datetime.date(*day)
    for day in ((1601, 1, 1), (1899, 12, 30), (1900, 1, 1), (1903, 12, 31), (1904, 1, 1), (1969, 12, 31), (1970, 1, 1),
                (1979, 12, 31), (1980, 1, 1), (2036, 2, 7), (2038, 1, 19))
)  # fmt: skip
_NO_CLOCK_AT = frozenset(  # and moments: what some phones and cameras write for "not known"
    datetime.datetime(*moment)
    for moment in ((2000, 1, 1, 0, 0), (2001, 1, 1, 0, 0), (2002, 12, 8, 0, 0), (2002, 12, 8, 12, 0))
)
_FIRST_PHOTO, _TOO_LATE = 1826, 2100


def taken(image: Image.Image) -> str:
    """The first that is a time of DateTimeOriginal, DateTimeDigitized and DateTime; "" where none is.

    A TIFF must be asked before its pixels are loaded, anything else may be asked after that too.
    """
    if image.format != "TIFF" and not ({"exif", "Raw profile type exif"} & image.info.keys()):
        return ""
    try:
        exif = image.getexif()
        inside = exif.get_ifd(_EXIF_IFD)
    except Exception:  # a damaged EXIF block is no reason to lose the picture
        return ""
    for time, part, zone in _FIELDS:
        values = (inside.get(tag) or exif.get(tag) for tag in (time, part, zone))
        if found := read_time(*map(_text, values)):
            return found
    return ""


def read_time(text: str, part: str = "", zone: str = "") -> str:
    """What EXIF says of a time → ISO 8601; "" if that is no time, or one that a clock shows which was never set.

    Seconds of 60 and hours of 24 are the next minute and day. A time of day that is missing is midnight.

    Args:
        text: such as "2021:07:03 18:22:05". Parts may be missing or padded with blanks.
        part: digits after the second's point.
        zone: such as "+02:00".
    """
    day = _DATE.match(text)
    if not day:
        return ""
    rest = text[day.end() :]
    clock = _TIME.match(rest)
    if not clock and any(letter.isdigit() for letter in rest):
        return ""
    hour, minute, second = (int(one or 0) for one in clock.groups()[:3]) if clock else (0, 0, 0)
    if clock and clock[5] and 1 <= hour <= 12:
        hour = hour % 12 + 12 * (clock[5] in "Pp")
    if hour > 24 or minute > 60 or second > 60:
        return ""
    digits = ((clock and clock[4]) or part.strip()) if clock and clock[3] else ""
    micro = int(digits[:6].ljust(6, "0")) if digits.isascii() and digits.isdigit() else 0
    try:
        year, month, date = (int(one) for one in day.groups())
        moment = datetime.datetime(year, month, date)
        moment += datetime.timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micro)
        if not is_believed(moment):
            return ""
        moment = moment.replace(tzinfo=_zone((clock and clock[6]) or zone) if clock else None)
        return moment.isoformat(timespec="milliseconds" if micro and micro % 1000 == 0 else "auto")
    except (ValueError, OverflowError):
        return ""


def is_believed(moment: datetime.datetime) -> bool:
    """Whether a time can be when a photo was taken, and is not what a clock shows that was never set."""
    if not _FIRST_PHOTO <= moment.year < _TOO_LATE or moment.date() in _NO_CLOCK:
        return False
    return moment.replace(microsecond=0, tzinfo=None) not in _NO_CLOCK_AT


def _zone(text: str) -> datetime.tzinfo | None:
    found = re.fullmatch(r"\s*(Z|([+-])(\d\d):?(\d\d))\s*", text)
    if not found:
        return None
    if found[1] == "Z":
        return datetime.UTC
    minutes = 60 * int(found[3]) + int(found[4])
    if minutes > 14 * 60:
        return None
    return datetime.timezone(datetime.timedelta(minutes=-minutes if found[2] == "-" else minutes))


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.replace("\0", " ")
