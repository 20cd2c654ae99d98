"""Figures of loss during training."""

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmark.report import formats
from benchmark.report.controls import SCRATCH
from benchmark.report.drawing import (
    FAINT,
    FIRST_SHOWN,
    GREY,
    INK,
    LINE,
    TINY,
    WIDTH,
    Drawing,
    Look,
    Plot,
    budget_axis,
    iso_loss_arrow,
    label_lines,
    margin_for,
    plot_curve,
    plot_curves,
)
from benchmark.report.frames import CURVE, Row, rows
from benchmark.report.statistics import MIN_SEEDS

N_COLUMNS = 3
NOTE = 95
"""Letters of a line below a title."""

WHOLE = 0.98
"""Share of C* from which a curve counts as finished."""

LONG = 25
"""Letters of a name that needs a wider panel."""


def curves_flops(drawing: Drawing) -> Plot:
    """Every method against compute, named at the end of its line."""
    ends = {name: drawing.curves[name].iloc[-1] for name in drawing.looks}
    whole = [name for name, end in ends.items() if end.flops > WHOLE * drawing.budget]
    labelled = [name for name in whole if name in drawing.named]
    height = max(3.4, 1.0 + LINE * len(labelled))
    figure = Figure(figsize=(WIDTH, height))
    width = (0.915 * WIDTH - margin_for(labelled) - 0.25) / 1.07
    axes = figure.add_axes((0.085, 0.38 / height, width / WIDTH, 1 - 0.86 / height))
    axes.set_title("Held-out bits per byte against training compute", loc="left", pad=21)
    plot_curves(axes, drawing, "flops")
    rungs = _rungs(drawing)
    axes.plot(rungs.flops, rungs.bpb, "D", color=INK, markersize=3.5, zorder=6)
    budget_axis(axes, drawing.budget)
    axes.set_ylim(*drawing.limits)
    axes.set_xlabel(f"training compute; C* = {formats.flops(drawing.budget)} FLOPs")
    axes.set_ylabel("bits per byte, validation slice")
    fastest = max(drawing.faster, key=lambda name: drawing.faster[name]["speed_up"], default="")
    iso_loss_arrow(axes, drawing, fastest, labelled=True)
    note = _what_is_drawn(drawing, has_rungs=len(rungs) > 0, has_arrow=bool(fastest))
    axes.text(0, 1.015, note, transform=axes.transAxes, color=GREY, fontsize=TINY)
    other = Look(GREY, "-")
    labels = [
        (ends[n].bpb, f"{ends[n].bpb:.3f}  {n}",
         drawing.looks[n] if n in drawing.prominent else other)
        for n in labelled
    ]  # fmt: skip
    label_lines(axes, labels, LINE / (height - 0.86))
    for name in (name for name in ends if name not in whole):
        axes.annotate(name, (ends[name].flops, ends[name].bpb), (4, 0), fontsize=TINY,
                      textcoords="offset points", va="center")  # fmt: skip
    return Plot(figure, pd.concat([_data(drawing), rungs], ignore_index=True))


def curves_tokens_time(drawing: Drawing) -> Plot:
    """The same curves against bytes read and against wall-clock."""
    figure = Figure(figsize=(WIDTH, 3.0))
    left, right = (figure.add_axes((x, 0.28, 0.405, 0.69)) for x in (0.085, 0.565))
    panels = (
        (left, "tokens", "bytes predicted in training", formats.count),
        (right, "seconds", "wall-clock of training and growth", formats.seconds),
    )
    for axes, column, label, shown in panels:
        plot_curves(axes, drawing, column)
        last = max((drawing.curves[n][column].iloc[-1] for n in drawing.looks), default=0) or 1.0
        axes.set_xscale("log")
        axes.set_xlim(FIRST_SHOWN * last, 1.05 * last)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, shown=shown: shown(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(*drawing.limits)
        axes.set_xlabel(label)
    left.set_ylabel("bits per byte, validation slice")
    handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    names = [*drawing.prominent, *([FAINT] if len(drawing.prominent) < len(drawing.looks) else [])]
    look: dict[str, Any] = {"ncols": 5, "handlelength": 2.4, "columnspacing": 1.2}
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0)}
    figure.legend([handles[name] for name in names], names, **place, **look)
    return Plot(figure, _data(drawing))


