"""Figures of a report, as PNG and SVG bytes that depend on the records alone."""

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.drawing import (
    COLOURS,
    FIRST_SHOWN,
    GREY,
    INK,
    STYLE,
    Drawing,
    budget_axis,
    label_ends,
    lower_hull,
    plot_curve,
)
from benchmark.report.frames import Row, rows
from benchmark.report.verdicts import BEST_FIXED, SCRATCH

N_COLUMNS = 4


def draw(analysis: Analysis) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every figure file."""
    drawing, watermark = Drawing(analysis), analysis.frames.suite.watermark
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        for name, plot in PLOTS.items():
            figure = plot(drawing)
            if watermark:
                look: dict[str, Any] = {
                    "fontsize": 44,
                    "color": GREY,
                    "alpha": 0.25,
                    "rotation": 25,
                }
                figure.text(0.45, 0.5, watermark, ha="center", va="center", **look)
            png, svg = io.BytesIO(), io.BytesIO()
            figure.savefig(png, format="png", metadata={"Software": None})
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
            yield f"{name}.png", png.getvalue()
            yield f"{name}.svg", svg.getvalue()


def curves_flops(drawing: Drawing) -> Figure:
    """Every method against compute, named at the end of its line."""
    runs = drawing.analysis.frames.runs
    figure = Figure(figsize=(9.6, 5.6))
    axes = figure.add_axes((0.065, 0.09, 0.7, 0.82))
    axes.set_title("Held-out bits per byte against training compute", loc="left", pad=12)
    note = (
        f"mean and range over seeds; {SCRATCH}: black, annealed at smaller budgets: diamonds; best "
        "fixed size: black dashes; growth: circle"
    )
    axes.text(0, 1.01, note, transform=axes.transAxes, color=GREY, fontsize=7.5)
    for name in drawing.looks:
        plot_curve(axes, drawing, name, "flops")
    rungs = runs[(runs.role == "rung") & np.isfinite(runs.curve_bpb)]
    at = rungs.groupby("method", sort=False)[["budget_flops", "curve_bpb"]].mean()
    axes.plot(at.budget_flops, at.curve_bpb, "D", color=INK, markersize=5, zorder=6)
    budget_axis(axes, drawing.budget)
    axes.set_ylim(*drawing.limits)
    axes.set_xlabel(f"training compute; C* = {formats.flops(drawing.budget)} FLOPs")
    axes.set_ylabel("bits per byte, validation slice")
    label_ends(axes, drawing)
    return figure


def curves_tokens_time(drawing: Drawing) -> Figure:
    """The same curves against bytes read and against wall-clock."""
    figure = Figure(figsize=(9.6, 4.2))
    left, right = (figure.add_axes((x, 0.12, 0.34, 0.84)) for x in (0.065, 0.45))
    panels = (
        (left, "tokens", "bytes predicted in training", formats.count),
        (right, "seconds", "wall-clock of training and growth", formats.seconds),
    )
    for axes, column, label, shown in panels:
        for name in drawing.looks:
            plot_curve(axes, drawing, name, column)
        last = max((drawing.curves[n][column].iloc[-1] for n in drawing.looks), default=0) or 1.0
        axes.set_xscale("log")
        axes.set_xlim(FIRST_SHOWN * last, 1.05 * last)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, shown=shown: shown(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(*drawing.limits)
        axes.set_xlabel(label)
    left.set_ylabel("bits per byte, validation slice")
    order = sorted(drawing.looks, key=lambda name: -drawing.curves[name].bpb.iloc[-1])
    lines = {str(line.get_label()): line for line in right.get_lines()}
    figure.legend([lines[name] for name in order], order, loc="center left", fontsize=7.5,
                  bbox_to_anchor=(0.81, 0.5), handlelength=2.6)  # fmt: skip
    return figure


def methods(drawing: Drawing) -> Figure:
    """One panel per method, beside scratch and the best fixed size."""
    summary = {row["method"]: row for row in rows(drawing.analysis.tables["summary"])}
    names = [name for name in drawing.analysis.frames.methods("method") if name in drawing.curves]
    n_columns = min(N_COLUMNS, max(1, len(names)))
    n_rows = max(1, math.ceil(len(names) / n_columns))
    figure = Figure(figsize=(9.6, 0.75 + 1.75 * n_rows))
    height = figure.get_figheight()
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(0.06, 0.42 / height, 0.985, 1 - 0.62 / height, 0.08, 0.34)
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.set_axis_off()
            continue
        for name in dict.fromkeys((SCRATCH, drawing.analysis.controls.best_fixed, names[i])):
            if name in drawing.looks:
                plot_curve(axes, drawing, name, "flops")
        axes.set_title(names[i], loc="left", fontsize=8.5, fontweight="bold", pad=12)
        note = _gap_or_status(summary[names[i]])
        axes.text(0, 1.04, note, fontsize=7, color=GREY, transform=axes.transAxes)
        axes.tick_params(labelbottom=i + n_columns >= len(names))
        budget_axis(axes, drawing.budget)
        axes.set_ylim(*drawing.limits)
    title = (
        f"Each method, {SCRATCH} (black) and the best fixed size (dashed): bits per byte against "
        f"compute; below each name: test bpb minus {SCRATCH}"
    )
    figure.text(0.06, 1 - 0.2 / height, title, va="center")
    return figure


def differences(drawing: Drawing) -> Figure:
    """Paired difference of every method to scratch and to the best fixed size."""
    summary = drawing.analysis.tables["summary"]
    shown = summary[summary.role == "method"].iloc[::-1]
    figure = Figure(figsize=(9.6, 0.95 + 0.3 * max(1, len(shown))))
    height = figure.get_figheight()
    axes = figure.add_axes((0.17, 0.45 / height, 0.55, 1 - 0.85 / height))
    axes.axvline(0, color=INK, linewidth=0.9)
    marks = ((SCRATCH, "o", 0.13, COLOURS[0]), (BEST_FIXED, "s", -0.13, COLOURS[1]))
    for against, marker, offset, colour in marks:
        y = np.arange(len(shown)) + offset
        low, high = (shown[f"vs_{against}_{side}"] for side in ("low", "high"))
        axes.hlines(y, low, high, color=colour, linewidth=1.6)
        values = shown[f"vs_{against}"].replace(math.inf, math.nan)
        axes.plot(values, y, marker, color=colour, markersize=4.5, label=f"minus {against}")
    for i, row in enumerate(rows(shown)):
        note = row["verdict"] if row["status"] == "done" else f"{row['verdict']}; {row['status']}"
        axes.text(1.02, i, note, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), list(shown.method))
    axes.set_ylim(-0.6, max(1, len(shown)) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("difference in test bits per byte: left of zero is better")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
    return figure


def hull(drawing: Drawing) -> Figure:
    """Test bpb of every fixed size at C*, and where the target lies among them."""
    tables = drawing.analysis.tables
    sizes = tables["hull"][np.isfinite(tables["hull"].test_bpb)]
    grown = tables["summary"][tables["summary"].role == "method"]
    target = sizes[sizes.is_target]
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.add_axes((0.11, 0.12, 0.82, 0.78))
    axes.set_title("Which fixed size is best at C*?", loc="left")
    axes.vlines(sizes.n_params, sizes.test_bpb_min, sizes.test_bpb_max, color=INK, linewidth=1.2)
    axes.plot(sizes.n_params, sizes.test_bpb, "o", color=INK, markersize=5, label="fixed size")
    corners = lower_hull(list(sizes.n_params), list(sizes.test_bpb))
    axes.plot(*corners, color=GREY, linewidth=1, zorder=1)
    bpb = grown.test_bpb.replace(math.inf, math.nan)
    axes.plot(
        grown.n_params, bpb, "_", color=COLOURS[0], markersize=11, label="grown to the target"
    )
    star: dict[str, Any] = {
        "color": COLOURS[1],
        "markersize": 13,
        "label": f"the target: {SCRATCH}",
    }
    axes.plot(target.n_params, target.test_bpb, "*", **star)
    for row in rows(sizes):
        axes.annotate(row["method"], (row["n_params"], row["test_bpb"]), (4, 6), fontsize=7.5,
                      rotation=28, textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = _apart(list(sizes.n_params))
    axes.set_xticks(ticks, [formats.count(n) for n in ticks])
    axes.set_xlabel("parameters")
    axes.set_ylabel("bits per byte, test; bar: lowest to highest seed")
    axes.legend(fontsize=7.5)
    return figure


PLOTS: dict[str, Callable[[Drawing], Figure]] = {
    "curves_flops": curves_flops,
    "curves_tokens_time": curves_tokens_time,
    "methods": methods,
    "differences": differences,
    "hull": hull,
}


def _gap_or_status(row: Row) -> str:
    if row["status"] != "done":
        return str(row["status"])
    names = (f"vs_{SCRATCH}{side}" for side in ("", "_low", "_high"))
    return formats.difference(*(row[name] for name in names))


def _apart(sizes: list[float]) -> list[float]:
    kept: list[float] = []
    for size in sizes:
        if not kept or size > kept[-1] * (sizes[-1] / sizes[0]) ** 0.07:
            kept.append(size)
    return kept
