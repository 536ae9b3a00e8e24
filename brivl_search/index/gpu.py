"""FAISS on a GPU: where training, assignment and large batches of queries go if faiss-gpu and a device are there.

One choice a process, made by the command line's --device. Without faiss-gpu or a device everything stays on the CPU,
and the results are the same but for ties and rounding, which the exact re-ranking evens out.
"""

from __future__ import annotations

from typing import Any

BATCH = 256  # queries from which on copying to the device pays

_wanted = "cpu"
_resources: Any = None


def choose(device: str) -> None:
    """Use the GPU that a torch device name asks for ("auto", "cuda", "cuda:1"), if FAISS can; others mean the CPU."""
    global _wanted
    _wanted = device


def number(faiss: Any) -> int | None:
    """The GPU that FAISS's work goes to, None for the CPU."""
    if _wanted != "auto" and not _wanted.startswith("cuda"):
        return None
    asked = _wanted.partition(":")[2]
    if not hasattr(faiss, "StandardGpuResources") or (asked and not asked.isdecimal()):
        return None
    device = int(asked or 0)
    return device if faiss.get_num_gpus() > device else None


def copy(faiss: Any, index: Any) -> Any:
    """The index on the chosen GPU; float16 tables, which 64-byte codes need to fit its shared memory.

    Raises:
        RuntimeError: the device cannot hold it, or does not know its kind of code.
    """
    global _resources
    _resources = _resources or faiss.StandardGpuResources()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    return faiss.index_cpu_to_gpu(_resources, number(faiss), index, options)
