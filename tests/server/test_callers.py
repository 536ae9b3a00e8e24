"""Who calls: Host, Origin and forwarded headers, well-formed or not."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from brivl_search.server.callers import (
    Place,
    bucket_of,
    is_own,
    parse_network,
    parse_origin,
    parse_place,
    see_through,
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("photos.example", Place("photos.example")),
        ("Photos.Example.:8000", Place("photos.example", 8000)),
        (" 127.0.0.1:80 ", Place("127.0.0.1", 80)),
        ("[::1]:8000", Place("::1", 8000)),
        ("[0:0:0:0:0:0:0:1]", Place("::1")),
        ("xn--fiqs8s.example", Place("xn--fiqs8s.example")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place


NONSENSE = [
    "[", "]", "[]", "[::1", "[::1]x", "[::1]:", "[127.0.0.1]", "::1", "a b", "a/b", "a:b", "a:-1", "a:٣", "a:65536",
    "a:1:2", ":80", "a@b", "a?b", "a\0b", "é.example", ".", "[" * 1000, "a" * 300, "[v1.x]", "[::1%25eth0",
    "a:999999999999",
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_place(text: str) -> None:
    assert parse_place(text) is None
    assert parse_origin(f"http://{text}") is None


def test_origins() -> None:
    assert parse_origin("https://photos.example:8443") == ("https", Place("photos.example", 8443))
    for text in (
        "null",
        "",
        "file://",
        "ftp://photos.example",
        "photos.example",
        "http:",
        "http://",
        "//a",
        "http:///a",
    ):
        assert parse_origin(text) is None


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "own"),
    [
        ("http://localhost:8000", "localhost:8000", "", True),
        ("http://localhost", "localhost:80", "", True),
        ("https://a.example", "a.example:443", "", True),
        ("http://localhost:3000", "localhost:8000", "", False),
        ("http://evil.example", "localhost:8000", "", False),
        ("https://photos.example", "127.0.0.1:8000", "photos.example", True),
        ("http://photos.example", "127.0.0.1:8000", "photos.example", True),
        ("https://photos.example:8443", "127.0.0.1:8000", "photos.example", False),
        ("https://photos.example:8443", "127.0.0.1:8000", "photos.example:8443", True),
        ("https://photos.example", "127.0.0.1:8000", "photos.example:8443", False),
        ("https://photos.example.evil.example", "127.0.0.1:8000", "photos.example", False),
    ],
)
def test_whose_pages_are_the_servers_own(origin: str, host: str, allowed: str, own: bool) -> None:
    parsed, place = parse_origin(origin), parse_place(host)
    assert parsed is not None and place is not None
    names = [one] if (one := parse_place(allowed)) else []
    assert is_own(parsed, [place], names) is own


def seen(peer: str, trusted: str, *forwarded: str, **more: str) -> tuple[str, str, list[str]]:
    """Client and scheme after a look at the forwarded headers, and the hosts that they name."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    headers += [(f"x-forwarded-{name}".encode(), value.encode()) for name, value in more.items()]
    scope = {"type": "http", "client": (peer, 1234), "scheme": "http", "headers": headers}
    hosts = see_through(scope, [parse_network(one) for one in trusted.split()])
    return scope["client"][0], scope["scheme"], hosts  # type: ignore[index,return-value]


@pytest.mark.parametrize(
    ("peer", "trusted", "forwarded", "client"),
    [
        ("127.0.0.1", "", "1.2.3.4", "127.0.0.1"),  # nobody is trusted: the header is anybody's
        ("9.9.9.9", "127.0.0.1", "1.2.3.4", "9.9.9.9"),  # not through the proxy
        ("127.0.0.1", "127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the left one is the client's own invention
        ("127.0.0.1", "127.0.0.1 10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1 10.0.0.0/8", "10.2.2.2, 10.1.1.1", "10.2.2.2"),
        ("127.0.0.1", "127.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
        ("::1", "::1", "[2001:db8::7]:99", "2001:db8::7"),
        ("::ffff:127.0.0.1", "127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1 10.0.0.0/8", "[, 10.1.1.1", "10.1.1.1"),
        ("127.0.0.1", "127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "1.2.3.4,", "127.0.0.1"),
        ("testclient", "127.0.0.1", "1.2.3.4", "testclient"),
    ],
)
def test_the_client_of_a_trusted_proxy(peer: str, trusted: str, forwarded: str, client: str) -> None:
    assert seen(peer, trusted, forwarded)[0] == client


def test_several_headers_are_one_list() -> None:
    assert seen("127.0.0.1", "127.0.0.1", "6.6.6.6", "1.2.3.4")[0] == "1.2.3.4"


def test_scheme_and_host_of_a_trusted_proxy() -> None:
    more = {"proto": "https", "host": "evil.example, photos.example"}
    assert seen("127.0.0.1", "127.0.0.1", "1.2.3.4", **more) == ("1.2.3.4", "https", ["photos.example"])
    assert seen("127.0.0.1", "", "1.2.3.4", **more) == ("127.0.0.1", "http", [])
    assert seen("127.0.0.1", "127.0.0.1", "1.2.3.4", proto="gopher")[1] == "http"


def test_a_network_of_ipv6_is_one_client() -> None:
    def of(host: str) -> str:
        return bucket_of({"client": (host, 1)})

    assert of("2001:db8::1") == of("2001:db8::ffff:1") != of("2001:db8:0:1::1")
    assert of("1.2.3.4") == "1.2.3.4" == of("::ffff:1.2.3.4") and of("") == ""
