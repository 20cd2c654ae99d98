"""The figures of a report: differences to controls, curves, and what factors are worth.

As PNG; their numbers are those of the tables. Bytes depend on records alone.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.drawing import (
    COLOURS,
    GREY,
    INK,
    LINE,
    MOST,
    STYLE,
    TINY,
    WIDTH,
    Drawing,
    label_lines,
    margin_for,
    plot_curve,
)
from benchmark.report.frames import rows
from benchmark.report.statistics import in_words

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
        note = in_words(row["verdict"], row["n"])
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
    """The best few minus scratch with the same seed, in the last fifth of training."""
    late = [n for n in drawing.prominent if n != SCRATCH and _reaches(drawing, n)]
    height = max(2.4, 0.8 + LINE * len(late))
    figure = Figure(figsize=(WIDTH, height))
    ends = {name: float(drawing.minus[name].bpb.iloc[-1]) for name in late}
    named = [(bpb, f"{bpb:+.3f}  {name}", drawing.looks[name]) for name, bpb in ends.items()]
    width = (0.85 * WIDTH - 0.8 * margin_for([text for _, text, _ in named])) / WIDTH
    axes = figure.add_axes((0.1, 0.42 / height, width, 1 - 0.8 / height))
    for name in late:
        plot_curve(axes, drawing, name, drawing.minus)
    axes.axhline(0, color=INK, linewidth=1.2)
    axes.set_xlim(LATE * drawing.budget, drawing.budget)
    axes.set_ylim(*_range(drawing, late))
    axes.set_xticks([u * drawing.budget for u in (0.8, 0.9, 1)], ["0.8 C*", "0.9 C*", "C*"])
    axes.set_xlabel("training compute")
    label_lines(axes, named, LINE / (height - 0.8))
    few = "; methods with the lowest test bpb" if len(late) < len(drawing.looks) - 1 else ""
    title = f"bits per byte (validation slice) minus {SCRATCH} with the same seed{few}"
    figure.text(0.1, 1 - 0.2 / height, title)
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


def _reaches(drawing: Drawing, name: str) -> bool:
    """Whether a curve has something to show in the last fifth."""
    return name in drawing.minus and drawing.minus[name].flops.iloc[-1] > LATE * drawing.budget


def _range(drawing: Drawing, names: list[str]) -> tuple[float, float]:
    """Of the differences to scratch in the last fifth, without the jumps at growth."""
    parts = [drawing.minus[name].set_index("flops").bpb for name in names]
    late = [part[part.index >= LATE * drawing.budget] for part in parts]
    low, high = np.quantile(np.concatenate([*late, [0.0]]), (0.01, 0.99))
    pad = 0.08 * max(high - low, 0.01)
    return float(low - pad), float(high + pad)


PLOTS: dict[str, Callable[[Drawing], Figure]] = {
    "differences": differences,
    "curves_flops": curves,
}


@contextmanager
def styled() -> Iterator[None]:
    """The looks of every figure, whatever the reader's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def image(figure: Figure) -> bytes:
    """The figure as PNG, without the name of what drew it."""
    figure.savefig(file := io.BytesIO(), format="png", metadata={"Software": None})
    return file.getvalue()


def draw(drawing: Drawing) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every figure file."""
    watermark = drawing.analysis.frames.suite.watermark
    effects = drawing.analysis.tables.get("main_effects")
    look: dict[str, Any] = {"fontsize": 30, "color": GREY, "alpha": 0.25, "rotation": 25}
    with styled():
        figures = {name: plot(drawing) for name, plot in PLOTS.items()}
        figures |= {} if effects is None else {"main_effects": main_effects(effects)}
        for name, figure in figures.items():
            if watermark:
                figure.text(0.45, 0.5, watermark, ha="center", va="center", **look)
            yield f"{name}.png", image(figure)
