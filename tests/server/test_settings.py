"""Choices that would leave a server open are refused."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")


from brivl_search.errors import UsageError
from brivl_search.server import Settings

TOKEN = "correct horse battery staple"


def test_beyond_loopback_a_token_is_needed() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UsageError, match="`token`"):
            Settings(host=host)
        assert Settings(host=host, token=TOKEN).requests_a_second == 100
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert Settings(host=host).requests_a_second == 0
    with pytest.raises(UsageError, match="8 ASCII"):
        Settings(token="short")


@pytest.mark.parametrize("name", ["rate", "max_megapixels"])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UsageError, match=rf"`{name}` {value:g}: give"):
            Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("top", [0, -1])
def test_nothing_to_re_order(top: int) -> None:
    with pytest.raises(UsageError, match=f"`rerank_top` {top}: give a whole number from 1 on"):
        Settings(rerank_with="brivl-mini-rerank", rerank_top=top)
