"""Opens an ONNX file with ONNX Runtime: the package's settings of threads, and errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brivl_search.errors import DependencyError, EncoderError, install_hint


def open_session(path: Path, *, threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU. Its `run` may be called by several threads.

    Args:
        path: the .onnx file.
        threads: of one run; None: as many as the machine has cores.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        EncoderError: the file cannot be read.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DependencyError(f"{path.name} needs ONNX Runtime: {install_hint('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; the log would repeat it on stderr
    # Threads that wait by spinning take the cores that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are of its binary part
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"{path} cannot be opened by ONNX Runtime: {reason}") from None
