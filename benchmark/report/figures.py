"""Figures of a report as PNG and SVG, and their numbers as CSV: bytes depend on records alone."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

from benchmark.report.drawing import GREY, STYLE, Drawing, Plot
from benchmark.report.plots import curves, differences, hull, main_effects, methods

PLOTS: dict[str, Callable[[Drawing], Plot]] = {
    "differences": differences,
    "curves_flops": curves,
    "methods": methods,
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
    crossed = {EFFECTS: main_effects} if EFFECTS in drawing.analysis.tables else {}
    look: dict[str, Any] = {"fontsize": 30, "color": GREY, "alpha": 0.25, "rotation": 25}
    with styled():
        for name, plot in {**PLOTS, **crossed}.items():
            figure, data = (shown := plot(drawing)).figure, shown.data
            if watermark:
                figure.text(0.45, 0.5, watermark, ha="center", va="center", **look)
            for kind, metadata in {"png": {"Software": None}, "svg": UNDATED}.items():
                figure.savefig(file := io.BytesIO(), format=kind, metadata=metadata)
                yield f"{name}.{kind}", file.getvalue()
            yield f"{name}.csv", data.to_csv(index=False, lineterminator="\n").encode()
