"""Figures of a report as PNG and SVG, and their numbers as CSV: bytes depend on records alone."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

from benchmark.report.choice_plots import best_of, main_effects
from benchmark.report.curve_plots import curves_flops, curves_tokens_time, methods
from benchmark.report.drawing import GREY, STYLE, Drawing, Plot
from benchmark.report.score_plots import differences, hull

PLOTS: dict[str, Callable[[Drawing], Plot]] = {
    "curves_flops": curves_flops,
    "curves_tokens_time": curves_tokens_time,
    "methods": methods,
    "differences": differences,
    "hull": hull,
}
OPTIONAL: dict[str, tuple[str, Callable[[Drawing], Plot]]] = {
    "tuning_best_of": ("tuning_best_of", best_of),
    "main_effects": ("main_effects", main_effects),
}
"""Figures of tables that only some suites have, each with the table's name."""


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
    tables, watermark = drawing.analysis.tables, drawing.analysis.frames.suite.watermark
    possible = {name: plot for name, (table, plot) in OPTIONAL.items() if table in tables}
    with styled():
        for name, plot in {**PLOTS, **possible}.items():
            figure, data = (shown := plot(drawing)).figure, shown.data
            if watermark:
                look: dict[str, Any] = {
                    "fontsize": 30,
                    "color": GREY,
                    "alpha": 0.25,
                    "rotation": 25,
                }
                figure.text(0.45, 0.5, watermark, ha="center", va="center", **look)
            for kind, metadata in {"png": {"Software": None}, "svg": UNDATED}.items():
                figure.savefig(file := io.BytesIO(), format=kind, metadata=metadata)
                yield f"{name}.{kind}", file.getvalue()
            yield f"{name}.csv", data.to_csv(index=False, lineterminator="\n").encode()
