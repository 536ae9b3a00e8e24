"""Opens an ONNX file with ONNX Runtime: the package's settings of threads, and errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brivl_search.errors import DependencyError, EncoderError, install_hint

WEIGHTS = "weights.bin"


def open_session(path: Path, *, threads: int | None = None, at_once: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU. Its `run` may be called by several threads.

    Args:
        path: the .onnx file.
        threads: of one run; None: as many as the machine has cores.
        at_once: for a lone query: nothing is rearranged for many runs, so weights are read where they lie in the file.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        EncoderError: the file cannot be read.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DependencyError(f"{path.name} needs ONNX Runtime: {install_hint('onnx')}") from None
    options = _options()
    if at_once:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    if threads:
        options.intra_op_num_threads = threads
    return _opened(path, options)


def optimized(source: Path, target: Path) -> None:
    """Writes a model as ONNX Runtime would rearrange it while opening it, with its weights in a file beside it.

    Such a file opens in 0.02 s instead of 0.7 s (CLIP B/32's texts): it is mapped, and nothing is computed or copied.

    Raises:
        EncoderError: the file cannot be read.
    """
    import onnxruntime

    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # for any CPU
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", WEIGHTS),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.disable_prepacking", "1"),
    ):
        options.add_session_config_entry(key, value)
    _opened(source, options)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; the log would repeat it on stderr
    # Threads that wait by spinning take the cores that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _opened(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are of its binary part
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"{path} cannot be opened by ONNX Runtime: {reason}") from None
