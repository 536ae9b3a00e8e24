"""Which files the server shows, and as what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.server.protocol import keys
from tests.support import serving
from tests.support.pictures import jpeg, write_lines
from tests.support.serving import keys_of
from tests.support.stub import Silent

SECRET = "root:x:0:0:secret"


def test_only_files_of_the_index_are_served(client: TestClient, index: Path) -> None:
    secret = index.parent / "photos" / "secret.jpg"  # an image beside the others, and not indexed
    secret.write_bytes(jpeg())
    photo = next((index.parent / "photos" / "images").iterdir())
    for path in (
        secret,
        f"{photo.parent}/../secret.jpg",
        f"{photo.parent}/../images/{photo.name}",  # the same file by another name is not the item
        "/etc/passwd",
        "../../../../etc/passwd",
        "etc/passwd",
        index / "catalog.lmdb",
        "",
        "\0",
    ):
        for what in ("", "/image", "/thumbnail"):
            assert client.get(f"/v1/items/{keys.encode('image', str(path))}{what}").status_code == 404, path
    for path in (
        "/../server/app.py",
        "/..%2fserver/app.py",
        "/docs/..%2f..%2fapp.py",
        "//etc/passwd",
        "/%2e%2e/app.py",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 or "<!doctype html>" in answer.text.lower(), path
        assert "create_app" not in answer.text


def test_what_took_a_files_place_is_not_served(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 4)
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    private = tmp_path / "private.jpg"
    private.write_bytes(jpeg((50, 50), "black", "ring"))
    with serving.client(index) as client:
        (linked, link), (swapped, other), (gone, third), (piped, fourth) = keys_of(client, k=4)
        link.unlink()
        link.symlink_to(secret)
        other.unlink()
        other.symlink_to(private)  # a picture, and not the one that was indexed
        third.unlink()
        fourth.unlink()
        os.mkfifo(fourth)
        for what in ("image", "thumbnail"):
            for key, status in ((linked, 409), (swapped, 409), (gone, 404), (piped, 404)):
                answer = client.get(f"/v1/items/{key}/{what}")
                assert answer.status_code == status, answer.text
                assert SECRET not in answer.text and answer.json()["error"]["message"]


def test_a_moved_folder_with_the_same_picture_still_is_it(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 2)
    with serving.client(index) as client:
        ((key, path), _) = keys_of(client, k=2)
        elsewhere = tmp_path / "elsewhere.jpg"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert client.get(f"/v1/items/{key}/image").content == elsewhere.read_bytes()


def test_markup_in_captions_and_names_stays_data(tmp_path: Path) -> None:

    script = "<script>alert(1)</script>"
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "<img src=x onerror=alert(1)>.jpg").write_bytes(jpeg())
    write_lines(folder / "captions.jsonl", [{"image": "<img src=x onerror=alert(1)>.jpg", "en": script}])
    build_index([folder], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        answer = client.post("/v1/search", json={"text": "x", "target": "texts"})
        assert answer.headers["content-type"] == "application/json" and answer.json()["hits"][0]["text"] == script
        image = client.get(f"/v1/items/{answer.json()['hits'][0]['key']}/image")
        assert image.headers["content-type"] == "image/jpeg"
        assert "<" not in image.headers["content-disposition"]
