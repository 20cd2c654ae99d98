"""What figures have in common: looks, mean curves, axes, and labels that do not collide.

Lines differ in dashes as well as in colour, so that they are told apart in print and by everybody.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from benchmark.records.events import STOPPED
from benchmark.report.analysis import Analysis
from benchmark.report.controls import SCRATCH
from benchmark.report.frames import CURVE, Curve, Row, grouped
from benchmark.report.statistics import MIN_SEEDS, t_limit

WIDTH = 5.5
"""Inches: the text of a one-column paper, so that nothing is scaled and type keeps its size."""

# Okabe & Ito's palette without black, which is scratch, and yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.2, 1, 1.2)), (0, (9, 2)),
                           (0, (3, 1, 1, 1, 1, 1)))  # fmt: skip
INK, GREY, PALE = "#000000", "#8C8C8C", "#E4E4E4"
SMALL, TINY = 6.5, 6.0
"""Points, of labels and of notes."""

LETTER = 0.058
"""Inches that a letter of these sizes takes at most, on average."""

LINE = 0.105
"""Inches between two labels."""

MOST = 24
"""Methods in one figure; of more, as a crossed design has, the best by mean test bpb."""

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "axes.titley": 1.0,  # else its place is searched for, at half the cost of a panel
    "figure.dpi": 200,
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "grid.color": PALE,
    "grid.linewidth": 0.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
SAME_END = 0.01
"""Relative difference up to which two curves end at the same compute."""

FIRST_SHOWN = 0.1
"""Curves start here, as a fraction of C*; before it every method is the same steep line."""


@dataclass(frozen=True)
class Look:
    """How one method is drawn, in every figure alike."""

    colour: str
    dash: Any = "-"
    width: float = 1.5
    order: int = 3


@dataclass(frozen=True)
class Drawing:
    """The curves of a suite, ready to draw."""

    analysis: Analysis

    @property
    def budget(self) -> float:
        """C*."""
        return self.analysis.frames.budget_flops

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Scratch and the best fixed size in black, other controls grey, methods in colour.

        The best methods have a colour and dashes each; after them colours repeat in other dashes.
        """
        frames, best = self.analysis.frames, self.analysis.controls.best_fixed
        looks = {name: Look(GREY, "-", 1.0, 2) for name in frames.methods("control")}
        for i, name in enumerate(self.ranked):
            n = len(COLOURS)
            looks[name] = Look(COLOURS[i % n], DASHES[(i + i // n) % len(DASHES)])
        if best is not None:
            looks[best] = Look(INK, DASHES[1], 1.5, 4)
        if SCRATCH in looks:
            looks[SCRATCH] = Look(INK, "-", 2.0, 4)
        return {name: look for name, look in looks.items() if name in self.curves}

    @property
    def prominent(self) -> list[str]:
        """What stands out where everything is drawn: scratch, the best fixed size, a few methods.

        Methods are as many as there are colours, by mean test bpb.
        """
        chosen = (SCRATCH, self.analysis.controls.best_fixed, *self.ranked[: len(COLOURS)])
        return [name for name in dict.fromkeys(chosen) if name in self.looks]

    @cached_property
    def ranked(self) -> list[str]:
        """Methods by mean test bpb."""
        summary = self.analysis.tables["summary"]
        methods = summary[summary.role == "method"].sort_values("test_bpb", kind="stable")
        return [str(name) for name in methods.method]

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Mean bpb of each method over its seeds, with limits."""
        curves = self.analysis.frames.curves
        return self._means(lambda run: curves.get(run["run_id"]))

    @cached_property
    def minus(self) -> dict[str, pd.DataFrame]:
        """The same minus scratch with the same seed at equal compute, where scratch has a curve."""
        return self._means(self.minus_scratch)

    def minus_scratch(self, run: Row) -> Curve | None:
        """The curve of a run minus that of scratch with the same seed, if both have one."""
        frames = self.analysis.frames
        scratch = frames.by_seed.get(SCRATCH, {}).get(run["seed"], {})
        own, its = (frames.curves.get(x.get("run_id", "")) for x in (run, scratch))
        return difference(own, its) if own and its else None

    def _means(self, curve_of: Callable[[Row], Curve | None]) -> dict[str, pd.DataFrame]:
        """Mean curve of each method that has one."""
        frames, found = self.analysis.frames, {}
        for method in frames.methods():
            curves = map(curve_of, frames.by_seed[method].values())
            found[method] = mean_curve([curve for curve in curves if curve])
        return {method: curve for method, curve in found.items() if len(curve)}

    @cached_property
    def growths(self) -> dict[str, list[Row]]:
        """Where each method that grows does so, and its bpb before it: means over seeds."""
        growths = self.analysis.frames.growths.groupby(["method", "growth"], sort=False)
        return grouped(growths[[*CURVE[:-1], "bpb_before"]].mean().reset_index())

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """Method and `CURVE` where annealed runs at smaller budgets end: means over seeds."""
        runs = self.analysis.frames.runs
        rungs = runs[(runs.role == "rung") & np.isfinite(runs.curve_bpb)]
        columns = ["budget_flops", "tokens", "seconds", "curve_bpb"]
        means = rungs.groupby("method", sort=False)[columns].mean().set_axis(CURVE, axis="columns")
        return means.reset_index()

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Range of bpb that shows the ends of all curves, whatever their beginnings."""
        ends = [float(self.curves[name].bpb.iloc[-1]) for name in self.looks]
        curves = [self.curves[name] for name in self.looks]
        starts = [curve.bpb[curve.flops >= FIRST_SHOWN * self.budget].head(1) for curve in curves]
        tops = [*ends, float(np.median(pd.concat(starts)))] if starts else [8.0]
        bottom, top = min(ends, default=0.0), max(tops)
        pad = 0.05 * max(top - bottom, 0.01)
        return bottom - pad, top + pad


def mean_curve(seeds: Sequence[Curve]) -> pd.DataFrame:
    """Mean over seeds at equal compute, `n` of them, from `low` to `high`.

    The limits are those of the 95 % t interval of the mean from 3 seeds on, before that the lowest
    and the highest. Seeds that grow at different times are interpolated to one another's positions,
    as far as all of them got.
    """
    stacks = [np.stack([seed[x] for x in CURVE], axis=1) for seed in seeds]  # (points, columns)
    stacks = [stack[np.isfinite(stack[:, -1])] for stack in stacks]
    stacks = [stack for stack in stacks if len(stack)]
    if not stacks:
        return pd.DataFrame()
    grid = stacks[0][:, 0]
    if any(len(s) != len(grid) or not np.allclose(s[:, 0], grid, rtol=1e-3) for s in stacks):
        grid = np.unique(np.concatenate([stack[:, 0] for stack in stacks]))
        first, last = max(s[:, 0].min() for s in stacks), min(s[:, 0].max() for s in stacks)
        grid = grid[(grid >= first) & (grid <= last)]
        stacks = [
            np.stack([np.interp(grid, stack[:, 0], values) for values in stack.T], axis=1)
            for stack in stacks
        ]
    stacked = np.stack(stacks)
    mean = pd.DataFrame(stacked.mean(axis=0), columns=CURVE)
    low, high = _band(stacked[:, :, -1])
    return mean.assign(low=low, high=high, n=len(stacks))


def difference(curve: Curve, scratch: Curve) -> Curve:
    """A curve minus scratch's, linear between its points; nan where that has none."""
    at, flops = curve["flops"], scratch["flops"]
    theirs = np.interp(at, flops, scratch["bpb"], left=math.nan)
    ends = at > flops[-1] * (1 + SAME_END)
    return {**curve, "bpb": curve["bpb"] - np.where(ends, math.nan, theirs)}


def _band(bpb: NDArray[np.float64]) -> tuple[Any, Any]:
    """Limits at each point, bpb (seeds, points)."""
    if (n := len(bpb)) < MIN_SEEDS:
        return bpb.min(axis=0), bpb.max(axis=0)
    half = t_limit(n - 1) * bpb.std(axis=0, ddof=1) / math.sqrt(n)
    return bpb.mean(axis=0) - half, bpb.mean(axis=0) + half


def plot_curve(axes: Axes, drawing: Drawing, name: str, curves: dict[str, pd.DataFrame]) -> None:
    """A method's mean and growths and, where runs failed, the end, against compute."""
    look, curve, frames = drawing.looks[name], curves[name], drawing.analysis.frames
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": look.width}
    axes.plot(curve.flops, curve.bpb, zorder=look.order, label=name, **line)
    if growths := drawing.growths.get(name):
        at = [row["flops"] for row in growths]
        circle: dict[str, Any] = {"color": look.colour, "markerfacecolor": "white"}
        heights = np.interp(at, curve.flops, curve.bpb)
        axes.plot(at, heights, "o", markersize=3.5, zorder=look.order + 1, **circle)
    if frames.of(name).status.isin(STOPPED).any():
        end = curve.iloc[-1]
        axes.plot(end.flops, end.bpb, "x", color=look.colour, markersize=6, zorder=7)


def margin_for(names: Sequence[str]) -> float:
    """Inches beside an axis that has these labels."""
    return 0.15 + LETTER * max(map(len, names), default=0)


def label_lines(axes: Axes, ends: Sequence[tuple[float, str, Look]], gap: float) -> None:
    """Name lines in the right margin: where each ends, its text, its look; texts `gap` apart.

    Args:
        axes: limits must be final; there must be room to the right.
        ends: height in data coordinates, text and look of each line.
        gap: least distance of two texts, as a fraction of the axes' height.
    """
    low, high = axes.get_ylim()
    starts = [(end - low) / (high - low) for end, _, _ in ends]
    for (_, text, look), start, height in zip(ends, starts, spread(starts, gap), strict=True):
        width = 0.4 if look.colour == GREY else 0.9
        leader: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": width}
        axes.plot([1, 1.03, 1.06], [start, height, height], transform=axes.transAxes,
                  clip_on=False, **leader)  # fmt: skip
        axes.text(1.07, height, text, transform=axes.transAxes, va="center", fontsize=TINY)


def spread(positions: list[float], gap: float) -> list[float]:
    """Positions in [0, 1] moved as little as possible (least squares) to lie `gap` apart."""
    order = np.argsort(positions, kind="stable")
    steps = min(gap, 1 / max(1, len(positions) - 1)) * np.arange(len(positions))
    free = isotonic_regression(np.asarray(positions)[order] - steps).x
    moved = np.empty(len(positions))
    moved[order] = np.clip(free, 0, 1 - steps[-1:].sum()) + steps
    return [float(height) for height in moved]
