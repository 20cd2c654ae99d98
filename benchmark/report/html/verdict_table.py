"""The verdict table of the page: the cells of report.md, with values to sort by and intervals."""

import math
import re
from itertools import groupby
from operator import itemgetter

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


def verdict_table(analysis: Analysis) -> Row:
    """One row per method, in the order of report.md, as the template wants it.

    Returns:
        `headings`, each with the kind of its column as the style sheet calls it; `roles` in the
        words of the page; `groups`, each a title with its rows of `role` and `cells`; and whether
        an interval is drawn, as it is not with too few seeds (`has_intervals`).
    """
    summary, shown = rows(analysis.tables["summary"]), verdict_rows(analysis)
    headings = {heading: _kind(heading) for heading in shown[0]}
    scale = _scale(summary, [_source(h) for h in headings if h.startswith("minus ")])
    lines = [
        {"role": row["role"], "group": row["group"],
         "cells": [_cell(row, heading, text, scale) for heading, text in texts.items()]}
        for row, texts in zip(summary, shown, strict=True)
    ]  # fmt: skip
    return {
        "headings": headings,
        "roles": {row["role"]: GROUPS.get(row["role"], "methods") for row in summary},
        "groups": [(name, list(own)) for name, own in groupby(lines, itemgetter("group"))],
        "has_intervals": bool(analysis.tables["comparisons"].low.notna().any()),
    }


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


def _cell(row: Row, heading: str, text: str, scale: tuple[float, float]) -> Row:
    """What a cell shows, its interval, and what it sorts by: a number, a text, or nothing: last."""
    source, html = _source(heading), Markup(_NOTE.sub(r" <small>\1</small>", str(inline(text))))
    interval = _interval(row, source, scale) if heading.startswith("minus ") else None
    if heading == "method":
        html, sort = run_link(row["run_ids"].split()[0], breakable(html)), row["method"]
    elif not source:
        html, sort = breakable(html), re.sub(r"[*`]", "", text)
    elif math.isnan(row[source]):
        sort = ""
    else:
        sort = repr(float(row[source])).replace("inf", "Infinity")
    return {"html": html, "sort": sort, "interval": interval}


def _scale(summary: list[Row], names: list[str]) -> tuple[float, float]:
    """Lowest and highest of zero and all finite limits of the methods in these columns."""
    methods = [row for row in summary if row["role"] == "method"] or summary
    limits = [float(row[f"{name}{end}"]) for name in names for end in ("", "_low", "_high")
              for row in methods]  # fmt: skip
    finite = [0.0, *filter(math.isfinite, limits)]
    return min(finite), max(finite)


def _interval(row: Row, name: str, scale: tuple[float, float]) -> Row | None:
    """Where zero, a difference and its interval lie, in percent of the range of all methods.

    `side` is which of "better" and "worse" the whole interval says; empty if neither. A control
    outside of the range is drawn at its end.
    """
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    lowest, highest = scale
    if not math.isfinite(value) or lowest == highest:
        return None
    ends = (low, high) if math.isfinite(low) and math.isfinite(high) else (value, value)
    inside = (min(max(x, lowest), highest) for x in (0.0, value, *ends))
    places = [round(100 * (x - lowest) / (highest - lowest), 2) for x in inside]
    side = "better" if high < 0 else "worse" if low > 0 else ""
    return {"side": side, **dict(zip(("zero", "value", "low", "high"), places, strict=True))}
