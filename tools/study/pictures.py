"""A picture for each part of the study, to be read without a caption, in grey, at half size."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmark.report import formats
from benchmark.report.controls import BEST_FIXED
from benchmark.report.conventions import CONVENTIONS
from benchmark.report.drawing import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    LINE,
    TINY,
    WIDTH,
    Look,
    label_lines,
    margin_for,
)
from benchmark.report.frames import rows
from tools.study.regime import AGAINST, sizes

MARKERS = "osD^vPX<>"
DODGE = 0.012
"""Decades between two methods at one rung."""


def trend(table: pd.DataFrame) -> Figure:
    """Difference to scratch and speed-up over it against compute, a line for every method."""
    methods = [name for name in table.method.unique() if name != BEST_FIXED]
    figure = Figure(figsize=(WIDTH, 3.0))
    room = 0.85 * margin_for([f"+0.000  {name}" for name in methods]) / WIDTH
    width = (0.9 - room - 0.1) / 2
    panels = [figure.add_axes((x, 0.2, width, 0.66)) for x in (0.09, 0.19 + width)]
    for axes, value in zip(panels, ("difference", "speed_up"), strict=True):
        for i, name in enumerate(methods):
            own = table[table.method == name]
            x = own.budget_flops * 10 ** (DODGE * (i - len(methods) / 2))
            _with_limits(axes, x, own, value, _look(i), MARKERS[i % len(MARKERS)])
        fixed = table[table.method == BEST_FIXED]
        axes.plot(fixed.budget_flops, fixed[value], "k_", markersize=14, markeredgewidth=2.2)
        axes.set_xscale("log")
        axes.set_xlabel("training compute, FLOPs")
    _finish_trend(panels, table, methods)
    return figure


def _look(i: int) -> Look:
    return Look(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)])


def _with_limits(
    axes: Axes, x: "pd.Series[float]", own: pd.DataFrame, value: str, look: Look, marker: str
) -> None:
    low, high = ("low", "high") if value == "difference" else (f"{value}_low", f"{value}_high")
    axes.vlines(x, own[low], own[high], color=look.colour, linewidth=0.9)
    axes.plot(x, own[value], marker=marker, markersize=3.2, linewidth=1.1, color=look.colour,
              linestyle=look.dash)  # fmt: skip


def _finish_trend(panels: Sequence[Axes], table: pd.DataFrame, methods: Sequence[str]) -> None:
    left, right = panels
    left.axhline(0, color=INK, linewidth=1.6)
    left.set_title("bits per byte minus scratch\n(lower is better)", loc="left")
    right.axhline(1, color=INK, linewidth=1.6)
    right.set_title("speed-up over scratch\n(higher is better)", loc="left")
    right.yaxis.set_major_formatter(lambda y, _: f"{y:.2g}x")
    note = "black line: scratch" + "; black bars: best size that never grows" * bool(
        (table.method == BEST_FIXED).any()
    )
    left.figure.text(0.09, 0.015, f"{note}; thin lines: 95 %", fontsize=TINY, color=GREY)
    last = table[table.budget_flops == table.budget_flops.max()]
    ends = {row["method"]: row for row in rows(last)}
    named = [(ends[m]["speed_up"], f"{ends[m]['speed_up']:.2f}x  {m}", _look(i))
             for i, m in enumerate(methods) if m in ends]  # fmt: skip
    label_lines(right, named, LINE / (3.0 * 0.66))


def regime(table: pd.DataFrame) -> Figure:
    """Two maps, against scratch and the best fixed size; shaded where growing ends lower."""
    names = sizes(table)
    varied = [key for key in ("operator", "state_policy", "rewarm", "factor")
              if key in ("operator", "factor") or len(table[key].unique()) > 1]  # fmt: skip
    lines = list(table[varied].drop_duplicates().itertuples(index=False, name=None))
    names_of_lines = [" ".join([*line[:-1], f"x{line[-1]}"]) for line in lines]
    columns = [(n, at) for n in names for at in sorted(table["at"].unique(), key=float)]
    height = 1.1 + 2 * (0.34 + 0.2 * len(lines))
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(2, 1, sharex=True)
    left = margin_for(names_of_lines) / WIDTH
    figure.subplots_adjust(left, 0.62 / height, 0.99, 1 - 0.26 / height,
                           hspace=1.7 / len(lines))  # fmt: skip
    found = {tuple(row[key] for key in (*varied, "n_params", "at")): row for row in rows(table)}
    for axes, (against, what) in zip(grid, AGAINST.items(), strict=True):
        cells = [[found.get((*line, *column)) for column in columns] for line in lines]
        axes.set_title(f"test bits per byte minus {what}", loc="left")
        _map(axes, cells, f"vs_{against}")
        axes.set_yticks(range(len(lines)), names_of_lines)
        for edge in range(len(columns) // len(names), len(columns), len(columns) // len(names)):
            axes.axvline(edge - 0.5, color=INK, linewidth=1.4)
    grid[-1].set_xticks(range(len(columns)), [f"{100 * float(at):.0f} %" for _, at in columns])
    per = len(columns) // len(names)
    for i, name in enumerate(names.values()):
        grid[-1].text(per * i + (per - 1) / 2, len(lines) + 0.62, f"target {name}", ha="center",
                      fontweight="bold")  # fmt: skip
    note = "growth at this share of C*. Grey: growing ends lower; bold: interval excludes zero"
    figure.text(left, 0.06 / height, note, fontsize=TINY)
    return figure


def _map(axes: Axes, cells: list[list[Any]], key: str) -> None:
    """Numbers on grey that is darker where growing ends lower."""
    values = np.array([[cell[key] if cell else math.nan for cell in line] for line in cells])
    deepest = max(float(np.nanmax(-values, initial=0.0)), 1e-9)
    axes.imshow(np.clip(-values / deepest, 0, 1), cmap="Greys", vmin=0, vmax=2, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        cell = cells[i][j]
        if cell is not None:
            is_clear = cell[f"{key}_high"] < 0 or cell[f"{key}_low"] > 0
            axes.text(j, i, f"{value:+.3f}", ha="center", va="center", fontsize=6.5,
                      fontweight="bold" if is_clear else "normal")  # fmt: skip
    axes.grid(visible=False)
    axes.tick_params(length=0)


def conventions(table: pd.DataFrame) -> Figure:
    """A row for every method: the same runs by each convention, and by ours with its interval."""
    shown = table.sort_values("ours", kind="stable", ignore_index=True)
    height = 0.95 + 0.21 * len(shown)
    figure = Figure(figsize=(WIDTH, height))
    left = margin_for(list(shown.method)) / WIDTH
    axes = figure.add_axes((left, 0.36 / height, 0.84 - left, 1 - 0.98 / height))
    axes.axvline(1, color=INK, linewidth=1.2)
    order = np.arange(len(shown))
    axes.hlines(order, shown.ours_low, shown.ours_high, color=INK, linewidth=1.6)
    for i, (key, name) in enumerate(CONVENTIONS.items()):
        finite = shown[key].where(np.isfinite(shown[key]))
        is_ours = key == "ours"
        look: dict[str, Any] = {"color": INK if is_ours else COLOURS[i % len(COLOURS)]}
        look |= {"markersize": 5 if is_ours else 4, "zorder": 4 if is_ours else 3}
        axes.plot(finite, order, MARKERS[i - 1] if i else MARKERS[-1], label=name, linestyle="",
                  markerfacecolor=look["color"] if is_ours else "white", **look)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_xlim()
    few = (0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 4, 6, 8)
    many = (0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2)
    ticks = [x for x in (few if high > 3 * low else many) if low <= x <= high]
    axes.set_xticks(ticks, [f"{x:g}x" for x in ticks])
    axes.set_xlabel("speed-up over scratch; ours with its 95 % interval")
    axes.set_yticks(order, list(shown.method))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.tick_params(axis="y", length=0)
    for i, text in enumerate(shown.published):
        axes.text(1.02, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=TINY)
    axes.text(1.02, len(shown) - 0.2, "published", transform=axes.get_yaxis_transform(),
              fontsize=TINY, fontweight="bold")  # fmt: skip
    figure.legend(loc="upper left", ncols=3, borderaxespad=0.2, columnspacing=1.0)
    return figure


def repeats(losses: pd.DataFrame, curve: pd.DataFrame, method: str, held_out: float) -> Figure:
    """A method on a short text again and again: its training loss, its held-out one, the lowest."""
    figure = Figure(figsize=(WIDTH, 2.2))
    axes = figure.add_axes((0.07, 0.17, 0.52, 0.7))
    mean = losses[losses.method == method].groupby("tokens").bpb.mean()
    ends = {
        f"last training loss, {method}": (float(mean.iloc[-1]), Look(COLOURS[0])),
        "the same on validation text": (float(curve.bpb.iloc[-1]), Look(COLOURS[1], DASHES[2])),
        "lowest of any run, held-out": (held_out, Look(INK, DASHES[1])),
    }
    trained, held, lowest = (look for _, look in ends.values())
    axes.plot(mean.index, mean, color=trained.colour)
    axes.plot(curve.tokens, curve.bpb, color=held.colour, linestyle=held.dash)
    axes.axhline(held_out, color=lowest.colour, linestyle=lowest.dash)
    axes.set_ylim(0, 7)
    axes.set_title("bits per byte; growth and another, repeated text come at the peak", loc="left")
    axes.set_xlabel("bytes read")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formats.count(x)))
    label_lines(axes, [(end, f"{end:.2f}  {name}", look) for name, (end, look) in ends.items()],
                LINE / 1.6)  # fmt: skip
    return figure


def rounding(table: pd.DataFrame) -> Figure:
    """For every row of a suite, the SD from seed to seed and that of rounding alone."""
    shown = table.iloc[::-1].reset_index(drop=True)
    height = 0.72 + 0.16 * len(shown)
    figure = Figure(figsize=(WIDTH, height))
    left = margin_for(list(shown.method)) / WIDTH
    axes = figure.add_axes((left, 0.36 / height, 0.97 - left, 1 - 0.66 / height))
    axes.hlines(shown.index, 0, shown[["seed_sd", "rounding_sd"]].max(axis=1), color=GREY,
                linewidth=0.5)  # fmt: skip
    axes.plot(shown.seed_sd, shown.index, "o", color=INK, markersize=4, label="from seed to seed",
              markerfacecolor="white")  # fmt: skip
    axes.plot(shown.rounding_sd, shown.index, "s", color=INK, markersize=3.5,
              label="same seed, other kernels")  # fmt: skip
    axes.set_yticks(shown.index, list(shown.method), fontsize=TINY)
    axes.set_xlim(left=0)
    axes.set_xlabel("standard deviation of a run's test bits per byte")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
    return figure
