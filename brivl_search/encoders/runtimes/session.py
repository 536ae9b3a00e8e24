"""Sessions of ONNX Runtime on the CPU, and model files that open fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from brivl_search.corpus.cpus import usable_cpus
from brivl_search.errors import DependencyError, EncoderError, install_hint

WEIGHTS = "weights.bin"
_ERRORS_ONLY = 3


def open_session(path: str | os.PathLike[str], *, threads: int | None = None, at_once: bool = False) -> Any:
    """Opens a model file.

    Its threads sleep while they wait, because spinning would take the cores that decode the next pictures.

    Args:
        path: of the .onnx file. Files with its weights, if it has some, lie beside it.
        threads: of a run; None: OMP_NUM_THREADS as for torch, else as many as there are CPUs for this process.
        at_once: for a lone query of an `optimized` file: nothing is rearranged, weights are read where they lie in it.

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
    options = _options(threads)
    if at_once:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no root of their own
        reason = " ".join(str(error).split())
        if type(error).__name__ in ("NotImplemented", "NoModel"):
            raise EncoderError(f"this ONNX Runtime ({onnxruntime.__version__}) cannot run {path}: {reason}") from None
        raise EncoderError(
            f"{path} is damaged or not whole: copy or download it again (ONNX Runtime says: {reason[:200]})"
        ) from None


def optimized(source: Path, target: Path) -> None:
    """Writes a model as ONNX Runtime would rearrange it while opening it, with its weights in a file beside it.

    Such a file opens in 0.02 s instead of 0.7 s (CLIP B/32's texts): it is mapped, and nothing is computed or copied.
    """
    import onnxruntime

    options = _options(None)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # for any CPU
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("optimized_model_external_initializers_file_name", WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("disable_prepacking", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    onnxruntime.InferenceSession(os.fspath(source), options, providers=["CPUExecutionProvider"])


def _options(threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY + 1  # errors are raised
    return options


def default_threads() -> int:
    """Threads of a run: OMP_NUM_THREADS as for torch, else as many as there are CPUs for this process."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else usable_cpus()
