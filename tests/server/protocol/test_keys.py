"""Items' names in addresses."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")


from brivl_search.server.protocol import keys


def test_keys_of_long_and_strange_paths() -> None:
    for key in ("/a/b.jpg", "/一只狗.jpg", "/bad\udcff.jpg", "/" + "x" * 2000, ""):
        name = keys.encode("image", key)
        assert name.isascii() and not set(name) & set("/+=?#&") and len(name) <= 700
        decoded = keys.decode(name)
        assert decoded is not None and decoded[0] == "image"
        assert decoded[1] == key if len(key) < 480 else isinstance(decoded[1], bytes)
    for bad in ("", "i*", "x123", "I123", "iA", "i" + "A" * 1001, "iÄ"):
        assert keys.decode(bad) is None or bad == "iA"
