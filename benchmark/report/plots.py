"""The figures of a report: differences to controls, curves, sizes, and what factors are worth.

As PNG and SVG; their numbers are those of the tables. Bytes depend on records alone.
"""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmark.report import formats
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.drawing import (
    COLOURS,
    FIRST_SHOWN,
    GREY,
    INK,
    LINE,
    MOST,
    PALE,
    STYLE,
    TINY,
    WIDTH,
    Drawing,
    Look,
    budget_axis,
    label_lines,
    margin_for,
    plot_curve,
)
from benchmark.report.frames import rows
from benchmark.report.prose import fixed_sizes
from benchmark.report.statistics import MIN_SEEDS

AGAINST = {
    SCRATCH: ("o", "scratch"),
    BEST_FIXED: ("s", "best fixed size"),
    "own": ("D", "own control"),
}
LATE = 0.8
"""Share of C* from which the last part of training is shown."""


def differences(drawing: Drawing) -> Figure:
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
    has_interval = any(np.isfinite(table.low.astype(float)).any() for table in series.values())
    unit = "test bits per byte; left is better"
    axes.set_xlabel(f"{unit}; 95 % interval, not adjusted" if has_interval else unit)
    if series:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.1)
    return figure


def _series(summary: pd.DataFrame, against: str) -> pd.DataFrame:
    """Finite differences to one control; none if it is always one that has a series already."""
    parts = ("low", "high", "control", "n")
    names = {"difference": f"vs_{against}"} | {part: f"vs_{against}_{part}" for part in parts}
    table = summary[["method", *names.values()]].set_axis(["method", *names], axis="columns")
    table = table[np.isfinite(table.difference.astype(float))].assign(against=against)
    is_repeated = against != SCRATCH and (table.control == SCRATCH).all()
    return table.head(0) if is_repeated else table


def curves(drawing: Drawing) -> Figure:
    """Scratch and the best method in bpb; and the best few minus scratch in the last fifth."""
    late = [n for n in drawing.prominent if n != SCRATCH and _reaches(drawing, n)]
    height = max(2.6, 1.1 + LINE * len(late))
    figure = Figure(figsize=(WIDTH, height))
    bottom, top = 0.42 / height, 1 - 0.92 / height
    room = 0.8 * margin_for([f"+0.000  {name}" for name in late]) / WIDTH
    left = figure.add_axes((0.08, bottom, 0.3, top))
    right = figure.add_axes((0.47, bottom, max(0.48 - room, 0.1), top))
    few = [n for n in dict.fromkeys((SCRATCH, *drawing.ranked[:1])) if n in drawing.looks]
    _all_as_area(left, drawing)
    for name in few:
        plot_curve(left, drawing, name, drawing.curves, has_band=True)
    rungs = drawing.rungs
    left.plot(rungs.flops, rungs.bpb, "D", color=INK, markersize=3.5, zorder=6)
    budget_axis(left, drawing.budget)
    left.set_ylim(*drawing.limits)
    left.set_ylabel("bits per byte, validation slice")
    for name in late:
        plot_curve(right, drawing, name, drawing.minus, has_band=False)
    _late_axis(right, drawing, late)
    ends = {name: float(drawing.minus[name].bpb.iloc[-1]) for name in late}
    named = [(bpb, f"{bpb:+.3f}  {name}", drawing.looks[name]) for name, bpb in ends.items()]
    label_lines(right, named, LINE / (height * top))
    for axes, title in ((left, "Bits per byte"), (right, f"Minus {SCRATCH}, in the last fifth")):
        axes.set_title(title, loc="left", pad=28)
        axes.set_xlabel("training compute")
    _note(left, _said(drawing, few, rungs))
    is_part = len(late) < len(drawing.looks) - 1
    _note(right, ["same seed; methods with the lowest test bpb" if is_part else "same seed"])
    return figure


def hull(drawing: Drawing) -> Figure:
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
    return figure


def main_effects(table: pd.DataFrame) -> Figure:
    """Change in bpb from each factor's reference level."""
    shown = table.iloc[::-1].reset_index(drop=True)
    is_reference = shown.level == shown.reference
    labels = list((shown.factor + ": ").where(is_reference, "") + shown.level)
    height = 0.7 + 0.17 * len(shown)
    figure = Figure(figsize=(WIDTH, height))
    left = margin_for(labels) / WIDTH
    axes = figure.add_axes((left, 0.36 / height, 0.96 - left, 1 - 0.6 / height))
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.hlines(shown.index, shown.effect_low, shown.effect_high, color=INK)
    for fill, own in (("white", shown[is_reference]), (INK, shown[~is_reference])):
        axes.plot(own.effect, own.index, "o", color=INK, markerfacecolor=fill, markersize=3.5)
    axes.set_yticks(shown.index, labels)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_title("change in test bits per byte", loc="left")
    axes.set_xlabel("95 % interval; left is better; circle: reference")
    return figure


