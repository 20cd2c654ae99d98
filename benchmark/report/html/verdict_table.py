"""The verdict table of the page: the cells of report.md, with values to sort by and intervals."""

import math
import re
from dataclasses import dataclass

from markupsafe import Markup

from benchmark.report.analysis import Analysis
from benchmark.report.frames import Row, rows
from benchmark.report.html.markup import inline, run_button
from benchmark.report.markdown import verdict_rows

WIDTH, MARGIN = 120, 3
"""Of the drawing of an interval, in pixels."""

_COLUMNS = {
    "test bpb": "test_bpb",
    "n": "n",
    "parameters": "n_params",
    "FLOPs": "flops",
    "tokens": "tokens",
    "epochs": "epochs",
    "time": "seconds",
}
"""Column of the summary behind a heading; `minus X` and `speed-up ...` are found by rule."""


@dataclass(frozen=True)
class Interval:
    """Positions in a drawing that all rows of a column share, in pixels."""

    zero: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What one cell shows, and what it sorts by: a number, a text, or nothing, which comes last."""

    html: Markup
    sort: str
    interval: Interval | None = None


@dataclass(frozen=True)
class Line:
    """One method."""

    role: str
    cells: list[Cell]


@dataclass(frozen=True)
class VerdictTable:
    """Headings, whether each column holds numbers, and the rows."""

    headings: dict[str, bool]
    roles: list[str]
    lines: list[Line]


def verdict_table(analysis: Analysis) -> VerdictTable:
    """One row per method, in the order of report.md."""
    summary = rows(analysis.tables["summary"])
    shown = verdict_rows(analysis)
    headings = {heading: _source(heading) for heading in (shown[0] if shown else ())}
    scales = {name: _scale(summary, name) for name in headings.values() if name.startswith("vs_")}
    lines = [
        Line(row["role"], [_cell(row, h, text, scales) for h, text in texts.items()])
        for row, texts in zip(summary, shown, strict=True)
    ]
    numeric = {
        heading: source in analysis.tables["summary"] for heading, source in headings.items()
    }
    return VerdictTable(numeric, list(dict.fromkeys(row["role"] for row in summary)), lines)


def _source(heading: str) -> str:
    if heading.startswith("minus "):
        return f"vs_{heading.removeprefix('minus ')}"
    return "speed_up" if heading.startswith("speed-up") else _COLUMNS.get(heading, "")


def _cell(row: Row, heading: str, text: str, scales: dict[str, tuple[float, float]]) -> Cell:
    source, html = _source(heading), inline(text)
    if heading == "method":
        return Cell(run_button(row["run_ids"].split()[0], html), row["method"])
    if source not in row:
        return Cell(html, re.sub(r"[*`]", "", text))
    value = float(row[source])
    sort = "" if math.isnan(value) else repr(value)
    return Cell(html, sort, _interval(row, source, scales[source]) if source in scales else None)


def _scale(summary: list[Row], name: str) -> tuple[float, float]:
    """Lowest and highest of zero and all finite limits of a column."""
    names = (name, f"{name}_low", f"{name}_high")
    values = [float(row[key]) for row in summary for key in names if key in row]
    finite = [0.0, *filter(math.isfinite, values)]
    return min(finite), max(finite)


def _interval(row: Row, name: str, scale: tuple[float, float]) -> Interval | None:
    value, low, high = (
        float(row.get(key, math.nan)) for key in (name, f"{name}_low", f"{name}_high")
    )
    if not math.isfinite(value) or scale[0] == scale[1]:
        return None
    ends = (low, high) if math.isfinite(low) and math.isfinite(high) else (value, value)
    return Interval(*(_position(x, scale) for x in (0.0, value, *ends)))


def _position(value: float, scale: tuple[float, float]) -> float:
    share = (value - scale[0]) / (scale[1] - scale[0])
    return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)
