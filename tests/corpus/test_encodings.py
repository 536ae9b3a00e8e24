"""Bytes become text only as UTF-8 or as the encoding that is named; a refusal says what they seem to be."""

from __future__ import annotations

import pytest

from brivl_search.corpus.encodings import NotText, check_encoding, decode, decode_file, decode_lines, foreign
from brivl_search.corpus.text import check_text, take_text
from brivl_search.errors import UsageError

ZH, TW = "一只棕色的狗在草地上奔跑，旁边有一个男人。", "一隻棕色的狗在草地上奔跑，旁邊有一個男人。"


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        ("狗", "gbk", "GBK"),
        (ZH, "gb18030", "GBK"),
        ("image,caption\na.jpg,狗\nb.jpg,一只猫\n", "gbk", "GBK"),
        ("狗", "big5", "Big5"),
        (TW, "big5", "Big5"),
        (ZH, "utf-16", "UTF-16"),
        (ZH, "utf-16-le", "UTF-16"),
        (ZH, "utf-16-be", "UTF-16"),
        ("dog\ncat\n", "utf-16", "UTF-16"),
        ("dog\ncat\n", "utf-16-le", "UTF-16"),
        ("狗\n猫\n", "utf-16-be", "UTF-16"),
        ("dog\ncat\n", "utf-32", "UTF-32"),
        ("草の上を走る犬とボール", "utf-16", "UTF-16"),
        ("草の上を走る犬とボール", "cp932", "Shift_JIS"),
        ("草の上を走る犬とボール", "euc_jp", "EUC-JP"),
        ("풀밭 위를 달리는 갈색 개", "cp949", "EUC-KR"),
        ("собака на траве", "cp1251", "Windows-1251"),
        ("un café noir à Zürich", "latin-1", "Latin-1 (Windows-1252)"),
        ("a dog’s life", "cp1252", "Latin-1 (Windows-1252)"),
    ],
)
def test_what_is_not_utf8_is_named_and_its_codec_reads_it(text: str, codec: str, name: str) -> None:
    with pytest.raises(NotText) as caught:
        decode(text.encode(codec))
    found = caught.value.guess
    assert found is not None and found.name == name
    assert decode(text.encode(codec), found.codec) == text  # what the message advises
    assert name in str(caught.value) and f"`encoding` {found.codec}" in str(caught.value)


def test_utf8_is_taken_with_and_without_its_mark() -> None:
    assert decode(ZH.encode()) == decode(b"\xef\xbb\xbf" + ZH.encode()) == ZH
    assert foreign(ZH.encode()) is None and foreign(b"plain") is None and foreign(b"") is None
    assert foreign(ZH.encode("gbk")) is not None and foreign(b"dog\n" * 30000 + ZH.encode("gbk")) is None  # far behind


def test_a_line_that_is_utf8_by_chance_does_not_speak_for_the_file() -> None:
    assert "猫".encode("gbk").decode() == "è"
    found = foreign("狗\n猫\n".encode("gbk"))
    assert found is not None and found.name == "GBK"
    assert foreign("été\nà la mer\ncafé\n".encode() + b"\xb9\xb7\n") is None


def test_one_damaged_line_among_good_ones_is_no_foreign_file() -> None:
    assert foreign(ZH.encode() + b"\n\xb9\xb7\n") is None
    with pytest.raises(NotText) as caught:
        decode(b"a\xff\xfe\x01")
    assert caught.value.guess is None and "save it as UTF-8" in str(caught.value)


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "", "a\0b"])
def test_an_encoding_that_does_not_exist(name: str) -> None:
    with pytest.raises(UsageError, match=r"`encoding`.*gb18030"):
        check_encoding(name)
    assert check_encoding("GBK") == "GBK" and check_encoding(None) is None


def test_the_wrong_encoding_is_told() -> None:
    with pytest.raises(UsageError, match=r"labels\.txt: not utf-8-sig text: it seems to be GBK") as caught:
        decode_file(ZH.encode("gbk"), "labels.txt", "utf-8-sig")
    assert caught.value.code == "not_utf8"


@pytest.mark.parametrize(
    ("raw", "says"),
    [(b"\xb9\xb7", "GBK"), ("café".encode("latin-1"), "Latin-1"), ("狗".encode("big5"), "Big5"), (b"\xff", "")],
)
def test_an_argument_that_is_not_utf8(raw: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=rf"the query is not UTF-8 text.*{says}.*: give it in UTF-8") as caught:
        take_text(raw.decode("utf-8", "surrogateescape"), "the query")
    assert caught.value.code == "not_utf8"


def test_half_a_character_is_refused_and_whole_ones_are_not() -> None:
    for text in ("\ud83d", "a\udc00b", "\ud83d dog"):
        with pytest.raises(UsageError, match="not UTF-8"):
            check_text(text, "x")
    check_text("🐶 狗", "x")


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ufeff\u00ad ", "\u3164", "\u2800", "\x00", "\u202e\u202c"])
def test_a_text_of_which_nothing_can_be_seen_is_empty(text: str) -> None:
    with pytest.raises(UsageError, match="give some words") as caught:
        take_text(text, "the query")
    assert caught.value.code == "empty_text"


def test_what_is_shown_stays_as_it_was_written() -> None:
    assert take_text(" ＤＯＧ\u200b’s ", "x") == "ＤＯＧ\u200b’s"


def streamed(raw: bytes, size: int, encoding: str | None = None) -> list[str | NotText]:
    chunks = (raw[at : at + size] for at in range(0, len(raw), size))
    return [line for part in decode_lines(chunks, "--batch x", encoding) for line in part]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 16])
def test_lines_of_a_stream_whatever_its_chunks(size: int) -> None:
    text = f"{ZH}\n\na dog\n{ZH}"
    assert streamed(text.encode(), size) == streamed(b"\xef\xbb\xbf" + text.encode(), size) == text.split("\n")
    for codec in ("gb18030", "utf-16", "utf-16-le"):
        assert streamed(text.encode(codec), size, codec) == text.split("\n")
    assert streamed(b"", size) == streamed(b"", size, "gb18030") == []


@pytest.mark.parametrize(("codec", "name"), [("gbk", "GBK"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16")])
def test_a_stream_of_another_encoding_is_refused_at_its_beginning(codec: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--batch x: not UTF-8 text, it seems to be {name}"):
        streamed(f"{ZH}\na dog\n".encode(codec), 1 << 16)
    with pytest.raises(UsageError, match="--batch x: not gb18030 text"):
        streamed(b"a\xff\xff\n", 1 << 16, "gb18030")


def test_one_bad_line_of_a_stream_is_told_in_its_place() -> None:
    one, bad, last = streamed(ZH.encode() + b"\n\xb9\xb7\nx", 1 << 16)
    assert (one, last) == (ZH, "x") and isinstance(bad, NotText) and bad.guess is not None and bad.guess.name == "GBK"
