"""The verdict table of the page: the cells of report.md, with values to sort by and intervals."""

import math
import re
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from benchmark.report.analysis import Analysis
from benchmark.report.frames import Row, rows
from benchmark.report.html.markup import breakable, inline, run_link
from benchmark.report.markdown import verdict_rows
from benchmark.report.tables import GROUPS

OWN = "minus own"
"""Heading of the column that is folded away at first."""


_NOTE = re.compile(r" ([(\[][^()\[\]]*[)\]])")
"""What stands in brackets behind a value."""


@dataclass(frozen=True)
class Interval:
    """Where a difference, its interval and zero lie, in percent of the range of all methods.

    A control outside of it is drawn at its end.
    """

    side: str
    """Which of "better" and "worse" the whole interval says; empty if neither."""

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
    group: str
    cells: list[Cell]


@dataclass(frozen=True)
class VerdictTable:
    """Headings, each with the kind of its column, and the rows in groups with a title."""

    headings: dict[str, str]
    roles: dict[str, str]
    """In the words of the page."""

    lines: list[Line]

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """Consecutive rows that grow the same, or that are of one role."""
        return [(title, list(own)) for title, own in groupby(self.lines, lambda row: row.group)]

    @property
    def kinds(self) -> list[str]:
        """Of every column, as the style sheet calls it."""
        return list(self.headings.values())

    @property
    def has_intervals(self) -> bool:
        """Whether an interval is drawn: not with too few seeds."""
        drawn = [cell.interval for line in self.lines for cell in line.cells if cell.interval]
        return any(interval.low < interval.high for interval in drawn)


def verdict_table(analysis: Analysis) -> VerdictTable:
    """One row per method, in the order of report.md."""
    summary, shown = rows(analysis.tables["summary"]), verdict_rows(analysis)
    headings = list(shown[0]) if shown else []
    scale = _scale(summary, [_source(h) for h in headings if h.startswith("minus ")])
    lines = [
        Line(row["role"], row["group"], [_cell(row, h, text, scale) for h, text in texts.items()])
        for row, texts in zip(summary, shown, strict=True)
    ]
    roles = {row["role"]: GROUPS.get(row["role"], "methods") for row in summary}
    return VerdictTable({heading: _kind(heading) for heading in headings}, roles, lines)


def _source(heading: str) -> str:
    """Column of the summary behind a heading; "" if it is sorted as text."""
    if heading.startswith("minus "):
        return f"vs_{heading.removeprefix('minus ')}"
    if heading.startswith("speed-up"):
        return "speed_up"
    return {"test bpb": "test_bpb", "n": "n"}.get(heading, "")


def _kind(heading: str) -> str:
    if heading.startswith("minus "):
        return "difference own" if heading == OWN else "difference"
    return "number" if _source(heading) else heading.split(maxsplit=1)[0]


def _cell(row: Row, heading: str, text: str, scale: tuple[float, float]) -> Cell:
    source, html = _source(heading), Markup(_NOTE.sub(r" <small>\1</small>", str(inline(text))))
    if heading == "method":
        return Cell(run_link(row["run_ids"].split()[0], breakable(html)), row["method"])
    if not source:
        return Cell(breakable(html), re.sub(r"[*`]", "", text))
    value = float(row[source])
    interval = _interval(row, source, scale) if heading.startswith("minus ") else None
    sort = "" if math.isnan(value) else repr(value).replace("inf", "Infinity")
    return Cell(html, sort, interval)


def _scale(summary: list[Row], names: list[str]) -> tuple[float, float]:
    """Lowest and highest of zero and all finite limits of the methods in these columns."""
    methods = [row for row in summary if row["role"] == "method"] or summary
    limits = [float(row[f"{name}{end}"]) for name in names for end in ("", "_low", "_high")
              for row in methods]  # fmt: skip
    finite = [0.0, *filter(math.isfinite, limits)]
    return min(finite), max(finite)


def _interval(row: Row, name: str, scale: tuple[float, float]) -> Interval | None:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    lowest, highest = scale
    if not math.isfinite(value) or lowest == highest:
        return None
    ends = (low, high) if math.isfinite(low) and math.isfinite(high) else (value, value)
    inside = (min(max(x, lowest), highest) for x in (0.0, value, *ends))
    places = (round(100 * (x - lowest) / (highest - lowest), 2) for x in inside)
    return Interval("better" if high < 0 else "worse" if low > 0 else "", *places)
