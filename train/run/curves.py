"""The picture of a run: loss and validation recall over steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(history: list[dict[str, Any]], path: Path, loss: str = "loss (image→text + text→image)") -> None:
    """Writes a PNG; does nothing where matplotlib is not installed (extra `train`).

    Args:
        history: lines of "step", "loss", and "recall": title → curve → value.
        path: of the PNG.
        loss: what the loss is called.
    """
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    lossy = [h for h in history if "loss" in h]  # the start has been measured, and has no loss
    left.plot([h["step"] for h in lossy], [h["loss"] for h in lossy])
    left.set(xlabel="step", ylabel=loss)
    measured = [h for h in history if h.get("recall")]
    if measured:
        name = next(iter(measured[0]["recall"]))
        for figure_name in measured[0]["recall"][name]:
            values = [h["recall"][name][figure_name] for h in measured]
            right.plot([h["step"] for h in measured], values, label=figure_name.replace("2", "→"))
        right.set(xlabel="step", ylabel="recall, % (validation)", title=name)
        right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
