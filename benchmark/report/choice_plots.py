"""Figures of what choices are worth: the trials of tuning, and the factors of a crossed design."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark.report.drawing import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    LINE,
    TINY,
    WIDTH,
    Drawing,
    Look,
    Plot,
    label_lines,
    margin_for,
)
from benchmark.report.frames import rows


def best_of(drawing: Drawing) -> Plot:
    """Expected validation bpb of the best of k trials of each tuned method."""
    table = drawing.analysis.tables["tuning_best_of"]
    curves = {str(name): curve for name, curve in table.groupby("method", sort=False)}
    height = max(2.6, 0.9 + LINE * len(curves))
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.1, 0.38 / height, 0.6, 1 - 0.7 / height))
    axes.set_title("What more trials of tuning buy", loc="left")
    ends, n = [], len(COLOURS)
    for i, (name, curve) in enumerate(curves.items()):
        look = Look(COLOURS[i % n], DASHES[i // n % len(DASHES)])
        line = curve[np.isfinite(curve.expected_val_bpb)]
        if len(line):
            axes.plot(line.k, line.expected_val_bpb, color=look.colour, linestyle=look.dash)
            end = float(line.expected_val_bpb.iloc[-1])
            ends.append((end, f"{end:.3f}  {name}", look))
    axes.set_xlim(1, max(2, table.k.max()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials k")
    axes.set_ylabel("expected lowest bits per byte, validation")
    label_lines(axes, ends, LINE / (height - 0.7))
    return Plot(figure, table)


def main_effects(drawing: Drawing) -> Plot:
    """Change in bpb from each factor's reference level, and the variance that factors explain."""
    table, shares = (drawing.analysis.tables[name] for name in ("main_effects", "effect_shares"))
    shown = table.iloc[::-1].reset_index(drop=True)
    explained = shares[shares.kind != "interaction"].iloc[::-1]
    labels = [
        f"{row['factor']}: {row['level']}" if row["level"] == row["reference"] else row["level"]
        for row in rows(shown)
    ]
    height = 0.85 + 0.17 * max(len(shown), len(explained) + 2)
    figure = Figure(figsize=(WIDTH, height))
    bottom, top = 0.36 / height, 1 - 0.64 / height
    x = [margin_for(names) / WIDTH for names in (labels, list(explained.term))]
    room = 0.97 - sum(x)
    left = figure.add_axes((x[0], bottom, 0.62 * room, top))
    right = figure.add_axes((x[0] + 0.62 * room + x[1], bottom, 0.38 * room, top))
    left.axvline(0, color=INK, linewidth=0.8)
    is_reference = shown.level == shown.reference
    effects = shown[~is_reference]
    left.hlines(
        effects.index, effects.effect_low, effects.effect_high, color=COLOURS[0], linewidth=1.2
    )
    left.plot(effects.effect, effects.index, "o", color=COLOURS[0], markersize=3)
    left.plot(shown[is_reference].effect, shown.index[is_reference], "o", color=INK,
              markerfacecolor="white", markersize=3.5)  # fmt: skip
    left.set_yticks(range(len(shown)), labels, fontsize=TINY)
    left.set_ylim(-0.6, len(shown) - 0.4)
    left.set_title("change in test bits per byte", loc="left")
    left.set_xlabel("95 % interval; left is better; circle: reference")
    right.barh(list(explained.term), explained.share, color=[
        GREY if kind == "residual" else COLOURS[1] for kind in explained.kind
    ], height=0.6)  # fmt: skip
    right.set_title("variance explained", loc="left")
    right.tick_params(axis="y", labelsize=TINY)
    right.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
    right.xaxis.set_major_locator(MaxNLocator(3))
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    return Plot(figure, table)
