"""The real server, started from the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the server needs pip install '.[serve]'")

from brivl_search.errors import install_hint
from tests.support.folders import REPO
from tests.support.serving import write_site
from tests.support.stub import environment


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.stub", "serve", "--port", "0", *arguments],
        cwd=REPO,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_serve(tmp_path: Path) -> None:
    index = write_site(tmp_path, 6)
    server = start("--index", str(index), "--token", "long enough", "--read-only")
    lines = []
    try:
        assert server.stderr is not None
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                break
        assert found, lines
        # What the banner prints is there.
        banner = re.search(r"\(API: (/\S+),", lines[-1])
        assert banner, lines
        for path in ("/", banner[1]):
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=30) as answer:
                assert answer.status == 200 and b"<!doctype html>" in answer.read()
        head = urllib.request.Request(f"http://127.0.0.1:{found[1]}/healthz", method="HEAD")
        with urllib.request.urlopen(head, timeout=30) as answer:
            assert answer.status == 200 and answer.read() == b""

        def ask(path: str, body: object = None) -> object:
            request = urllib.request.Request(f"http://127.0.0.1:{found[1]}{path}", method="POST" if body else "GET")
            request.add_header("Authorization", "Bearer long enough")
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, json.dumps(body).encode() if body else None, timeout=30) as answer:
                return json.load(answer)

        answer = ask("/v1/search", {"text": "a red circle", "k": 2})
        assert "red-circle" in answer["hits"][0]["path"]  # type: ignore[index]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask("/v1/items", {"paths": [str(tmp_path / "photos")]})
        assert refused.value.code == 403
        again = start("--index", str(index), "--port", found[1])
        assert again.wait(30) == 1 and again.stderr is not None
        said = again.stderr.read()
        assert f"--port {found[1]}" in said and "Traceback" not in said
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) in (0, -signal.SIGTERM)
    finally:
        server.kill()
    rest = server.stderr.read()
    assert "GET" not in rest  # the page, and health: only with --verbose
    assert "POST /v1/search 200" in rest and "red" not in rest and "Traceback" not in rest


def test_verbose(tmp_path: Path) -> None:
    server = start("--index", str(write_site(tmp_path, 2)), "--verbose")
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"(http://127\.0\.0\.1:\d+/)", line):
                break
        assert found
        with urllib.request.urlopen(found[1] + "healthz", timeout=30) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGTERM)
        server.wait(15)
    finally:
        server.kill()
    assert "GET /healthz 200" in server.stderr.read()


def test_what_would_leave_the_server_open_is_refused(tmp_path: Path) -> None:
    server = start("--index", str(tmp_path), "--host", "0.0.0.0")
    assert server.wait(30) == 2 and server.stderr is not None
    said = server.stderr.read()
    assert "--host 0.0.0.0" in said and "--token" in said and "Traceback" not in said


def test_without_the_extra(tmp_path: Path) -> None:
    program = "import sys; sys.modules['fastapi'] = None; from brivl_search.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--index", str(tmp_path)],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and install_hint("serve") in done.stderr
    assert len(done.stderr.splitlines()) == 1
