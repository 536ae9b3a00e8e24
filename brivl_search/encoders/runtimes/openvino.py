"""Opens an exported tower with OpenVINO."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.runtimes.session import default_threads
from brivl_search.errors import DependencyError, EncoderError, install_hint

Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


@functools.cache
def shared_core() -> Any:
    """OpenVINO's core, one for the process, as it wants to be used.

    Each makes a plug-in of its own, which sets a stack for signals and puts back the one before when it goes. That one
    may be of another plug-in that is gone by then: the next signal would end the process.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
    import openvino

    return openvino.Core()


def open_model(path: Path, *, bf16: bool = False, threads: int | None = None, streams: int = 1) -> Run:
    """An ONNX or OpenVINO file → a function from inputs by name to its first output. Threads may share it.

    Args:
        path: the file.
        bf16: compute in bfloat16 where the CPU has it, else in float32.
        threads: of a run; None: OMP_NUM_THREADS as for torch, else as many as there are CPUs for this process.
        streams: how many runs go side by side, each with its part of the threads.

    Raises:
        DependencyError: OpenVINO is not installed.
        EncoderError: the file cannot be read.
    """
    try:
        core = shared_core()
    except ImportError:
        raise DependencyError(f"{path.name} needs OpenVINO: {install_hint('openvino')}") from None
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "ENABLE_MMAP": True,
        "INFERENCE_NUM_THREADS": threads or default_threads(),
    }
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise EncoderError(f"{path} cannot be opened by OpenVINO: {reason}: delete it, and it is made again") from None

    own = threading.local()  # a request holds the memory of a run, and serves one run at a time

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer(dict(inputs), share_inputs=True)
        return np.array(found[compiled.outputs[0]], dtype=np.float32)

    return run
