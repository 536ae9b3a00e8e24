"""When a picture was taken: which of its times is believed, and how odd ones are read."""

from __future__ import annotations

import pytest
from PIL import Image

from brivl_search.corpus.exif import read_time
from brivl_search.corpus.images import PixelSpec, decode
from tests.support import pictures

ORIGINAL, DIGITIZED, WRITTEN = 0x9003, 0x9004, 0x0132


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021:07:03 18:22:05", "2021-07-03T18:22:05"),
        ("2021:07:03 18:22:60", "2021-07-03T18:23:00"),
        ("2021:12:31 23:59:60", "2022-01-01T00:00:00"),
        ("2021:12:31 24:00:00", "2022-01-01T00:00:00"),
        ("2021:07:03 18:22", "2021-07-03T18:22:00"),
        ("2021: 7: 3 18: 2: 5", "2021-07-03T18:02:05"),
        ("2021:7:3 6:2:5", "2021-07-03T06:02:05"),
        ("  2021:07:03 18:22:05 \0", "2021-07-03T18:22:05"),
        ("2021:07:03   :  :  ", "2021-07-03T00:00:00"),
        ("2021:07:03", "2021-07-03T00:00:00"),
        ("2021-07-03T18:22:05Z", "2021-07-03T18:22:05+00:00"),
        ("2021/07/03 18:22:05.25+02:00", "2021-07-03T18:22:05.250+02:00"),
        ("2021:07:03 06:22:05 PM", "2021-07-03T18:22:05"),
        ("2021:07:03 06:22 p.m.", "2021-07-03T18:22:00"),
        ("2021:07:03 12:05:00 AM +02:00", "2021-07-03T00:05:00+02:00"),
        ("2021:07:03 12:05:00PM", "2021-07-03T12:05:00"),
        ("2021:07:03 18:22:05 PM", "2021-07-03T18:22:05"),
        ("1935:06:01 12:00:00", "1935-06-01T12:00:00"),
        ("2002:12:08 18:33:10", "2002-12-08T18:33:10"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert read_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "    :  :     :  :  ",
        "0000:00:00 00:00:00",
        "2021:13:03 18:22:05",
        "2021:02:30 18:22:05",
        "2021:07:03 25:00:00",
        "2021:07:03 18:22:99",
        "noon",
        "1970:01:01 00:00:00",
        "1970:01:01 08:00:00",
        "1969:12:31 19:00:00",
        "1904:01:01 00:00:00",
        "1980:01:01 00:03:20",
        "1980:01:01 00:00:00",
        "2002:12:08 00:00:00",
        "2002:12:08 12:00:00",
        "2000:01:01 00:00:00",
        "0001:01:01 00:00:00",
        "2107:12:31 23:59:58",
    ],
)
def test_no_times_and_clocks_that_were_never_set(text: str) -> None:
    assert read_time(text) == ""


def test_parts_of_a_second_and_zones() -> None:
    assert read_time("2021:07:03 18:22:05", "25", "+05:30") == "2021-07-03T18:22:05.250+05:30"
    assert read_time("2021:07:03 18:22:05", " 5 ", "-0800") == "2021-07-03T18:22:05.500-08:00"
    assert read_time("2021:07:03 18:22:05", "123456789") == "2021-07-03T18:22:05.123456"
    assert read_time("2021:07:03 18:22:05", "000", "   :  ") == "2021-07-03T18:22:05"
    assert read_time("2021:07:03 18:22:05", "x", "+99:00") == "2021-07-03T18:22:05"


def taken(form: str, **fields: object) -> str:
    exif = Image.Exif()
    inside = exif.get_ifd(0x8769)
    for tag, value in fields.items():
        number = int(tag[1:], 16)
        (exif if number < 0x8000 else inside)[number] = value
    data = pictures.encoded(pictures.draw("red", "circle"), form, exif=exif.tobytes())
    return decode(data, PixelSpec(16)).taken


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_best_time_of_a_picture(form: str) -> None:
    written, digitized, original = "2024:01:01 10:00:00", "2022:02:02 10:00:00", "2021:03:03 10:00:00"
    assert taken(form, x0132=written, x9004=digitized) == "2022-02-02T10:00:00"
    assert taken(form, x0132=written, x9004=digitized, x9003=original) == "2021-03-03T10:00:00"
    assert taken(form, x0132=written, x9004=digitized, x9003="1970:01:01 00:00:00") == "2022-02-02T10:00:00"
    assert taken(form, x0132=written, x9003="    :  :     :  :  ") == "2024-01-01T10:00:00"
    assert taken(form, x0132="2002:12:08 00:00:00") == ""
    assert taken(form, x9003=original, x9291="07", x9011="+09:00", x9010="+01:00") == "2021-03-03T10:00:00.070+09:00"
