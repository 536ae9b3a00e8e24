"""What OpenVINO does to the process that it computes in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

SIGNALLED = """
import faulthandler, os, signal, sys
from pathlib import Path

import openvino
from openvino import opset13 as ops

from brivl_search.encoders.runtimes.openvino import open_model

given = ops.parameter([1, 4], name="x")
openvino.save_model(openvino.Model([ops.relu(given)], [given], "m"), sys.argv[1])
faulthandler.enable()
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append("came"))
models = [open_model(Path(sys.argv[1])) for _ in range(3)]
while models:
    models.pop(0)  # the first that was opened goes first
    os.kill(os.getpid(), signal.SIGTERM)
print(*came)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="alternate signal stacks are OpenVINO's on Linux")
def test_a_signal_comes_after_towers_are_gone(tmp_path: Path) -> None:
    """Each plug-in of OpenVINO sets a stack for signals, and puts back the one before, which may be gone by then."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIGNALLED, str(tmp_path / "m.xml")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stdout.split()) == (0, ["came"] * 3), done.stderr
