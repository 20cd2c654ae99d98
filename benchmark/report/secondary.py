"""Equal text and equal time: secondary, because neither is what training costs everywhere.

A curve is read where scratch of the same seed ended, in tokens and in seconds of wall-clock. A run
that goes on from there is not annealed at that point; one that ended before it is not read at all.
"""

import math

import pandas as pd

from benchmark.report.controls import SCRATCH
from benchmark.report.frames import Curve, Frames, Row
from benchmark.report.statistics import mean_interval, value_at

AXES = ("tokens", "seconds")
_SECONDARY = ["method", "role", "axis", "n", "n_read", "total", "ratio", "bpb", "difference", "low",
              "high"]  # fmt: skip


def secondary(frames: Frames) -> pd.DataFrame:
    """Per method and axis: how much it used, and its curve where scratch of that seed ended."""
    if SCRATCH not in frames.methods():
        return pd.DataFrame(columns=_SECONDARY)
    found = [
        _axis(frames, method, axis)
        for method in frames.methods("method", "control", "hull")
        for axis in AXES
    ]
    return pd.DataFrame([row for row in found if row["n"]], columns=_SECONDARY)


def _axis(frames: Frames, method: str, axis: str) -> Row:
    ours, theirs = frames.rows_of(method), frames.rows_of(SCRATCH)
    pairs = [(ours[s], theirs[s]) for s in ours if s in theirs]
    pairs = [pair for pair in pairs if pair[0]["status"] == pair[1]["status"] == "done"]
    totals, ends = ([float(pair[i][axis]) for pair in pairs] for i in (0, 1))
    values = [_read(frames.curves[run["run_id"]], axis, end[axis]) for run, end in pairs]
    gaps = [value - end["curve_bpb"] for value, (_, end) in zip(values, pairs, strict=True)]
    is_read = [not math.isnan(value) for value in values]
    gap = mean_interval(gaps if all(is_read) else [])
    return {
        "method": method,
        "role": next(iter(ours.values()))["role"],
        "axis": axis,
        "n": len(pairs),
        "n_read": sum(is_read),
        "total": mean_interval(totals).value,
        "ratio": mean_interval([a / b for a, b in zip(totals, ends, strict=True)]).value,
        "bpb": mean_interval(values if all(is_read) else []).value,
        "difference": gap.value,
        "low": gap.low,
        "high": gap.high,
    }


def _read(curve: Curve, axis: str, at: float) -> float:
    """The curve at `at`; a position a rounding away from its end is its end."""
    x = curve[axis]
    inside = x > 0
    nearest = float(x[-1]) if math.isclose(x[-1], at, rel_tol=1e-9) else at
    return value_at(x[inside].tolist(), curve["bpb"][inside].tolist(), nearest)
