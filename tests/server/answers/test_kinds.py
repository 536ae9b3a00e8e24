"""Kinds of files by their content."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")


from brivl_search.server.answers.kinds import media_type


def test_a_file_that_is_a_page_and_a_picture_is_sent_as_a_picture() -> None:

    assert media_type(b"GIF89a<script>") == "image/gif"
    assert media_type(b"<!doctype html>") == "application/octet-stream"
    assert media_type(json.dumps({}).encode()) == "application/octet-stream"
