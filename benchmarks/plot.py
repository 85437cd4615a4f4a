"""The run as a picture: one panel per kind of figure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.engines import OURS
from benchmarks.report import machine_line
from benchmarks.results import Results

_OWN, _OTHER, _MUTED, _TEXT = "#0f766e", "#94a3b8", "#cbd5e1", "#0f172a"
_PANEL = (6.4, 3.4)
_ROWS_LEAST = 5


def plot(results: Results, path: Path) -> bool:
    """Write a PNG; False where there is nothing to show."""
    panels: list[tuple[Callable[[Axes, dict[str, Any]], None], dict[str, Any]]] = [
        (draw, figures) for part, draw in _PANELS if _has(part, figures := results.figures(part))
    ]
    if not panels:
        return False
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": _MUTED,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
    }
    with mpl.rc_context(style):
        figure, axes = plt.subplots(rows, columns, figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.6), squeeze=False)
        figure.set_layout_engine("constrained", h_pad=0.14, w_pad=0.14, hspace=0.06, wspace=0.04)
        places = [place for row in axes for place in row]
        for place, (draw, figures) in zip(places, panels, strict=False):
            draw(place, figures)
        for place in places[len(panels) :]:
            place.set_axis_off()
        figure.suptitle(_caption(results), fontsize=8, color="#475569", x=0.01, ha="left")
        figure.savefig(path, dpi=130, facecolor="white")
        plt.close(figure)
    return True


def _caption(results: Results) -> str:
    head, _, tail = machine_line(results).partition("; load")
    return f"{head}\nload{tail}"


def _has(part: str, figures: dict[str, Any]) -> bool:
    return bool(
        {"throughput": figures.get("engines"), "recovery": figures.get("runs"), "scaling": figures.get("workers")}.get(
            part, figures
        )
    )


def _bars(axes: Axes, title: str, rows: list[tuple[str, float, bool]], unit: str, *, log: bool = False) -> None:
    """Horizontal bars, the first row on top; ours in colour, each with its figure at its end."""
    names = [name for name, _, _ in rows]
    values = [value for _, value, _ in rows]
    bars = axes.barh(range(len(rows)), values, color=[_OWN if own else _OTHER for _, _, own in rows], height=0.66)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors="#64748b", labelsize=7.5)
    axes.grid(axis="x", color="#e2e8f0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title)
    axes.set_xlabel(unit, fontsize=8)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2.5, max(values) * 4)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max(values) * 1.18 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    # two bars shall not be as thick as eight are together
    axes.set_ylim(max(len(rows), _ROWS_LEAST) - 0.5, -0.5)
    axes.bar_label(bars, labels=[_short(value) for value in values], padding=9, fontsize=8.5)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1e3:
        return f"{value / 1e3:.3g} k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _throughput(axes: Axes, figures: dict[str, Any]) -> None:
    engines = sorted(figures["engines"].items(), key=lambda item: -item[1]["events_per_s"]["median"])
    rows = [
        (
            name + ("" if content["durable"] != "none" else " *"),
            content["events_per_s"]["median"],
            name.startswith(OURS),
        )
        for name, content in engines
    ]
    _bars(axes, "Windowed aggregation", rows, "events/s, log scale   (* nothing durable)", log=True)
    rates = [content["events_per_s"] for _, content in engines]
    axes.errorbar(
        [rate["median"] for rate in rates],
        range(len(rates)),
        xerr=[[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]],
        fmt="none",
        ecolor="#334155",
        elinewidth=1,
        capsize=2,
    )


def _cost(axes: Axes, figures: dict[str, Any]) -> None:
    engines = sorted(figures["engines"].items(), key=lambda item: item[1]["cpu_s_per_million"]["median"])
    rows = [(name, content["cpu_s_per_million"]["median"], name.startswith(OURS)) for name, content in engines]
    _bars(axes, "Processor time of the engine", rows, "CPU seconds per million events, log scale", log=True)


def _latency(axes: Axes, figures: dict[str, Any]) -> None:
    rows = []
    for name, content in figures.items():
        who = f"{content['where']}, {content['events_per_s'] / 1000:.0f} k/s"
        own = not name.startswith("kafka")
        rows += [(f"{who}  p50", content["p50_ms"], own), (f"{who}  p99", content["p99_ms"], own)]
    _bars(axes, "Event until visible", rows, "milliseconds")


def _reads(axes: Axes, figures: dict[str, Any]) -> None:
    rows = [
        (content["what"], content["requests_per_s"], name != "bare")
        for name, content in figures.items()
        if not name.startswith("paced")
    ]
    _bars(axes, "Point reads, 16 connections", rows, "requests/s")


def _recovery(axes: Axes, figures: dict[str, Any]) -> None:
    rows = [
        (content["what"], content["ready_s"], not name.startswith("kafka")) for name, content in figures["runs"].items()
    ]
    _bars(axes, f"Start to ready, {figures['keys']:,} keys", rows, "seconds")


def _scaling(axes: Axes, figures: dict[str, Any]) -> None:
    numbers = list(figures["workers"])
    own = [figures["workers"][number]["worker_cores"] for number in numbers]
    broker = [figures["workers"][number]["broker_cores"] for number in numbers]
    axes.bar(numbers, own, color=_OWN, width=0.55, label="workers")
    axes.bar(numbers, broker, bottom=own, color=_OTHER, width=0.55, label="broker")
    axes.axhline(figures["cores"], color="#b91c1c", linewidth=1, linestyle="--")
    for place, number in enumerate(numbers):
        rate = _short(figures["workers"][number]["events_per_s"])
        axes.text(place, own[place] + broker[place] + 0.04, f"{rate}/s", ha="center", fontsize=8.5)
    axes.set_ylim(0, max(figures["cores"], *(a + b for a, b in zip(own, broker, strict=True))) * 1.2)
    axes.set_title("Workers on one machine")
    axes.set_xlabel("workers (dashed: the machine's cores)", fontsize=8)
    axes.set_ylabel("cores used", fontsize=8)
    axes.tick_params(colors="#64748b", labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


_PANELS: tuple[tuple[str, Callable[[Axes, dict[str, Any]], None]], ...] = (
    ("throughput", _throughput),
    ("throughput", _cost),
    ("latency", _latency),
    ("reads", _reads),
    ("recovery", _recovery),
    ("scaling", _scaling),
)
