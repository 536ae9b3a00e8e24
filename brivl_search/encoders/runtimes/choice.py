"""Which runtime and precision compute a tower.

`auto` never changes vectors by more than rounding: an export that it uses agrees with torch to a cosine of SAFE. It
takes int8 only where `models runtimes` has measured on pairs of pictures and captions that recall stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from brivl_search.encoders.cpu import has_gpu, multiplies_bf16
from brivl_search.errors import DependencyError, UsageError, install_hint

Runtime = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Side = Literal["image", "text"]
RUNTIMES: tuple[Runtime, ...] = ("auto", "torch", "onnx", "openvino")
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "int8")
SAFE = 0.999  # cosine to torch in float32, from which on two vectors count as one
_PACKAGES = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
_TITLES = {"torch": "torch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Choice:
    """How a tower is computed: by which runtime, in which precision. `auto` as precision is for torch alone."""

    runtime: Literal["torch", "onnx", "openvino"]
    precision: Precision

    def __str__(self) -> str:
        return self.title if self.precision == "auto" else f"{self.title}, {self.precision}"

    @property
    def title(self) -> str:
        """The runtime's own name."""
        return _TITLES[self.runtime]

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.runtime}-{self.precision}"


TORCH = Choice("torch", "auto")


def installed(runtime: str) -> bool:
    """Whether the packages of a runtime are installed."""
    return all(find_spec(name) is not None for name in _PACKAGES.get(runtime, ()))


def check(runtime: str, precision: str, device: str) -> None:
    """Refuses what cannot be.

    Raises:
        UsageError: no such runtime or precision, or the two do not go together, or not on this device.
        DependencyError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"`runtime` {runtime!r}: give one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"`precision` {precision!r}: give one of {', '.join(PRECISIONS)}")
    if runtime in _PACKAGES and not installed(runtime):
        raise DependencyError(f"`runtime` {runtime} needs {_TITLES[runtime]}: {install_hint(runtime)}")
    if runtime in _PACKAGES and device not in ("auto", "cpu"):
        raise UsageError(f"`runtime` {runtime} computes on the CPU: leave out `device` {device}, or take torch")
    if runtime == "onnx" and precision == "bf16":
        raise UsageError("ONNX Runtime has no bf16 on CPUs: take `runtime` openvino or torch, or `precision` int8")
    if runtime == "torch" and precision == "int8":
        raise UsageError("torch computes in fp32 or bf16: for int8 take `runtime` onnx or openvino")
    if precision == "int8" and device not in ("auto", "cpu"):
        raise UsageError(f"int8 is computed on the CPU: leave out `device` {device}, or take fp32 or bf16")
    if precision == "int8" and not any(map(installed, _PACKAGES)):
        raise DependencyError(f"`precision` int8 needs ONNX Runtime: {install_hint('onnx')}")


def choose(side: Side, runtime: Runtime, precision: Precision, device: str, measured: Choice | None = None) -> Choice:
    """What computes a side, of a request that passed `check`.

    Args:
        side: of the encoder.
        runtime: as asked for.
        precision: as asked for. int8 of texts is for ONNX Runtime; `exports` takes it only where it keeps the vectors.
        device: as asked for.
        measured: what `models runtimes` found best for pictures of this encoder on this machine; None: nothing.
    """
    if precision == "int8" and side == "text" and (runtime == "openvino" or not installed("onnx")):
        precision = "auto"
    if runtime == "auto":
        fits = measured is not None and measured.precision == precision == "int8" and installed(measured.runtime)
        if measured is not None and fits and side == "image":
            return measured
        if precision == "int8":
            runtime = "onnx" if installed("onnx") else "openvino"
        elif device not in ("auto", "cpu") or (device == "auto" and side == "image" and has_gpu()):
            runtime = "torch"
        else:
            return _auto(side, precision, measured)
    if runtime == "openvino":
        return Choice("openvino", precision if precision != "auto" else "bf16" if _bf16_pays(side) else "fp32")
    return (
        Choice("onnx", "fp32" if precision == "auto" else precision)
        if runtime == "onnx"
        else Choice("torch", precision)
    )


def _bf16_pays(side: Side) -> bool:
    return side == "image" and multiplies_bf16()


def _auto(side: Side, precision: Precision, measured: Choice | None) -> Choice:
    """Of what is installed. One text is answered soonest by ONNX Runtime, many pictures by OpenVINO's bfloat16."""
    if side == "text":
        if precision == "bf16":
            return Choice("openvino", "bf16") if installed("openvino") else Choice("torch", "bf16")
        return Choice("onnx", "fp32") if installed("onnx") else _openvino_or_torch(precision, "fp32")
    if measured is not None and precision in ("auto", measured.precision) and installed(measured.runtime):
        return measured
    if precision == "bf16" or (precision == "auto" and multiplies_bf16()):
        return _openvino_or_torch(precision, "bf16")
    return Choice("onnx", "fp32") if installed("onnx") else _openvino_or_torch(precision, "fp32")


def _openvino_or_torch(asked: Precision, precision: Precision) -> Choice:
    return Choice("openvino", precision) if installed("openvino") else Choice("torch", asked)
