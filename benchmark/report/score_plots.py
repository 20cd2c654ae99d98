"""Figures of final scores: against the controls, by size, by compute."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmark.report import formats
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.drawing import (
    COLOURS,
    GREY,
    INK,
    LINE,
    MOST,
    TINY,
    WIDTH,
    Drawing,
    Look,
    Plot,
    label_lines,
    lower_hull,
    margin_for,
)
from benchmark.report.frames import rows
from benchmark.report.prose import fixed_sizes

AGAINST = {
    SCRATCH: ("o", "scratch"),
    BEST_FIXED: ("s", "best fixed size"),
    "own": ("D", "own control"),
}


def differences(drawing: Drawing) -> Plot:
    """Paired difference of every method to each control of its verdict."""
    summary = drawing.analysis.tables["summary"]
    is_shown = (summary.role == "method") & summary.method.isin(drawing.ranked[:MOST])
    shown = summary[is_shown].iloc[::-1]
    series = {a: _series(shown, a) for a in AGAINST}
    series = {a: table for a, table in series.items() if len(table)}
    height = 0.75 + 0.19 * max(1, len(shown))
    figure = Figure(figsize=(WIDTH, height))
    left = margin_for(list(shown.method)) / WIDTH
    axes = figure.add_axes((left, 0.36 / height, 0.72 - left, 1 - 0.62 / height))
    axes.axvline(0, color=INK, linewidth=0.8)
    order = {method: i for i, method in enumerate(shown.method)}
    for i, (against, table) in enumerate(series.items()):
        (marker, name), colour = AGAINST[against], COLOURS[i]
        y = table.method.map(order) + 0.24 * ((len(series) - 1) / 2 - i)
        axes.hlines(y, table.low, table.high, color=colour, linewidth=1.2)
        axes.plot(table.difference, y, marker, color=colour, markersize=3, label=f"minus {name}")
    for i, row in enumerate(rows(shown)):
        note = formats.verdict(row["verdict"], row["n"])
        note = note if row["status"] == "done" else f"{note}; {row['status']}"
        axes.text(1.02, i, note, transform=axes.get_yaxis_transform(), va="center", fontsize=TINY)
    axes.set_yticks(range(len(shown)), list(shown.method))
    axes.set_ylim(-0.6, max(1, len(shown)) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("difference in test bits per byte, 95 % interval: left of zero is better")
    if series:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.1)
    return Plot(figure, pd.concat(series.values(), ignore_index=True) if series else shown.head(0))


def _series(summary: pd.DataFrame, against: str) -> pd.DataFrame:
    """Finite differences to one control; none if it is always one that has a series already."""
    parts = ("low", "high", "control", "n")
    names = {"difference": f"vs_{against}"} | {part: f"vs_{against}_{part}" for part in parts}
    table = summary[["method", *names.values()]].set_axis(["method", *names], axis="columns")
    table = table[np.isfinite(table.difference.astype(float))].assign(against=against)
    is_repeated = against != SCRATCH and (table.control == SCRATCH).all()
    return table.head(0) if is_repeated else table


def hull(drawing: Drawing) -> Plot:
    """Test bpb of every fixed size at C*, and where the target lies among them."""
    summary = drawing.analysis.tables["summary"]
    sizes = _finite(fixed_sizes(drawing.analysis))
    grown = _finite(summary[summary.role == "method"])
    target = sizes[sizes.method == SCRATCH]
    labels = [f"{row['test_bpb']:.3f}  {row['method']}" for row in rows(sizes)]
    height = max(3.2, 1.2 + LINE * len(labels))
    figure = Figure(figsize=(WIDTH, height))
    width = (0.9 * WIDTH - margin_for(labels)) / 1.07
    axes = figure.add_axes((0.1, 0.42 / height, width / WIDTH, 1 - 0.7 / height))
    axes.set_title("Which fixed size is best at C*?", loc="left")
    axes.vlines(sizes.n_params, sizes.test_bpb_min, sizes.test_bpb_max, color=INK, linewidth=0.9)
    axes.plot(sizes.n_params, sizes.test_bpb, "o", color=INK, markersize=3.5, label="fixed size")
    corners = lower_hull(list(sizes.n_params), list(sizes.test_bpb))
    axes.plot(*corners, color=GREY, linewidth=0.8, zorder=1)
    axes.plot(grown.n_params, grown.test_bpb, "_", color=COLOURS[0], markersize=8,
              label="grown to its size")  # fmt: skip
    star: dict[str, Any] = {"color": COLOURS[1], "markersize": 9, "zorder": 5}
    axes.plot(target.n_params, target.test_bpb, "*", label=f"the target: {SCRATCH}", **star)
    axes.margins(y=0.15)
    _size_axis(axes, [*sizes.n_params])
    axes.set_ylabel("bits per byte, test; bar: lowest to highest seed")
    axes.legend(loc="upper center", ncols=3)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    named = zip(sizes.test_bpb, labels, strict=True)
    label_lines(axes, [(bpb, text, Look(GREY)) for bpb, text in named], LINE / (height - 0.7))
    columns = ["method", "role", "n_params", "test_bpb", "test_bpb_min", "test_bpb_max"]
    return Plot(figure, pd.concat([sizes, grown], ignore_index=True)[columns])


def _size_axis(axes: Axes, sizes: list[float]) -> None:
    if sizes:  # before the scale, which warns of limits that are those of a single size
        room = max((max(sizes) / min(sizes)) ** 0.2, 1.05)
        axes.set_xlim(min(sizes) / room, max(sizes) * room)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = _apart(sorted(sizes))
    axes.set_xticks(ticks, [formats.count(n) for n in ticks])
    axes.set_xlabel("parameters")


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    return table[np.isfinite(table.test_bpb)]


def _apart(sizes: list[float]) -> list[float]:
    kept: list[float] = []
    for size in sizes:
        if not kept or size > kept[-1] * (sizes[-1] / sizes[0]) ** 0.12:
            kept.append(size)
    return kept
