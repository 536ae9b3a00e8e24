"""What `benchmarks/search.py` measured, as tables and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BARS = {
    "recall": "recall@10 >= 0.99",
    "p50": "single query p50 <= 2 ms, one and all processors",
    "p99": "single query p99 <= 6 ms, one and all processors",
    "ram": ">= 0.95 of the same search in RAM, every ratio",
    "per_byte": "more queries/s per resident byte than every peer at recall 0.99",
    "disk": "more queries/s than every disk-resident peer at recall 0.99",
    "open": "open <= 20 ms",
}


def setting_text(setting: dict[str, int]) -> str:
    return " ".join(f"{name} {value}" for name, value in setting.items()) or "-"


def tables(whole: dict[str, Any]) -> str:
    main = next(one for one in whole["sizes"] if one["rows"] == whole["main"])
    lines = [
        f"{main['rows']:,} rows x {whole['dim']}, {whole['cpus']} CPUs, load at end {whole['load_at_end']:.1f}",
        "",
    ]
    lines += comparison(main)
    if len(whole["sizes"]) > 1:
        lines += ["", "How cost grows (ours)", *growth(whole["sizes"])]
    lines += ["", *(f"{'met' if ok else 'MISSED':7} {BARS[name]}" for name, ok in whole["met"].items())]
    return "\n".join(lines)


def comparison(result: dict[str, Any]) -> list[str]:
    head = "engine        setting                  recall |  p50    p99  ms   single/s  batch/s |"
    head += "  p50    p99  ms   single/s  batch/s |   open ms |  B/row disk  anon  file | batch/s per B/row | ours/it"
    lines = [" " * 46 + "| one processor" + " " * 21 + "| all processors", head]
    ours = result["engines"].get("ours")
    for name, one in result["engines"].items():
        line = f"{name:13} {setting_text(one['best']['setting']):24} {one['best']['recall']:.4f} |"
        for threads in ("one", "all"):
            it = one[threads]
            line += f" {it['p50_ms']:6.2f} {it['p99_ms']:6.2f} {it['single_qps']:10,.0f} {it['batch_qps']:9,.0f} |"
        disk = f"{one['disk_bytes_per_row']:9,.0f}" if one["disk_bytes_per_row"] else " " * 8 + "-"
        anon, file = (one["one"][kind] / result["rows"] for kind in ("anon", "file"))
        dense = one["one"]["batch_qps"] / one["bytes_per_row"]
        line += f" {one['open_ms']:9,.1f} |  {disk} {anon:5,.0f} {file:5,.0f} | {dense:17.2f} |"
        if ours:
            line += f" {ours['one']['batch_qps'] / one['one']['batch_qps']:7.2f}"
        lines.append(line)
    lines += [f"{name:13} {why}" for name, why in result["missing"].items()]
    if ours:
        lines += ["", *against(result)]
        lines += [
            f"ours, {threads} processor(s): open after {it['open_ms']:.1f} ms, an answer {it['first_query_ms']:.1f} ms "
            f"later, all of it in memory {it['settled_ms']:,.0f} ms after the start"
            for threads in ("one", "all")
            for it in [ours[threads]]
        ]
        tuned = ours["tuned"]
        lines.append(
            f"\nours as it was tuned on other queries: {setting_text(tuned['setting'])}, recall {tuned['recall']:.4f}, "
            f"{tuned['qps']:,.0f} queries/s in batches on one processor"
        )
        for name in (name for name, one in result["engines"].items() if "ram_one" in one):
            for threads in ("one", "all"):
                for what in ("single", "batch"):
                    it = result["engines"][name][f"ram_{threads}"][what]
                    lines.append(
                        f"{name:8} / same in RAM, {threads} processor(s), {what:6}  {it['ratio']:.3f}   "
                        f"{it['lowest']:.3f} to {it['highest']:.3f}"
                    )
    return lines


def against(result: dict[str, Any]) -> list[str]:
    """Ours over each other engine at its headline, in queries/s and in queries/s per resident byte; below 1 it wins."""
    ours = result["engines"]["ours"]
    modes = [(threads, what) for threads in ("one", "all") for what in ("single", "batch")]
    head = "  ".join(f"{what:>6} {threads:3}" for threads, what in modes)
    lines = [f"ours over           queries/s: {head}   queries/s per byte: {head}"]
    for name, other in result["engines"].items():
        if name == "ours":
            continue
        plain = [ours[threads][f"{what}_qps"] / other[threads][f"{what}_qps"] for threads, what in modes]
        dense = [ratio * other["bytes_per_row"] / ours["bytes_per_row"] for ratio in plain]
        cells = ["  ".join(f"{ratio:10.2f}" for ratio in ratios) for ratios in (plain, dense)]
        note = "" if other["best"]["recall"] >= 0.99 else f"   (recall {other['best']['recall']:.4f} only)"
        lines.append(f"{name:30} {cells[0]}   {' ' * 19} {cells[1]}{note}")
    return lines


def growth(sizes: list[dict[str, Any]]) -> list[str]:
    head = "     rows  setting                  recall |  p50    p99  ms   single/s  batch/s | open ms |"
    lines = [head + " B/row disk  file | ratio"]
    for result in sizes:
        one = result["engines"].get("ours")
        if one is None:
            continue
        it = one["one"]
        lines.append(
            f"{result['rows']:9,}  {setting_text(one['best']['setting']):24} {one['best']['recall']:.4f} |"
            f" {it['p50_ms']:6.2f} {it['p99_ms']:6.2f} {it['single_qps']:10,.0f} {it['batch_qps']:9,.0f} |"
            f" {one['open_ms']:7.1f} | {one['disk_bytes_per_row']:10,.0f} {it['file'] / result['rows']:5,.0f} |"
            f" {min(one['ram_one'][what]['ratio'] for what in ('single', 'batch')):.3f}"
        )
    return lines


def front(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that no other beats in both recall and queries/s, by rising recall."""
    best: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda one: (-one["recall"], -one["qps"])):
        if not best or point["qps"] > best[-1]["qps"]:
            best.append(point)
    return best[::-1]


def plot(whole: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    main = next(one for one in whole["sizes"] if one["rows"] == whole["main"])
    figure, (curves, memory) = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    for number, (name, one) in enumerate(main["engines"].items()):
        colour, thick = f"C{number}", 2.5 if name == "ours" else 1.2
        points = [point for point in front(one["points"]) if point["recall"] >= 0.85]
        recalls, rates = [p["recall"] for p in points], [p["qps"] for p in points]
        curves.plot(recalls, rates, "o-", label=name, color=colour, linewidth=thick, markersize=4)
        memory.scatter(one["bytes_per_row"], one["one"]["batch_qps"], color=colour, s=60)
        reached = "" if one["best"]["recall"] >= 0.99 else f" (recall {one['best']['recall']:.3f})"
        label = f" {name}{reached}"
        memory.annotate(label, (one["bytes_per_row"], one["one"]["batch_qps"]), color=colour, fontsize=9)
    curves.axvline(0.99, color="grey", linewidth=0.8, linestyle=":")
    curves.set(xlabel="recall@10", ylabel="queries/s, batches of 512, one processor", yscale="log")
    curves.set_title(f"{main['rows']:,} rows x {whole['dim']}")
    curves.legend(fontsize=8)
    memory.set(
        xlabel="resident bytes per row (anonymous + file-backed)", ylabel="queries/s at recall 0.99", yscale="log"
    )
    memory.set_title("at the headline setting: up and to the left is better")
    memory.margins(x=0.2, y=0.15)
    for axes in (curves, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
