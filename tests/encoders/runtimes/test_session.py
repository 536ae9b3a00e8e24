"""Sessions of ONNX Runtime: what they run, and what is said of files that cannot be opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders.runtimes.session import open_session
from brivl_search.errors import DependencyError, EncoderError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A model file that doubles its input."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [value], [out])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_session_runs(doubling: Path) -> None:
    (out,) = open_session(doubling).run(None, {"x": np.float32([1, 2])})
    assert out.tolist() == [2, 4]


def test_threads_are_those_asked_for_or_those_of_the_environment(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(**given: int) -> int:
        return int(open_session(doubling, **given).get_session_options().intra_op_num_threads)

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    assert threads(threads=2) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
def test_a_damaged_file_is_named(doubling: Path, content: bytes | None) -> None:
    doubling.write_bytes(doubling.read_bytes()[:-20] if content is None else content)
    with pytest.raises(EncoderError, match=r"model\.onnx is damaged or not whole: copy or download it again") as caught:
        open_session(doubling)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"there is no .*visual\.onnx"):
        open_session(tmp_path / "visual.onnx")


def test_without_onnx_runtime_the_extra_is_named(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"model\.onnx needs ONNX Runtime: pip install .*\[onnx\]"):
        open_session(doubling)
