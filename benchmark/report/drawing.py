"""What figures have in common: looks, mean curves, axes, and labels that do not collide."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from scipy.optimize import isotonic_regression

from benchmark.report.analysis import Analysis
from benchmark.report.verdicts import SCRATCH

# Okabe & Ito's palette without black, which is scratch, and yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.2, 1, 1.2)))
INK, GREY, PALE = "#000000", "#8C8C8C", "#E4E4E4"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 140,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "growbench",
}
FIRST_SHOWN = 0.1
"""Curves start here, as a fraction of C*; before it every method is the same steep line."""

_COLUMNS = ["flops", "tokens", "seconds", "bpb"]


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
        """Scratch and the best fixed size in black, other controls grey, methods in colour."""
        frames, best = self.analysis.frames, self.analysis.controls.best_fixed
        looks = {name: Look(GREY, "-", 1.0, 2) for name in frames.methods("control")}
        for i, name in enumerate(frames.methods("method")):
            n = len(COLOURS)
            looks[name] = Look(COLOURS[i % n], DASHES[i // n % len(DASHES)])
        if best is not None:
            looks[best] = Look(INK, DASHES[1], 1.5, 4)
        if SCRATCH in looks:
            looks[SCRATCH] = Look(INK, "-", 2.0, 4)
        return {name: look for name, look in looks.items() if name in self.curves}

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Mean, lowest and highest bpb of each method over its seeds."""
        grouped = self.analysis.frames.points.groupby("method", sort=False)
        curves = {str(method): mean_curve(points) for method, points in grouped}
        return {method: curve for method, curve in curves.items() if len(curve)}

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


def mean_curve(points: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds at equal compute, and the lowest and highest bpb.

    Seeds that grow at different times are interpolated to one another's positions, as far as all
    of them got.
    """
    seeds = [seed[np.isfinite(seed.bpb)] for _, seed in points.groupby("seed")]
    seeds = [seed for seed in seeds if len(seed)]
    if not seeds:
        return pd.DataFrame()
    grid = seeds[0].flops.to_numpy(float)
    if any(len(s) != len(grid) or not np.allclose(s.flops, grid, rtol=1e-3) for s in seeds):
        grid = np.unique(np.concatenate([seed.flops for seed in seeds]))
        first, last = max(s.flops.min() for s in seeds), min(s.flops.max() for s in seeds)
        grid = grid[(grid >= first) & (grid <= last)]
        seeds = [
            pd.DataFrame({name: np.interp(grid, seed.flops, seed[name]) for name in _COLUMNS})
            for seed in seeds
        ]
    stacked = np.stack([seed[_COLUMNS].to_numpy(float) for seed in seeds])
    mean = pd.DataFrame(stacked.mean(axis=0), columns=_COLUMNS)
    bpb = stacked[:, :, _COLUMNS.index("bpb")]
    return mean.assign(low=bpb.min(axis=0), high=bpb.max(axis=0))


def plot_curve(axes: Axes, drawing: Drawing, name: str, column: str) -> None:
    """Mean, range, growths and, where runs failed, the end of one method's curve."""
    look, curve, frames = drawing.looks[name], drawing.curves[name], drawing.analysis.frames
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": look.width}
    axes.plot(curve[column], curve.bpb, zorder=look.order, label=name, **line)
    if look.colour != GREY:
        band: dict[str, Any] = {"color": look.colour, "alpha": 0.13, "linewidth": 0, "zorder": 1}
        axes.fill_between(curve[column], curve.low, curve.high, **band)
    growths = frames.growths[frames.growths.method == name].groupby("growth")
    at = growths[[column, "bpb_before"]].mean()
    circle: dict[str, Any] = {"color": look.colour, "markerfacecolor": "white", "markersize": 4.5}
    axes.plot(at[column], at.bpb_before, "o", zorder=look.order + 1, **circle)
    if frames.of(name).status.isin(["diverged", "failed", "timeout"]).any():
        end = curve.iloc[-1]
        axes.plot(end[column], end.bpb, "x", color=look.colour, markersize=7, zorder=7)


def budget_axis(axes: Axes, budget: float) -> None:
    """Ticks at halvings of C*, from where curves are shown."""
    axes.set_xscale("log")
    axes.set_xlim(FIRST_SHOWN * budget, budget)
    axes.xaxis.set_minor_locator(NullLocator())
    fractions = {1 / 8: "C*/8", 1 / 4: "C*/4", 1 / 2: "C*/2", 1: "C*"}
    axes.set_xticks([u * budget for u in fractions], list(fractions.values()))


def label_ends(axes: Axes, drawing: Drawing) -> None:
    """Name and final bpb right of each line; lines that end early are named where they end."""
    low, high = axes.get_ylim()
    ends = {name: drawing.curves[name].iloc[-1] for name in drawing.looks}
    whole = {name: end.bpb for name, end in ends.items() if end.flops > 0.98 * drawing.budget}
    starts = [(bpb - low) / (high - low) for bpb in whole.values()]
    for name, start, height in zip(whole, starts, spread(starts, 0.037), strict=True):
        look = drawing.looks[name]
        axes.plot(
            [1, 1.025, 1.06],
            [start, height, height],
            transform=axes.transAxes,
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.1,
            clip_on=False,
        )
        axes.text(
            1.07,
            height,
            f"{whole[name]:.3f}  {name}",
            transform=axes.transAxes,
            va="center",
            fontsize=7.8,
        )
    for name in (name for name in ends if name not in whole):
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
        axes.annotate(
            name,
            (ends[name].flops, ends[name].bpb),
            (7, 8),
            fontsize=7.5,
            zorder=8,
            textcoords="offset points",
            color=drawing.looks[name].colour,
            bbox=box,
        )


def spread(positions: list[float], gap: float) -> list[float]:
    """Positions in [0, 1] moved as little as possible (least squares) to lie `gap` apart."""
    order = np.argsort(positions, kind="stable")
    steps = min(gap, 1 / max(1, len(positions) - 1)) * np.arange(len(positions))
    free = isotonic_regression(np.asarray(positions)[order] - steps).x
    moved = np.empty(len(positions))
    moved[order] = np.clip(free, 0, 1 - steps[-1:].sum()) + steps
    return [float(height) for height in moved]


def lower_hull(sizes: list[float], bpb: list[float]) -> tuple[list[float], list[float]]:
    """Corners of the lower convex hull over log sizes, which must be increasing."""
    corners: list[tuple[float, float]] = []
    for point in zip(map(math.log, sizes), bpb, strict=True):
        while len(corners) > 1 and _turn(corners[-2], corners[-1], point) <= 0:
            corners.pop()
        corners.append(point)
    return [math.exp(x) for x, _ in corners], [y for _, y in corners]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
