"""Addresses: every one that is printed somewhere answers, to GET and to HEAD."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from tests.support.folders import REPO

ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):\d+(/[\w/.-]*)|(?:GET |`)(/(?:v1/)?[a-z_-]+)`")

ASKED = {"/text_query": {"text": "a dog"}}  # what an address cannot be asked without; 503: not ready yet


def printed() -> set[str]:
    """Of the documentation; without those that hold a place for a key."""
    pages = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
    found = {one or other for page in pages for one, other in ADDRESS.findall(page.read_text("utf-8"))}
    return {address.rstrip(".") for address in found if not address.startswith(("/home", "/photos", "/work"))}


def test_every_address_of_the_documentation_is_there(client: TestClient) -> None:
    addresses = printed() | {"/", "/docs", "/docs/", "/openapi.json"}
    assert {"/v1/search", "/docs", "/healthz"} <= addresses
    routes = client.get("/openapi.json").json()["paths"]
    looked_at = {address for address in addresses if "get" in routes.get(address, {"get": 1})}
    assert looked_at >= {"/", "/docs", "/healthz", "/readyz", "/metrics", "/v1/index"}
    assert [
        address for address in looked_at if client.get(address, params=ASKED.get(address)).status_code not in (200, 503)
    ] == []


def test_docs_leads_to_its_page_also_behind_a_proxy(client: TestClient) -> None:
    answer = client.get("/docs", follow_redirects=False)
    assert answer.status_code == 307 and answer.headers["location"] == "docs/"
    page = client.get("/docs")
    assert page.url.path == "/docs/" and "HTTP API" in page.text
    for link in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert client.get(str(page.url.join(link))).status_code == 200, link


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v1/index", "/metrics", "/docs/", "/", "/docs", "/openapi.json", "/indices-list"]
)
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    plain = {"Accept-Encoding": "identity"}
    while client.get("/readyz").status_code != 200:
        pass
    get, head = client.get(path, headers=plain), client.head(path, headers=plain)
    assert head.status_code == get.status_code == 200 and head.content == b"" and get.content
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # its numbers change with every request
        assert head.headers["content-length"] == get.headers["content-length"]


def test_head_of_what_is_not_there_or_refused(client: TestClient) -> None:
    assert client.head("/v1/items/iAAAA").status_code == 404
    assert client.head("/nothing").status_code == 404
    assert client.head("/v1/index", headers={"Host": "evil.example"}).status_code == 403
