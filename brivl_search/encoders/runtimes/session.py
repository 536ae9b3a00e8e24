"""Sessions of ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from brivl_search.corpus.cpus import usable_cpus
from brivl_search.errors import DependencyError, EncoderError, install_hint

_ERRORS_ONLY = 3


def open_session(path: str | os.PathLike[str], *, threads: int | None = None) -> Any:
    """Opens a model file.

    Its threads sleep while they wait, because spinning would take the cores that decode the next pictures.

    Args:
        path: of the .onnx file. Files with its weights, if it has some, lie beside it.
        threads: of a run; None: OMP_NUM_THREADS as for torch, else as many as there are CPUs for this process.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        EncoderError: the file is missing, damaged or truncated, or this ONNX Runtime cannot run it.
    """
    path = Path(path)
    try:
        import onnxruntime
    except ImportError:
        raise DependencyError(f"{path} needs ONNX Runtime: {install_hint('onnx')}") from None
    if not path.is_file():
        raise EncoderError(f"there is no {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY + 1  # errors are raised
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no root of their own
        reason = " ".join(str(error).split())
        if type(error).__name__ in ("NotImplemented", "NoModel"):
            raise EncoderError(f"this ONNX Runtime ({onnxruntime.__version__}) cannot run {path}: {reason}") from None
        raise EncoderError(
            f"{path} is damaged or not whole: copy or download it again (ONNX Runtime says: {reason[:200]})"
        ) from None


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else usable_cpus()
