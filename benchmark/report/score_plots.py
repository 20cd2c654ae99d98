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
    MOST,
    TINY,
    WIDTH,
    Drawing,
    Plot,
    label_points,
    lower_hull,
    margin_for,
    plot_faintly,
)
from benchmark.report.frames import rows

AGAINST = {
    SCRATCH: ("o", "scratch"),
    BEST_FIXED: ("s", "best fixed size"),
    "own": ("D", "own control"),
}
APART = 0.01
"""Relative difference from which two budgets or sizes differ."""


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
        note = row["verdict"] if row["status"] == "done" else f"{row['verdict']}; {row['status']}"
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
    tables = drawing.analysis.tables
    sizes = tables["hull"][np.isfinite(tables["hull"].test_bpb)]
    grown = _finite(tables["summary"][tables["summary"].role == "method"])
    target = sizes[sizes.is_target]
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.78))
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
    bars = [([n, n], [low, high]) for n, low, high in zip(
        sizes.n_params, sizes.test_bpb_min, sizes.test_bpb_max, strict=True
    )]  # fmt: skip
    named = [(row["n_params"], row["test_bpb"], row["method"]) for row in rows(sizes)]
    label_points(axes, named, [corners, *bars])
    columns = ["method", "role", "n_params", "test_bpb", "test_bpb_min", "test_bpb_max"]
    return Plot(figure, pd.concat([sizes, grown], ignore_index=True)[columns])


def pareto(drawing: Drawing) -> Plot:
    """What is best for its compute, and for its size: no other result has less of both."""
    scores = _scores(drawing)
    at_end = scores[scores.budget_flops >= drawing.budget * (1 - APART)]
    figure = Figure(figsize=(WIDTH, 3.0))
    left, right = (figure.add_axes((x, 0.21, 0.395, 0.71)) for x in (0.095, 0.6))
    plot_faintly(left, drawing, list(drawing.looks), "flops")
    left.set_title("annealed results by compute", loc="left")
    left.set_ylabel("bits per byte, validation slice")
    left.set_xlabel(f"training compute; C* = {formats.flops(drawing.budget)} FLOPs")
    _compute_axis(left, drawing.budget, sorted(set(scores.budget_flops)))
    right.set_title("results at C* by size", loc="left")
    right.set_ylabel("bits per byte, test")
    _size_axis(right, sorted(set(at_end.n_params)))
    fronts = {
        "budget_flops": _front(left, scores, "budget_flops", "curve_bpb"),
        "n_params": _front(right, at_end, "n_params", "test_bpb"),
    }
    handles = [line for line in right.get_lines() if not str(line.get_label()).startswith("_")]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.0), ncols=3)
    on = {f"on_front_{x}": scores.method.isin(names) for x, names in fronts.items()}
    return Plot(figure, scores.assign(**on))


def _scores(drawing: Drawing) -> pd.DataFrame:
    """Budget, size and mean scores of every method that finished with all its seeds."""
    runs = drawing.analysis.frames.runs
    grouped = runs[runs.role != "tuning"].groupby(["method", "role"], sort=False)
    means = grouped[["budget_flops", "n_params", "curve_bpb", "test_bpb"]].mean().reset_index()
    return _finite(means)


def _front(axes: Axes, scores: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw all results and the front; names of those on it, least x first."""
    front: list[tuple[float, float, str]] = []
    for row in rows(scores.sort_values([x, y], kind="stable")):
        if front and row[y] >= front[-1][1]:
            continue
        if front and row[x] < front[-1][0] * (1 + APART):
            front.pop()  # hardly less of x for a higher loss
        front.append((row[x], row[y], str(row["method"])))
    is_grown = scores.role == "method"
    for chosen, colour, label in (
        (~is_grown, GREY, "never grown"),
        (is_grown, COLOURS[0], "grown"),
    ):
        axes.plot(
            scores[chosen][x], scores[chosen][y], "_", color=colour, label=label, markersize=7
        )
    xs, ys = [x for x, _, _ in front], [y for _, y, _ in front]
    axes.step(xs, ys, where="post", color=INK, linewidth=0.8, label="front")
    axes.plot(xs, ys, "o", color=INK, markersize=3, zorder=5)
    if front:
        pad = 0.1 * max(float(scores[y].max() - scores[y].min()), 0.01)
        axes.set_ylim(float(scores[y].min()) - pad, float(scores[y].max()) + pad)
        steps = list(np.repeat(xs, 2)[1:]), list(np.repeat(ys, 2)[:-1])
        ticks = [([row[x]] * 2, [row[y]] * 2) for row in rows(scores)]
        label_points(axes, front, [steps, *ticks])
    return [name for _, _, name in front]


def _compute_axis(axes: Axes, budget: float, budgets: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(0.8 * min([*budgets, budget]), 1.25 * budget)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(budgets, [formats.fraction(b / budget) for b in budgets])


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
