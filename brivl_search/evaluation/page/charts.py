"""Small charts as SVG, drawn by hand: their colours are the page's CSS variables, so they follow light and dark, and a
few kilobytes each. (matplotlib's SVG has its colours and its letters as paths inside and is ten times as large.)

The viewBox is about as wide as a phone's screen, so letters keep their size there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 44
COLOURS = 6  # --series-0 ... of the page


@dataclass(frozen=True)
class Series:
    """One line or area.

    Attributes:
        name: in the legend.
        x: float (n,).
        y: float (n,).
        colour: number of the page's colour, below COLOURS.
        dashed: a broken line.
        hints: what each point says when pointed at; "" or none at all: nothing.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    dashed: bool = False
    hints: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with labels at `ticks`; logarithmic or linear."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    form: str = "g"
    log: bool = False

    def place(self, start: float, end: float) -> Callable[[float], float]:
        """The map from values to pixels between `start` and `end`."""
        turn = math.log if self.log else float
        low, high = turn(self.low), turn(self.high)
        span = (high - low) or 1.0
        return lambda value: start + (turn(value) - low) / span * (end - start)


def lines(
    title: str, x: Axis, y: Axis, series: Sequence[Series], *, points: bool = False, diagonal: bool = False
) -> str:
    """A line chart; `points` marks the values, `diagonal` draws y = x."""
    px, py = x.place(LEFT, WIDTH - RIGHT), y.place(HEIGHT - BOTTOM, TOP)
    parts = _frame(title, x, y)
    if diagonal:
        parts.append(
            f'<line class="aim" x1="{px(x.low):.1f}" y1="{py(y.low):.1f}" x2="{px(x.high):.1f}" y2="{py(y.high):.1f}"/>'
        )
    for one in series:
        places = [(px(float(a)), py(float(b))) for a, b in zip(one.x, one.y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        parts.append(f'<polyline class="line s{one.colour}" points="{path}"{dash}/>')
        radius = 4 if points else 6
        for (a, b), hint in zip(places, one.hints, strict=False):
            if not hint:
                continue
            kind = "dot" if points else "touch"
            parts.append(
                f'<circle class="{kind} s{one.colour}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">'
                f"<title>{escape(hint)}</title></circle>"
            )
    return "".join([*parts, "</svg>"])


def histogram(title: str, x: Axis, y: Axis, edges: np.ndarray, series: Sequence[Series]) -> str:
    """Areas over common bins: `edges` are float (bins + 1,), each series' y float (bins,)."""
    px, py = x.place(LEFT, WIDTH - RIGHT), y.place(HEIGHT - BOTTOM, TOP)
    parts = _frame(title, x, y)
    for one in series:
        steps = [f"{px(float(edges[0])):.1f},{py(0):.1f}"]
        for left, right, value in zip(edges[:-1], edges[1:], one.y, strict=True):
            steps += [f"{px(float(at)):.1f},{py(float(value)):.1f}" for at in (left, right)]
        steps.append(f"{px(float(edges[-1])):.1f},{py(0):.1f}")
        parts.append(f'<polygon class="area s{one.colour}" points="{" ".join(steps)}"/>')
    return "".join([*parts, "</svg>"])


def even_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(title: str, x: Axis, y: Axis) -> list[str]:
    px, py = x.place(LEFT, WIDTH - RIGHT), y.place(HEIGHT - BOTTOM, TOP)
    floor = HEIGHT - BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in y.ticks:
        at = py(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{format(tick, y.form)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>')
    for tick in x.ticks:
        at = px(tick)
        parts.append(f'<line class="axis" x1="{at:.1f}" y1="{floor}" x2="{at:.1f}" y2="{floor + 4}"/>')
        parts.append(f'<text x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{format(tick, x.form)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    at = (TOP + floor) / 2
    turned = f'transform="rotate(-90 12 {at:.0f})"'
    parts.append(f'<text x="12" y="{at:.0f}" text-anchor="middle" {turned}>{escape(y.label)}</text>')
    return parts
