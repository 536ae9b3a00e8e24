"""Adding and removing while the server answers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

import numpy as np
from starlette.testclient import TestClient

from brivl_search.encoders.base import Origin
from brivl_search.search.engine import Engine
from brivl_search.server import Settings, create_app
from tests.support import serving
from tests.support.pictures import (
    draw,
    encoded,
    jpeg,
)
from tests.support.serving import RED, keys_of, search
from tests.support.stub import StubEncoder


def test_adding_and_removing(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 6)
    uploads = tmp_path / "uploads"
    new = tmp_path / "photos" / "new.png"
    new.write_bytes(encoded(draw("yellow", "triangle", seed=5), "PNG"))
    with serving.client(index, Settings(upload_dir=uploads)) as client:
        answer = client.post(
            "/v1/items", json={"paths": [str(new), str(tmp_path / "photos" / "captions.jsonl")]}
        ).json()
        assert answer["embedded"] == 1 and answer["generation"] == 2 and len(answer["keys"]) == 1
        assert search(client, terms=[{"key": answer["keys"][0]}], target="images", k=1)[0]["path"] == str(new)
        picture = jpeg((120, 80), "purple", "cross")
        answer = client.post("/v1/items", files={"image": ("../../evil.php", picture)}).json()
        (key,) = answer["keys"]
        (kept,) = [path for path in uploads.rglob("*") if path.is_file()]
        assert kept.suffix == ".jpg" and kept.read_bytes() == picture
        assert client.get(f"/v1/items/{key}/image").content == picture
        assert client.post("/v1/items", files={"image": b"no picture"}).status_code == 400
        assert len([path for path in uploads.rglob("*") if path.is_file()]) == 1
        removed = client.delete(f"/v1/items/{key}").json()
        assert removed["images"] == 1 and not kept.exists()
        assert client.get(f"/v1/items/{key}/thumbnail").status_code == 404
        (red,) = search(client, text="a red circle", k=1)
        removed = client.delete(f"/v1/items/{red['key']}").json()
        assert removed == {"generation": 5, "images": 1, "captions": 4} and Path(red["path"]).exists()
        assert client.delete(f"/v1/items/{red['key']}").status_code == 404
        assert client.post("/v1/items", json={"paths": []}).status_code == 400
        assert client.post("/v1/items", json={"paths": [str(tmp_path / "photos" / "none.jpg")]}).status_code == 400


def test_an_encoder_of_regions_learns_whose_pixels_it_is_given(tmp_path: Path) -> None:
    """Boxes of a file count for what the server adds, as they do for the command line."""

    class OfRegions(StubEncoder):
        asked: list[Origin] = []  # noqa: RUF012 - the test reads it

        def encode_pictures(self, pixels: np.ndarray, origins: list[Origin]) -> np.ndarray:
            self.asked.extend(origins)
            return self.encode_images(pixels)

    index = serving.write_site(tmp_path, 3)
    new = tmp_path / "photos" / "new.png"
    new.write_bytes(encoded(draw("yellow", "triangle", size=(70, 50)), "PNG"))
    engine = Engine(index)
    engine.encoder = OfRegions()
    with TestClient(create_app(engine, Settings(decoders=1)), base_url="http://127.0.0.1:8000") as client:
        assert client.post("/v1/items", json={"paths": [str(new)]}).json()["embedded"] == 1
        assert client.post("/v1/search", files={"image": RED}).status_code == 200
    assert [(one.path, one.width, one.height) for one in OfRegions.asked[-2:]] == [(str(new), 70, 50), ("", 0, 0)]


def test_another_build_is_writing(tmp_path: Path) -> None:
    from brivl_search.index.lock import WriterLock

    index = serving.write_site(tmp_path, 3)
    with serving.client(index) as client:
        lock = WriterLock(index)
        try:
            answer = client.post("/v1/items", json={"paths": [str(tmp_path / "photos")]})
        finally:
            lock.release()
        assert answer.status_code == 409 and answer.json()["error"]["type"] == "conflict"


def test_paths_that_are_added_lie_under_the_roots(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(jpeg((64, 64), "green", "ring"))
    link = tmp_path / "photos" / "link"
    link.symlink_to(outside)
    with serving.client(index, Settings(upload_dir=tmp_path / "up")) as client:
        photos = tmp_path / "photos"
        beside = (f"{photos}/../outside", f"{photos}X", "/", "/etc/passwd")
        for path in (outside / "a.jpg", link / "a.jpg", link, *beside):
            answer = client.post("/v1/items", json={"paths": [str(path)]})
            assert answer.status_code == 403, answer.text
        assert client.get("/v1/index").json()["generation"] == 1


def test_read_only(index: Path) -> None:
    with serving.client(index, Settings(read_only=True, warm=False)) as client:
        ((key, path), *_) = keys_of(client)
        for answer in (
            client.post("/v1/items", json={"paths": [str(path)]}),
            client.post("/v1/items", files={"image": jpeg()}),
            client.delete(f"/v1/items/{key}"),
        ):
            assert answer.status_code == 403 and "read-only" in answer.json()["error"]["message"]
        assert client.get("/v1/index").json()["read_only"] is True