def _all_as_area(axes: Axes, drawing: Drawing) -> None:
    """The range of all curves: as lines they could not be told apart."""
    if len(drawing.looks) > 2:  # noqa: PLR2004 - those are drawn
        at = np.geomspace(FIRST_SHOWN * drawing.budget, drawing.budget, 100)
        curves = [drawing.curves[name] for name in drawing.looks]
        stacked = pd.DataFrame([np.interp(at, c.flops, c.bpb, right=math.nan) for c in curves])
        axes.fill_between(at, stacked.min(), stacked.max(), color=PALE, linewidth=0, zorder=0)


def _said(drawing: Drawing, names: list[str], rungs: pd.DataFrame) -> list[str]:
    """What a panel of curves shows, and nothing that it does not."""
    has_others = len(drawing.looks) > len(names)
    return [
        "; ".join("black: scratch" if name == SCRATCH else f"blue: {name}" for name in names),
        "; ".join(filter(None, [_band(drawing, names), "grey: all others" * has_others])),
        "diamonds: scratch annealed earlier" * (len(rungs) > 0),
    ]


def _band(drawing: Drawing, names: list[str]) -> str:
    n = max((int(drawing.curves[name].n.iloc[0]) for name in names), default=0)
    return "" if n < 2 else f"band: {'95 % interval' if n >= MIN_SEEDS else 'lowest to highest'}"  # noqa: PLR2004


def _note(axes: Axes, lines: list[str]) -> None:
    text = "\n".join(filter(None, lines))
    axes.text(0, 1.02, text, transform=axes.transAxes, color=GREY, fontsize=TINY)


def _reaches(drawing: Drawing, name: str) -> bool:
    """Whether a curve has something to show in the last fifth."""
    return name in drawing.minus and drawing.minus[name].flops.iloc[-1] > LATE * drawing.budget


def _late_axis(axes: Axes, drawing: Drawing, names: list[str]) -> None:
    axes.axhline(0, color=INK, linewidth=1.2)
    axes.set_xlim(LATE * drawing.budget, drawing.budget)
    axes.set_ylim(*_range(drawing, names, LATE, (0.01, 0.99)))
    axes.set_xticks([u * drawing.budget for u in (0.8, 0.9, 1)], ["0.8 C*", "0.9 C*", "C*"])


def _range(
    drawing: Drawing, names: list[str], since: float, quantiles: tuple[float, float]
) -> tuple[float, float]:
    """Of the differences to scratch from some share of C* on, without the jumps at growth."""
    parts = [drawing.minus[name].set_index("flops").bpb for name in names]
    late = [part[part.index >= since * drawing.budget] for part in parts]
    ends = np.concatenate([*late, [0.0]])
    low, high = np.quantile(ends, quantiles)
    pad = 0.08 * max(high - low, 0.01)
    return float(low - pad), float(high + pad)


def _size_axis(axes: Axes, sizes: list[float]) -> None:
    if sizes:  # before the scale, which warns of limits that are those of a single size
        room = max((max(sizes) / min(sizes)) ** 0.2, 1.05)
        axes.set_xlim(min(sizes) / room, max(sizes) * room)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks: list[float] = []
    for size in sorted(sizes):
        if not ticks or size > ticks[-1] * (max(sizes) / min(sizes)) ** 0.12:
            ticks.append(size)
    axes.set_xticks(ticks, [formats.count(n) for n in ticks])
    axes.set_xlabel("parameters")


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    return table[np.isfinite(table.test_bpb)]


PLOTS: dict[str, Callable[[Drawing], Figure]] = {
    "differences": differences,
    "curves_flops": curves,
    "hull": hull,
}
EFFECTS = "main_effects"
"""The figure, and the table, that only a crossed design has."""

UNDATED = {"Date": None, "Creator": None}


@contextmanager
def styled() -> Iterator[None]:
    """The looks of every figure, whatever the reader's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def draw(drawing: Drawing) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every figure file."""
    watermark = drawing.analysis.frames.suite.watermark
    effects = drawing.analysis.tables.get(EFFECTS)
    look: dict[str, Any] = {"fontsize": 30, "color": GREY, "alpha": 0.25, "rotation": 25}
    with styled():
        figures = {name: plot(drawing) for name, plot in PLOTS.items()}
        figures |= {} if effects is None else {EFFECTS: main_effects(effects)}
        for name, figure in figures.items():
            if watermark:
                figure.text(0.45, 0.5, watermark, ha="center", va="center", **look)
            for kind, metadata in {"png": {"Software": None}, "svg": UNDATED}.items():
                figure.savefig(file := io.BytesIO(), format=kind, metadata=metadata)
                yield f"{name}.{kind}", file.getvalue()