def methods(drawing: Drawing) -> Plot:
    """One panel per method, beside scratch and the best fixed size."""
    summary = {row["method"]: row for row in rows(drawing.analysis.tables["summary"])}
    every = [name for name in drawing.analysis.frames.methods("method") if name in drawing.curves]
    names = [name for name in every if name in drawing.named]
    n_columns = min(N_COLUMNS if max(map(len, names), default=0) <= LONG else N_COLUMNS - 1,
                    max(1, len(names)))  # fmt: skip
    n_rows = max(1, math.ceil(len(names) / n_columns))
    height = 0.75 + 1.3 * n_rows
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(0.07, 0.3 / height, 0.98, 1 - 0.62 / height, 0.1, 0.42)
    budget_axis(grid[0, 0], drawing.budget)  # all panels share their axes
    grid[0, 0].set_ylim(*drawing.limits)
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.set_axis_off()
            continue
        for name in dict.fromkeys((SCRATCH, drawing.analysis.controls.best_fixed, names[i])):
            if name in drawing.looks:
                plot_curve(axes, drawing, name, "flops")
        axes.set_title(names[i], loc="left", fontsize=7, fontweight="bold", pad=9)
        note = _gap_or_status(summary[names[i]])
        axes.text(0, 1.03, note, fontsize=TINY, color=GREY, transform=axes.transAxes)
        axes.tick_params(labelbottom=i + n_columns >= len(names))
        iso_loss_arrow(axes, drawing, names[i], labelled=False)
    which = "Each method" if names == every else f"The best {len(names)} of {len(every)} methods"
    best = drawing.analysis.controls.best_fixed
    dashed = ["the best fixed size (dashed)"] if best in drawing.looks and best != SCRATCH else []
    lines = [which, *[f"{SCRATCH} (black)"] * (SCRATCH in drawing.looks), *dashed]
    arrow = f". Arrow: compute to {SCRATCH}'s loss" * any(name in drawing.faster for name in names)
    title = (
        f"{formats.listed(lines)}: bits per byte against compute.\n"
        f"Below each name: test bpb minus {SCRATCH}{arrow}"
    )
    figure.text(0.07, 1 - 0.06 / height, title, va="top")
    return Plot(figure, _data(drawing))


def _what_is_drawn(drawing: Drawing, *, has_rungs: bool, has_arrow: bool) -> str:
    """The parts of a figure of curves, in two lines; none that it does not have."""
    n = max((int(drawing.curves[name].n.iloc[0]) for name in drawing.looks), default=0)
    best = drawing.analysis.controls.best_fixed
    band = "95 % interval" if n >= MIN_SEEDS else "lowest to highest"
    parts = {
        "mean over seeds": n > 1,
        f"{band} for scratch and the best method": n > 1,
        "growth: circle": any(drawing.growths.get(name) for name in drawing.looks),
        "black: scratch": SCRATCH in drawing.looks,
        "annealed at smaller budgets: diamonds": has_rungs,
        "dashed: best fixed size": best != SCRATCH and best in drawing.looks,
        "arrow: compute to scratch's loss": has_arrow,
    }
    return textwrap.fill("; ".join(part for part, is_drawn in parts.items() if is_drawn), NOTE)


def _data(drawing: Drawing) -> pd.DataFrame:
    curves = [drawing.curves[name].assign(method=name, what="curve") for name in drawing.looks]
    growths = [row for name, own in drawing.growths.items() if name in drawing.looks for row in own]
    means = pd.DataFrame(growths, columns=["method", *CURVE[:-1], "bpb_before"])
    means = means.rename(columns={"bpb_before": "bpb"}).assign(what="growth")
    table = pd.concat([*curves, means], ignore_index=True)
    return table[["method", "what", *table.columns.drop(["method", "what"])]]


def _rungs(drawing: Drawing) -> pd.DataFrame:
    """Where the annealed runs at smaller budgets end."""
    runs = drawing.analysis.frames.runs
    rungs = runs[(runs.role == "rung") & np.isfinite(runs.curve_bpb)]
    columns: dict[str, Any] = {"flops": "budget_flops", "tokens": "tokens", "seconds": "seconds",
                               "bpb": "curve_bpb"}  # fmt: skip
    means = rungs.groupby("method", sort=False).agg(
        **{name: (column, "mean") for name, column in columns.items()}
    )
    return means.reset_index().assign(what="annealed end")


def _gap_or_status(row: Row) -> str:
    if row["status"] != "done":
        return str(row["status"])
    names = (f"vs_{SCRATCH}{side}" for side in ("", "_low", "_high"))
    return formats.difference(*(row[name] for name in names))
