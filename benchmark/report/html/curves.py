"""The data of the interactive chart: every curve of the suite and how it is drawn."""

import math

import numpy as np
import pandas as pd

from benchmark.records import STOPPED
from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.drawing import FIRST_SHOWN, GREY, INK, Drawing, Look
from benchmark.report.frames import Row, rows
from benchmark.statistics import MIN_SEEDS

AXES = ("flops", "tokens", "seconds")

_COLUMNS = [*AXES, "bpb"]
_THEMED = {INK: "ink", GREY: "grey"}


def curves(drawing: Drawing) -> Row:
    """Methods in the order of the verdict table; nan and infinity are null."""
    analysis, frames = drawing.analysis, drawing.analysis.frames
    summary = [m for m in analysis.tables["summary"].method if m in drawing.looks]
    names = [*summary, *(name for name in drawing.looks if name not in summary)]
    roles = {name: str(frames.of(name).role.iloc[0]) for name in names}
    banded = {*drawing.ranked[:1], *(m for m in names if drawing.looks[m].colour == INK)}
    points = {str(run): own for run, own in frames.points.groupby("run_id", sort=False)}
    growths = _growths(analysis)
    methods = [
        {"name": name, "role": roles[name], "shown": name in drawing.prominent}
        | {"banded": name in banded, "growths": growths.get(name, [])}
        | _method(drawing, name, points)
        for name in names
    ]
    return {
        "budget": drawing.budget,
        "from": FIRST_SHOWN,
        "limits": list(drawing.limits),
        "methods": methods,
        "rungs": _rungs(drawing),
    }


def finite(value: float) -> float | None:
    """A number as JSON can write it."""
    return float(value) if math.isfinite(value) else None


def _method(drawing: Drawing, name: str, points: dict[str, pd.DataFrame]) -> Row:
    curve, runs = drawing.curves[name], drawing.analysis.frames.of(name)
    seeds = [_seed(run, points[run], curve) for run in runs.run_id if run in points]
    stopped = runs.status.isin(STOPPED).any()
    n = int(curve.n.iloc[0])
    return _look(drawing.looks[name]) | {
        "n": n,
        "band": "95 % interval" if n >= MIN_SEEDS else "lowest to highest",
        "mean": _plain(curve, [*_COLUMNS, "low", "high"]),
        "seeds": seeds,
        "stopped": bool(stopped),
    }


def _look(look: Look) -> Row:
    dash = "solid" if look.dash == "-" else ",".join(f"{part * 2:g}px" for part in look.dash[1])
    colour = _THEMED.get(look.colour, look.colour)
    return {"colour": colour, "dash": dash, "width": look.width, "order": look.order}


def _seed(run_id: str, points: pd.DataFrame, mean: pd.DataFrame) -> Row:
    """One run's own points; `aligned` if the mean was taken at the same compute."""
    ends = len(points) == len(mean)
    aligned = ends and np.allclose(points.flops, mean.flops, rtol=1e-3)
    return {"run": run_id, "seed": int(points.seed.iloc[0]), "aligned": bool(aligned)} | _plain(
        points, [*_COLUMNS, "step"]
    )


def _growths(analysis: Analysis) -> dict[str, list[Row]]:
    """Where the growths of each method are drawn: at the mean over seeds, before the growth."""
    names = [*AXES, "bpb_before"]
    means = analysis.frames.growths.groupby(["method", "growth"])[names].mean()
    found: dict[str, list[Row]] = {}
    for event in rows(analysis.tables["growth_events"]):
        at = dict(zip(names, means.loc[event["method"], event["growth"]], strict=True))
        marker = {axis: finite(at[axis]) for axis in AXES} | {"bpb": finite(at["bpb_before"])}
        found.setdefault(event["method"], []).append(marker | {"notes": _growth_notes(event)})
    return found


def _growth_notes(event: Row) -> list[str]:
    return [
        event["changed"] or "same size",
        f"at {formats.percent(event['budget_share'])} of C*, mean of "
        f"{formats.plural(event['n'], 'seed')}",
        f"bpb {formats.bpb(event['bpb_before'])} before, {formats.bpb(event['bpb_after'])} after",
        f"Adam state: {event['state_policy']}",
    ]


def _rungs(drawing: Drawing) -> list[Row]:
    """Where annealed runs at smaller budgets end, on every axis."""
    runs = drawing.analysis.frames.runs
    rungs = runs[(runs.role == "rung") & np.isfinite(runs.curve_bpb)]
    at = rungs.groupby("method", sort=False)[[*AXES, "budget_flops", "curve_bpb"]].mean()
    return [
        {"name": str(name), "bpb": finite(row["curve_bpb"]), "flops": finite(row["budget_flops"])}
        | {axis: finite(row[axis]) for axis in AXES[1:]}
        for name, row in zip(at.index, rows(at), strict=True)
    ]


def _plain(table: pd.DataFrame, names: list[str]) -> dict[str, list[float | None]]:
    columns = table[names].to_numpy(float).T
    return {k: list(map(finite, column)) for k, column in zip(names, columns, strict=True)}
