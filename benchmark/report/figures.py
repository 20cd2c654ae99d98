"""Figures of a report, as PNG and SVG bytes that depend on the records alone."""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.optimize import isotonic_regression

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import Frames
from benchmark.report.verdicts import BEST_FIXED, SCRATCH, Controls

# Okabe & Ito's palette without black, which is scratch, and yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.2, 1, 1.2)))
INK, GREY, PALE = "#000000", "#8C8C8C", "#E4E4E4"
STYLE = {
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


@dataclass(frozen=True)
class Look:
    """How one method is drawn, in every figure alike."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]] = "-"
    width: float = 1.5
    order: int = 3


@dataclass(frozen=True)
class Drawing:
    """What every figure draws from."""

    frames: Frames
    found: Controls
    summary: pd.DataFrame

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Scratch and the best fixed size in black, other controls grey, methods in colour."""
        looks = {name: Look(GREY, "-", 1.0, 2) for name in self.frames.methods("control")}
        for i, name in enumerate(self.frames.methods("method")):
            n = len(COLOURS)
            looks[name] = Look(COLOURS[i % n], DASHES[i // n % len(DASHES)])
        if self.found.best_fixed is not None:
            looks[self.found.best_fixed] = Look(INK, DASHES[1], 1.5, 4)
        if SCRATCH in looks:
            looks[SCRATCH] = Look(INK, "-", 2.0, 4)
        return {name: look for name, look in looks.items() if name in self.curves}

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Mean, lowest and highest bpb of each method over its seeds."""
        grouped = self.frames.points.groupby("method", sort=False)
        curves = {str(method): _mean_curve(points) for method, points in grouped}
        return {method: curve for method, curve in curves.items() if len(curve)}

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Range of bpb that shows the ends of all curves, whatever their beginnings."""
        ends = [self.curves[name].bpb.iloc[-1] for name in self.looks]
        shown = FIRST_SHOWN * self.frames.budget_flops
        starts = [c.bpb[c.flops >= shown].head(1) for c in self.curves.values()]
        top = float(np.median(pd.concat(starts))) if starts else 8.0
        bottom = min(ends, default=0.0)
        pad = 0.05 * max(top - bottom, 0.01)
        return bottom - pad, max(top, *ends, bottom) + pad


def draw(analysis: Analysis) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every figure file."""
    frames = analysis.frames
    drawing = Drawing(frames, analysis.controls, analysis.tables["summary"])
    plots: dict[str, Callable[[Drawing], Figure]] = {
        "curves_flops": curves_flops,
        "curves_tokens_time": curves_tokens_time,
        "methods": small_multiples,
        "differences": differences,
        "hull": hull,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        for name, plot in plots.items():
            figure = plot(drawing)
            if frames.suite.watermark:
                figure.text(0.45, 0.5, frames.suite.watermark, fontsize=44, color=GREY, alpha=0.25,
                            rotation=25, ha="center", va="center")  # fmt: skip
            png, svg = io.BytesIO(), io.BytesIO()
            FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
            yield f"{name}.png", png.getvalue()
            yield f"{name}.svg", svg.getvalue()


def curves_flops(drawing: Drawing) -> Figure:
    """Every method against compute, named at the end of its line."""
    frames = drawing.frames
    figure = Figure(figsize=(9.6, 5.6))
    axes = figure.add_axes((0.065, 0.09, 0.7, 0.82))
    axes.set_title("Held-out bits per byte against training compute", loc="left", pad=12)
    axes.text(0, 1.01, f"mean and range over seeds; {SCRATCH}: black, annealed at smaller budgets: "
              "diamonds; best fixed size: black dashes; growth: circle",
              transform=axes.transAxes, color=GREY, fontsize=7.5)  # fmt: skip
    for name in drawing.looks:
        _curve(axes, drawing, name, "flops")
    rungs = frames.runs[(frames.runs.role == "rung") & np.isfinite(frames.runs.curve_bpb)]
    means = rungs.groupby("method", sort=False)[["budget_flops", "curve_bpb"]].mean()
    axes.plot(means.budget_flops, means.curve_bpb, "D", color=INK, markersize=5, zorder=6)
    axes.set_xscale("log")
    axes.set_xlim(FIRST_SHOWN * frames.budget_flops, frames.budget_flops)
    axes.set_ylim(*drawing.limits)
    _fractions_of_budget(axes, frames.budget_flops)
    axes.set_ylabel("bits per byte, validation slice")
    _label_ends(axes, drawing)
    return figure


def curves_tokens_time(drawing: Drawing) -> Figure:
    """The same curves against bytes read and against wall-clock."""
    figure = Figure(figsize=(9.6, 4.2))
    panels = (
        ("tokens", "bytes predicted in training", formats.count),
        ("seconds", "wall-clock of training and growth", formats.seconds),
    )
    for i, (column, label, shown) in enumerate(panels):
        axes = figure.add_axes((0.065 + 0.385 * i, 0.12, 0.34, 0.84))
        for name in drawing.looks:
            _curve(axes, drawing, name, column)
        axes.set_xscale("log")
        ends = [drawing.curves[name][column].iloc[-1] for name in drawing.looks]
        if ends and max(ends) > 0:
            axes.set_xlim(FIRST_SHOWN * max(ends), max(ends) * 1.05)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, shown=shown: shown(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(*drawing.limits)
        axes.set_xlabel(label)
    figure.axes[0].set_ylabel("bits per byte, validation slice")
    order = sorted(drawing.looks, key=lambda name: -drawing.curves[name].bpb.iloc[-1])
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    figure.legend([lines[name] for name in order], order, loc="center left", fontsize=7.5,
                  bbox_to_anchor=(0.81, 0.5), handlelength=2.6)  # fmt: skip
    return figure


def small_multiples(drawing: Drawing) -> Figure:
    """One panel per method, beside scratch and the best fixed size."""
    names = [name for name in drawing.frames.methods("method") if name in drawing.curves]
    n_columns = min(4, max(1, len(names)))
    n_rows = max(1, math.ceil(len(names) / n_columns))
    figure = Figure(figsize=(9.6, 0.75 + 1.75 * n_rows))
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    top, bottom = 0.62 / figure.get_figheight(), 0.42 / figure.get_figheight()
    figure.subplots_adjust(0.06, bottom, 0.985, 1 - top, wspace=0.08, hspace=0.34)
    by_method = drawing.summary.set_index("method")
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.set_axis_off()
            continue
        for name in dict.fromkeys((SCRATCH, drawing.found.best_fixed, names[i])):
            if name in drawing.looks:
                _curve(axes, drawing, name, "flops")
        row = by_method.loc[names[i]]
        axes.set_title(names[i], loc="left", fontsize=8.5, fontweight="bold", pad=12)
        gap = formats.difference(row.vs_scratch, row.vs_scratch_low, row.vs_scratch_high)
        axes.text(0, 1.04, gap if row.status == "done" else row.status, fontsize=7, color=GREY,
                  transform=axes.transAxes)  # fmt: skip
        axes.tick_params(labelbottom=i + n_columns >= len(names))
    grid[0, 0].set_xscale("log")
    grid[0, 0].set_xlim(FIRST_SHOWN * drawing.frames.budget_flops, drawing.frames.budget_flops)
    grid[0, 0].set_ylim(*drawing.limits)
    for axes in grid.flat:
        _fractions_of_budget(axes, drawing.frames.budget_flops, label="")
    figure.text(0.06, 1 - 0.2 / figure.get_figheight(),
                f"Each method, {SCRATCH} (black) and the best fixed size (dashed): bits per byte "
                f"against compute; below each name: test bpb minus {SCRATCH}", va="center")
    return figure  # fmt: skip


def differences(drawing: Drawing) -> Figure:
    """Paired difference of every method to scratch and to the best fixed size."""
    rows = drawing.summary[drawing.summary.role == "method"].iloc[::-1].reset_index(drop=True)
    figure = Figure(figsize=(9.6, 0.95 + 0.3 * max(1, len(rows))))
    height = figure.get_figheight()
    axes = figure.add_axes((0.17, 0.45 / height, 0.55, 1 - 0.85 / height))
    axes.axvline(0, color=INK, linewidth=0.9)
    marks = ((SCRATCH, "o", 0.13, COLOURS[0]), (BEST_FIXED, "s", -0.13, COLOURS[1]))
    for against, marker, offset, colour in marks:
        values, y = rows[f"vs_{against}"], np.arange(len(rows)) + offset
        low, high = (rows[f"vs_{against}_{side}"] for side in ("low", "high"))
        axes.hlines(y, low, high, color=colour, linewidth=1.6)
        axes.plot(values, y, marker, color=colour, markersize=4.5, label=f"minus {against}")
    for i, row in enumerate(rows.itertuples()):
        note = f"{row.verdict}" if row.status == "done" else f"{row.verdict}; {row.status}"
        axes.text(1.02, i, note, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows.method))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("difference in test bits per byte: left of zero is better")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
    return figure


def hull(drawing: Drawing) -> Figure:
    """Test bpb of every fixed size at C*, and where the target lies among them."""
    rows = drawing.summary.set_index("method").loc[list(drawing.found.fixed)].sort_values("n_params")
    rows = rows[np.isfinite(rows.test_bpb)]
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.add_axes((0.11, 0.12, 0.82, 0.78))
    axes.set_title("Which fixed size is best at C*?", loc="left")
    axes.vlines(rows.n_params, rows.test_bpb_min, rows.test_bpb_max, color=INK, linewidth=1.2)
    axes.plot(rows.n_params, rows.test_bpb, "o", color=INK, markersize=5, label="fixed size")
    axes.plot(*_lower_hull(rows.n_params, rows.test_bpb), color=GREY, linewidth=1, zorder=1)
    grown = drawing.summary[drawing.summary.role == "method"]
    grown = grown[np.isfinite(grown.test_bpb)]
    axes.plot(grown.n_params, grown.test_bpb, "_", color=COLOURS[0], markersize=11,
              label="grown to the target")  # fmt: skip
    if SCRATCH in rows.index:
        axes.plot(*rows.loc[SCRATCH, ["n_params", "test_bpb"]], "*", color=COLOURS[1],
                  markersize=13, label=f"the target: {SCRATCH}")  # fmt: skip
    for name, row in rows.iterrows():
        axes.annotate(str(name), (row.n_params, row.test_bpb), (4, 6), fontsize=7.5, rotation=28,
                      textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(rows.n_params), [formats.count(n) for n in rows.n_params])
    axes.set_xlabel("parameters")
    axes.set_ylabel("bits per byte, test; bar: lowest to highest seed")
    axes.legend(fontsize=7.5)
    return figure


def spread(positions: list[float], gap: float) -> list[float]:
    """Positions in [0, 1] moved as little as possible (least squares) to lie `gap` apart."""
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    free = isotonic_regression(np.asarray(positions)[order] - steps).x
    moved = np.empty(len(positions))
    moved[order] = np.clip(free, 0, max(0.0, 1 - gap * (len(positions) - 1))) + steps
    return [float(y) for y in moved]


def _lower_hull(sizes: pd.Series, bpb: pd.Series) -> tuple[list[float], list[float]]:
    hull: list[tuple[float, float]] = []
    for point in zip(np.log(sizes), bpb, strict=True):
        while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    return [math.exp(x) for x, _ in hull], [y for _, y in hull]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _mean_curve(points: pd.DataFrame) -> pd.DataFrame:
    seeds = [p[np.isfinite(p.bpb)] for _, p in points.groupby("seed")]
    seeds = [p for p in seeds if len(p)]
    if not seeds:
        return pd.DataFrame()
    columns = ["flops", "tokens", "seconds", "bpb"]
    grid = seeds[0].flops.to_numpy(float)
    if any(len(p) != len(grid) or not np.allclose(p.flops, grid, rtol=1e-3) for p in seeds):
        ends = [(p.flops.min(), p.flops.max()) for p in seeds]
        grid = np.unique(np.concatenate([p.flops for p in seeds]))
        grid = grid[(grid >= max(e[0] for e in ends)) & (grid <= min(e[1] for e in ends))]
        seeds = [
            pd.DataFrame({name: np.interp(grid, p.flops, p[name]) for name in columns})
            for p in seeds
        ]
    stacked = np.stack([p[columns].to_numpy(float) for p in seeds])
    mean = pd.DataFrame(stacked.mean(0), columns=columns)
    return mean.assign(low=stacked[:, :, 3].min(0), high=stacked[:, :, 3].max(0))


def _curve(axes: Axes, drawing: Drawing, name: str, column: str) -> None:
    look, curve = drawing.looks[name], drawing.curves[name]
    axes.plot(curve[column], curve.bpb, color=look.colour, linestyle=look.dash,
              linewidth=look.width, zorder=look.order, label=name)  # fmt: skip
    if look.colour != GREY:
        axes.fill_between(curve[column], curve.low, curve.high, color=look.colour, alpha=0.13,
                          linewidth=0, zorder=1)  # fmt: skip
    growths = drawing.frames.growths[drawing.frames.growths.method == name]
    at = growths.groupby("growth")[[column, "bpb_before"]].mean()
    axes.plot(at[column], at.bpb_before, "o", color=look.colour, markersize=4.5,
              markerfacecolor="white", zorder=look.order + 1)  # fmt: skip
    runs = drawing.frames.of(name)
    if runs.status.isin(["diverged", "failed", "timeout"]).any():
        last = curve.iloc[-1]
        axes.plot(last[column], last.bpb, "x", color=look.colour, markersize=7, zorder=7)


def _fractions_of_budget(axes: Axes, budget: float, label: str = "training compute") -> None:
    fractions = {1 / 8: "C*/8", 1 / 4: "C*/4", 1 / 2: "C*/2", 1: "C*"}
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([u * budget for u in fractions], list(fractions.values()))
    if label:
        axes.set_xlabel(f"{label}; C* = {formats.flops(budget)} FLOPs")


def _label_ends(axes: Axes, drawing: Drawing) -> None:
    (low, high), budget = axes.get_ylim(), drawing.frames.budget_flops
    ends = {name: drawing.curves[name].iloc[-1] for name in drawing.looks}
    whole = {name: end.bpb for name, end in ends.items() if end.flops > 0.98 * budget}
    heights = [(bpb - low) / (high - low) for bpb in whole.values()]
    for name, start, height in zip(whole, heights, spread(heights, 0.037), strict=True):
        look = drawing.looks[name]
        axes.plot([1, 1.025, 1.06], [start, height, height], clip_on=False, linewidth=1.1,
                  transform=axes.transAxes, color=look.colour, linestyle=look.dash)  # fmt: skip
        axes.text(1.07, height, f"{whole[name]:.3f}  {name}", transform=axes.transAxes,
                  va="center", fontsize=7.8)  # fmt: skip
    for name in sorted(ends.keys() - whole.keys()):
        axes.annotate(name, (ends[name].flops, ends[name].bpb), (7, 8), fontsize=7.5, zorder=8,
                      textcoords="offset points", color=drawing.looks[name].colour,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1})
