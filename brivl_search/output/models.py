"""What `models list`, `models show` and `models runtimes` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from brivl_search.display import harmless
from brivl_search.encoders.inventory import Entry, Helper, OnDisk
from brivl_search.encoders.known import Figure, KnownModel
from brivl_search.encoders.recommended import RECOMMENDED, Advice, purposes_of
from brivl_search.encoders.runtimes.measured import Measured
from brivl_search.encoders.speeds import Speed
from brivl_search.errors import install_hint
from brivl_search.output.console import human_bytes, show, table

if TYPE_CHECKING:
    from brivl_search.evaluation.hub_fitting import HubFit
    from brivl_search.evaluation.speed import Failed


def show_models(
    entries: Sequence[Entry], purposes: Mapping[str, str] | None = None, helpers: Sequence[Helper] = ()
) -> None:
    """Encoders, a line each; then which to take for what; then matchers and captioners.

    Args:
        entries: what there is.
        purposes: what each purpose is called; None: as `recommended` calls it.
        helpers: what other options take.
    """
    models = table()
    models.add_column("encoder", overflow="fold")
    models.add_column("languages")
    models.add_column("dim", justify="right")
    models.add_column("size", justify="right", no_wrap=True)
    models.add_column("on disk")
    for entry in entries:
        dim = "" if entry.dim is None else str(entry.dim)
        languages = entry.known.languages if entry.known else ""
        models.add_row(Text(harmless(entry.name)), languages, dim, _size(entry), Text(harmless(_where(entry))))
    show(models)
    by_name = {entry.name: entry for entry in entries}
    advised = [advice for advice in RECOMMENDED if advice.name in by_name]
    if advised:
        show("")
        show(_advice_table(advised, by_name, purposes or {}))
    if helpers:
        show("")
        show(_helper_table(helpers))
    show(Text("\nmodels show NAME: notes, and published figures with their sources", style="dim"))
    show(Text("models bench NAME: how fast it is here", style="dim"))


def _helper_table(helpers: Sequence[Helper]) -> Table:
    """What re-orders hits or writes captions: how it is called, the option that takes it, what it is."""
    out = table("Matchers re-order the first hits, captioners write captions; a FOLDER of your own is taken too")
    out.add_column("name", overflow="fold")
    out.add_column("option", no_wrap=True)
    out.add_column("what", overflow="fold")
    out.add_column("size", justify="right", no_wrap=True)
    out.add_column("on disk")
    for one in helpers:
        name, what = Text(harmless(one.name)), Text(f"{one.kind}; {one.note}" if one.note else one.kind)
        out.add_row(
            name,
            f"--{one.argument.replace('_', '-')}",
            what,
            _millions(one.parameters),
            Text(harmless(_places(one.disk))),
        )
    return out


def _advice_table(advised: Sequence[Advice], by_name: Mapping[str, Entry], purposes: Mapping[str, str]) -> Table:
    """Which to take: licence, size, one published figure, and the speed that was measured here."""
    out = table("Which to take (published figures; those of different tests cannot be compared)")
    out.add_column("for", no_wrap=True)
    out.add_column("encoder", overflow="fold")
    out.add_column("licence")
    out.add_column("size", justify="right", no_wrap=True)
    out.add_column("dim", justify="right")
    out.add_column("R@1 text → image, image → text", overflow="fold")
    out.add_column("images/s here", justify="right", no_wrap=True)
    before = ""
    for advice in advised:
        entry = by_name[advice.name]
        known = entry.known
        shown = "" if advice.purpose == before else purposes.get(advice.purpose, advice.purpose)
        before = advice.purpose
        out.add_row(
            shown,
            Text(advice.name),
            known.licence if known else "",
            _size(entry),
            "" if entry.dim is None else str(entry.dim),
            Text(_first_figures(known)),
            "not measured" if entry.relative is None else f"{entry.relative:.2g} × brivl-mini",
        )
    return out


def _first_figures(known: KnownModel | None) -> str:
    """R@1 both ways on the test whose both ways are known, else of the first figure; "" where none is published."""
    if known is None or not known.figures:
        return "its model card" if known is not None and known.name == "brivl-mini" else ""
    ways: dict[str, dict[str, float]] = {}
    for figure in known.figures:
        if figure.recall:
            ways.setdefault(figure.test, {})[figure.direction] = figure.recall[0]
    both = {"text → image", "image → text"}
    test = next((test for test, found in ways.items() if both <= found.keys()), next(iter(ways), ""))
    found = ways.get(test, {})
    if both <= found.keys():
        return f"{found['text → image']:.1f}, {found['image → text']:.1f} ({test})"
    return ", ".join(f"{value:.1f}" for value in found.values()) + (f" ({test})" if found else "")


def show_speeds(found: Sequence[Speed | Failed]) -> None:
    """What `models bench` measured, a line an encoder; those that could not be had are left to the caller."""
    speeds = [one for one in found if isinstance(one, Speed)]
    if not speeds:
        return
    out = table(f"{speeds[0].machine}")
    out.add_column("encoder", overflow="fold")
    for title in ("images/s", "× brivl-mini", "texts/s", "memory", "first text, s", "+ first picture, s"):
        out.add_column(title, justify="right", no_wrap=True)
    out.add_column("device, precision")
    for one in speeds:
        gpu = f" + {human_bytes(one.gpu_memory)} of the GPU" if one.gpu_memory is not None else ""
        out.add_row(
            Text(harmless(one.name)),
            _rate(one.images),
            "" if one.relative is None else f"{one.relative:.2g}",
            _rate(one.texts),
            ("" if one.memory is None else human_bytes(one.memory)) + gpu,
            f"{one.text_ready:.1f}",
            f"{one.image_ready:.1f}",
            ", ".join([one.device, one.precision, *one.options.values()]),
        )
    show(out)
    show(Text("images/s, texts/s: the towers in batches; decoding excluded. memory: of the process at its peak"))


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(entry: Entry) -> str:
    return _millions(entry.parameters)


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count:,.{0 if count >= 10 else 1}f}M"


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
        "licence": entry.known.licence if entry.known else "",
        "recommended for": ", ".join(purposes_of(entry.name)),
        "on disk": _where(entry) or "not on this disk",
        "measured here": "; ".join(map(_measured, entry.speeds)),
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


def hub_lines(fit: HubFit) -> list[str]:
    """What a correction for hubs brings, and whether it is kept."""
    if fit.before is None or fit.after is None:
        return [f"hub correction: none: {fit.why}"]
    moves = ", ".join(f"R@{k} {value:.1f} → {fit.after[k]:.1f}" for k, value in fit.before.items())
    low, high = fit.interval
    judged = (
        f"text → image on {fit.queries:,} captions of {fit.photos:,} photos that it was not chosen on: {moves}; "
        f"mean {fit.gain:+.1f} [{low:+.1f}, {high:+.1f}]"
    )
    if fit.correction is None:
        return [f"hub correction: none, {fit.why}", f"  {judged}"]
    kept = fit.correction
    return [
        f"hub correction: less {kept.weight:g} × the mean of a photo's {kept.nearest} nearest of "
        f"{len(kept.references):,} captions",
        f"  {judged}",
    ]


def _measured(one: Speed) -> str:
    beside = "" if one.relative is None else f" ({one.relative:.2g} × brivl-mini)"
    how = ", ".join([one.device, one.precision, *one.options.values()])
    return f"{_rate(one.images)} images/s{beside}, {_rate(one.texts)} texts/s on {how}, {one.measured}"


def _where(entry: Entry) -> str:
    return entry.package or _places(entry.disk)


def _places(disk: Sequence[OnDisk]) -> str:
    return ", ".join(
        f"{one.place}, {human_bytes(one.bytes)}" + ("" if one.complete else ", incomplete") for one in disk
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
