"""Items by their keys: records, captions, thumbnails, files; the map."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from PIL import Image
from starlette.testclient import TestClient

from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from tests.support import serving
from tests.support.pictures import write_corpus, write_lines
from tests.support.serving import RED, search
from tests.support.stub import Silent


def test_items(client: TestClient, index: Path) -> None:
    (hit,) = search(client, text="a black square", k=1)
    item = client.get(f"/v1/items/{hit['key']}").json()
    file = Path(hit["path"])
    assert item["path"] == hit["path"] and item["size"] == file.stat().st_size and item["content_type"] == "image/jpeg"
    assert item["modified"].endswith("Z") and item["width"] == 96
    assert [caption["field"] for caption in item["captions"]] == ["en", "en", "zh", "zh"]
    caption = client.get(f"/v1/items/{item['captions'][0]['key']}").json()
    assert caption["kind"] == "text" and caption["image_key"] == hit["key"] and caption["text"] == "a black square"
    assert caption["captions"] == item["captions"]
    image = client.get(f"/v1/items/{hit['key']}/image")
    assert image.content == file.read_bytes() and image.headers["content-type"] == "image/jpeg"
    assert "content-encoding" not in image.headers and "gzip" in client.get("/v1/map").headers["content-encoding"]
    for key in (hit["key"], caption["key"]):
        small = client.get(f"/v1/items/{key}/thumbnail", params={"size": 128})
        assert small.headers["content-type"] == "image/jpeg" and small.content[:3] == b"\xff\xd8\xff"
        again = client.get(f"/v1/items/{key}/thumbnail?size=128", headers={"If-None-Match": small.headers["etag"]})
        assert again.status_code == 304 and not again.content
    assert client.get(f"/v1/items/{hit['key']}/thumbnail?size=5000").status_code == 422
    assert client.get("/v1/items/iAAAA").status_code == 404


def test_thumbnails_shrink(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 1, size=(1200, 600))
    build_index([tmp_path / "photos"], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        (hit,) = search(client, text="x")
        for side in (128, 256, 512, 1024):
            answer = client.get(f"/v1/items/{hit['key']}/thumbnail?size={side}")
            (tmp_path / "t.jpg").write_bytes(answer.content)
            with Image.open(tmp_path / "t.jpg") as image:
                assert image.size == (side, side // 2)


def test_an_item_of_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 3)
    write_corpus(folder, 2)
    build_index([folder], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        hit = search(client, text="a red circle", k=1)[0]
        assert hit["key"].startswith("I") and len(hit["key"]) < 60
        item = client.get(f"/v1/items/{hit['key']}").json()
        assert item["path"] == hit["path"] and len(item["captions"]) == 4
        assert client.get(f"/v1/items/{item['captions'][0]['key']}/image").content == Path(hit["path"]).read_bytes()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    name = os.path.join(os.fsencode(tmp_path), b"photos", b"bad\xff.png")
    try:
        Path(os.fsdecode(name)).write_bytes(RED)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    write_lines(tmp_path / "photos" / "captions.jsonl", [])
    build_index([tmp_path / "photos"], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        (hit,) = search(client, text="x")
        assert client.get(f"/v1/items/{hit['key']}/image").content == RED
        assert client.get(f"/v1/items/{hit['key']}").json()["path"].endswith("bad\udcff.png")
