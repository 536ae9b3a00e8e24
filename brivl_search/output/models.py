"""What `models list`, `models show` and `models runtimes` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from brivl_search.display import harmless
from brivl_search.encoders.inventory import Entry
from brivl_search.encoders.known import Figure
from brivl_search.encoders.runtimes.measured import Measured
from brivl_search.errors import install_hint
from brivl_search.output.console import human_bytes, show, table


def show_models(entries: Sequence[Entry]) -> None:
    """Encoders, a line each."""
    models = table()
    models.add_column("encoder", overflow="fold")
    models.add_column("languages")
    models.add_column("dim", justify="right")
    models.add_column("size", justify="right", no_wrap=True)
    models.add_column("on disk")
    for entry in entries:
        size = "" if entry.parameters is None else f"{entry.parameters:,.{0 if entry.parameters >= 10 else 1}f}M"
        dim = "" if entry.dim is None else str(entry.dim)
        languages = entry.known.languages if entry.known else ""
        models.add_row(Text(harmless(entry.name)), languages, dim, size, Text(harmless(_where(entry))))
    show(models)
    show(Text("\nmodels show NAME: notes and published figures of one", style="dim"))


def show_model(entry: Entry) -> None:
    """All that is known of an encoder: facts, notes, then its published figures with their sources."""
    facts = table()
    facts.show_header = False
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("encoder", Text(harmless(entry.name)))
    rows = {
        "languages": entry.known.languages if entry.known else "",
        "dimensions": "" if entry.dim is None else str(entry.dim),
        "parameters": "" if entry.parameters is None else f"{entry.parameters:,.4g} million",
        "on disk": _where(entry) or "not on this disk",
        "notes": "; ".join(_notes(entry)),
    }
    for name, value in rows.items():
        if value:
            facts.add_row(name, Text(harmless(value)))
    show(facts)
    if entry.known is None or not entry.known.figures:
        return
    sources = list(dict.fromkeys(figure.source for figure in entry.known.figures))
    show("")
    figures = table("Published retrieval figures, % (not measured here)")
    figures.add_column("test")
    figures.add_column("direction")
    figures.add_column("R@1 / 5 / 10", justify="right", no_wrap=True)
    figures.add_column("", no_wrap=True)
    for figure in entry.known.figures:
        mark = Text(f"[{sources.index(figure.source) + 1}]")
        figures.add_row(Text(figure.test), figure.direction, _recall(figure), mark)
    show(figures)
    for number, source in enumerate(sources, 1):
        show(Text(f"[{number}] {source}"))


def _where(entry: Entry) -> str:
    if entry.package:
        return entry.package
    return ", ".join(
        f"{one.place}, {human_bytes(one.bytes)}" + ("" if one.complete else ", incomplete") for one in entry.disk
    )


def _notes(entry: Entry) -> list[str]:
    if entry.known is None:
        return []
    notes = [entry.known.note] if entry.known.note else []
    if entry.known.needs:
        notes.append(f"needs {install_hint(entry.known.needs)}")
    if entry.known.matryoshka:
        shortest, longest = entry.known.matryoshka[0], entry.known.matryoshka[-1]
        notes.append(f"--truncate-dim {shortest} to {longest}")
    return notes


def _recall(figure: Figure) -> str:
    if figure.mean_recall is not None:
        return f"mean {figure.mean_recall:.1f}"
    return " / ".join(f"{value:.1f}" for value in figure.recall)


def show_runtimes(ways: Sequence[Measured], best: Measured | None) -> None:
    """What `models runtimes` measured."""
    out = table("image tower")
    out.add_column("runtime")
    for title in ("images/s", "", "cosine", "R@10", "lost"):
        out.add_column(title, justify="right")
    for way in ways:
        recall = ["", ""] if way.recall is None else [f"{way.recall:.1f}", f"{way.lost or 0:+.1f}"]
        name = f"{way.choice}{'  (auto)' if way == best else ''}"
        out.add_row(name, f"{way.rate:.1f}", f"{way.rate / ways[0].rate:.2f} ×", f"{way.cosine:.4f}", *recall)
    show(out)
