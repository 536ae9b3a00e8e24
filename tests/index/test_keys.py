"""Keys of items, and the LMDB keys that hold them."""

from __future__ import annotations

import hashlib

from brivl_search.index import keys


def test_a_caption_is_found_by_its_image() -> None:
    key = keys.caption_key("/photos/a.jpg", "zh", hashlib.sha256("一只狗".encode()).hexdigest())
    assert key == "/photos/a.jpg\0zh\0" + hashlib.sha256("一只狗".encode()).hexdigest()[:24]
    assert key.startswith(keys.captions_of("/photos/a.jpg"))
    assert not key.startswith(keys.captions_of("/photos/a"))
    assert keys.caption_parts(key) == ("/photos/a.jpg", "zh")


def test_keys_that_import_was_given_have_no_field() -> None:
    assert keys.caption_parts("row-17") == ("row-17", "")


def test_long_keys_are_hashed() -> None:
    short, long = "é" * 240, "é" * 241  # 480 and 482 bytes
    assert keys.to_lmdb(b"item/i", short) == b"item/i=" + short.encode()
    assert keys.to_lmdb(b"item/i", long) == b"item/i~" + hashlib.sha256(long.encode()).digest()
    assert keys.to_lmdb(b"x", "\udcff") == b"x=\xff"


def test_ranges_hold_every_key_that_begins_so() -> None:
    plain, hashed = keys.lmdb_ranges(b"item/t", "/photos/")
    assert keys.to_lmdb(b"item/t", "/photos/a.jpg").startswith(plain)
    assert keys.to_lmdb(b"item/t", "/photos/" + "x" * 500).startswith(hashed)
    assert not keys.to_lmdb(b"item/t", "/other/a.jpg").startswith((plain, hashed))
    assert keys.lmdb_ranges(b"item/t", "y" * 600)[0] == b"item/t=" + b"y" * 480
