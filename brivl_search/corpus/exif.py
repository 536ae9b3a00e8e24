"""When a picture was taken, out of its EXIF block, as local time without a zone (EXIF knows none)."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_EXIF_IFD, _DATE_TIME_ORIGINAL, _DATE_TIME = 0x8769, 0x9003, 0x0132
_TIME = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def taken(image: Image.Image) -> str:
    """DateTimeOriginal, else DateTime, e.g. "2021-07-03T18:22:05"; "" where there is none that is a time.

    A TIFF must be asked before its pixels are loaded, anything else may be asked after that too.
    """
    if image.format != "TIFF" and not ({"exif", "Raw profile type exif"} & image.info.keys()):
        return ""
    try:
        exif = image.getexif()
        values = (exif.get_ifd(_EXIF_IFD).get(_DATE_TIME_ORIGINAL), exif.get(_DATE_TIME))
    except Exception:  # a damaged EXIF block is no reason to lose the picture
        return ""
    return next((time for time in map(_iso, values) if time), "")


def _iso(value: object) -> str:
    """ "2021:07:03 18:22:05" → "2021-07-03T18:22:05"; "" if it is no time (cameras without a clock write zeros)."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    found = _TIME.match(text.strip())
    if not found:
        return ""
    try:
        return datetime.datetime(*map(int, found.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return ""
