"""Which runtime computes a tower: what is refused, and what `auto` takes."""

from __future__ import annotations

from typing import Any

import pytest

from brivl_search.encoders.runtimes import choice
from brivl_search.encoders.runtimes.choice import Choice, check, choose
from brivl_search.errors import DependencyError, UsageError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what is installed and what the CPU and the GPU are."""

    def set_up(*packages: str, bf16: bool = False, gpu: bool = False) -> None:
        monkeypatch.setattr(choice, "installed", lambda runtime: runtime in ("torch", *packages))
        monkeypatch.setattr(choice, "multiplies_bf16", lambda: bf16)
        monkeypatch.setattr(choice, "has_gpu", lambda: gpu)

    return set_up


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("tensorrt", "auto", "auto"), "`runtime` 'tensorrt': give one of auto, torch, onnx, openvino"),
        (("auto", "fp16", "auto"), "`precision` 'fp16': give one of auto, fp32, bf16, int8"),
        (("onnx", "bf16", "auto"), "ONNX Runtime has no bf16 on CPUs"),
        (("torch", "int8", "auto"), "for int8 take `runtime` onnx or openvino"),
        (("onnx", "auto", "cuda"), "leave out `device` cuda"),
        (("auto", "int8", "cuda"), "int8 is computed on the CPU"),
    ],
)
def test_what_cannot_be_is_refused(machine: Any, request_: tuple[Any, Any, str], message: str) -> None:
    machine("onnx", "openvino")
    with pytest.raises(UsageError, match=message):
        check(*request_)


def test_a_runtime_that_is_not_installed_is_named_with_its_extra(machine: Any) -> None:
    machine()
    with pytest.raises(DependencyError, match=r"needs OpenVINO: pip install .*\[openvino\]"):
        check("openvino", "auto", "auto")
    with pytest.raises(DependencyError, match=r"int8 needs ONNX Runtime: pip install .*\[onnx\]"):
        check("auto", "int8", "auto")
    check("auto", "auto", "auto")


def test_a_plain_install_is_as_it_was(machine: Any) -> None:
    for bf16 in (False, True):
        machine(bf16=bf16)
        assert choose("image", "auto", "auto", "auto").runtime == "torch"
        assert choose("text", "auto", "auto", "auto").runtime == "torch"
        assert choose("image", "auto", "bf16", "auto") == Choice("torch", "bf16")


def test_auto_on_cpus(machine: Any) -> None:
    machine("onnx", "openvino", bf16=True)
    assert choose("image", "auto", "auto", "auto") == Choice("openvino", "bf16")
    assert choose("text", "auto", "auto", "auto") == Choice("onnx", "fp32")
    assert choose("image", "auto", "fp32", "auto") == Choice("onnx", "fp32")
    machine("onnx", bf16=True)  # torch multiplies bfloat16 there, ONNX Runtime does not
    assert choose("image", "auto", "auto", "auto") == Choice("torch", "auto")
    machine("onnx")
    assert choose("image", "auto", "auto", "auto") == Choice("onnx", "fp32")


def test_auto_leaves_pictures_to_a_gpu_and_texts_to_the_cpu(machine: Any) -> None:
    machine("onnx", "openvino", gpu=True)
    assert choose("image", "auto", "auto", "auto").runtime == "torch"
    assert choose("text", "auto", "auto", "auto") == Choice("onnx", "fp32")
    assert choose("text", "auto", "auto", "cuda").runtime == "torch"
    assert choose("image", "auto", "auto", "cpu") == Choice("onnx", "fp32")


def test_what_was_measured_wins_where_it_fits_the_request(machine: Any) -> None:
    machine("onnx", "openvino", bf16=True)
    torch = Choice("torch", "bf16")
    assert choose("image", "auto", "auto", "auto", torch) == torch
    assert choose("image", "auto", "fp32", "auto", torch) == Choice("onnx", "fp32")
    assert choose("image", "onnx", "auto", "auto", torch) == Choice("onnx", "fp32")
    int8 = Choice("openvino", "int8")
    assert choose("image", "auto", "int8", "auto", int8) == int8
    assert choose("image", "auto", "int8", "auto") == Choice("onnx", "int8")


def test_int8_of_texts_is_for_onnx_runtime(machine: Any) -> None:
    machine("onnx", "openvino")
    for runtime in ("auto", "onnx"):
        assert choose("text", runtime, "int8", "auto", Choice("openvino", "int8")) == Choice("onnx", "int8")
    assert choose("text", "openvino", "int8", "auto") == Choice("openvino", "fp32")
    machine("openvino")
    assert choose("text", "auto", "int8", "auto") == Choice("openvino", "fp32")
    assert choose("image", "auto", "int8", "auto") == Choice("openvino", "int8")
