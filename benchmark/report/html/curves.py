"""The data of the interactive chart: every curve of the suite and how it is drawn."""

import math

import numpy as np
from numpy.typing import NDArray

from benchmark.records.events import STOPPED
from benchmark.report import formats
from benchmark.report.drawing import FIRST_SHOWN, GREY, INK, Drawing, Look
from benchmark.report.frames import CURVE, Curve, Row, rows
from benchmark.report.statistics import MIN_SEEDS

AXES = CURVE[:-1]

_THEMED = {INK: "ink", GREY: "grey"}


def curves(drawing: Drawing) -> Row:
    """Methods in the order of the verdict table; nan and infinity are null."""
    analysis, frames = drawing.analysis, drawing.analysis.frames
    summary = [m for m in analysis.tables["summary"].method if m in drawing.looks]
    names = [*summary, *(name for name in drawing.looks if name not in summary)]
    roles = {name: str(frames.of(name).role.iloc[0]) for name in names}
    banded = {*drawing.ranked[:1], *(m for m in names if drawing.looks[m].colour == INK)}
    growths = _growths(drawing)
    methods = [
        {"name": name, "role": roles[name], "shown": name in drawing.prominent}
        | {"banded": name in banded, "growths": growths.get(name, [])}
        | _method(drawing, name)
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


def _method(drawing: Drawing, name: str) -> Row:
    frames, curve = drawing.analysis.frames, drawing.curves[name]
    runs, at = frames.of(name), curve.flops.to_numpy()
    seeds = [
        _seed(run, seed, frames.curves[run], at)
        for seed, run in zip(runs.seed, runs.run_id, strict=True)
        if run in frames.curves
    ]
    stopped = runs.status.isin(STOPPED).any()
    n = int(curve.n.iloc[0])
    return _look(drawing.looks[name]) | {
        "n": n,
        "band": "95 % interval" if n >= MIN_SEEDS else "lowest to highest",
        "mean": {k: _plain(curve[k].to_numpy()) for k in (*CURVE, "low", "high")},
        "seeds": seeds,
        "stopped": bool(stopped),
    }


def _look(look: Look) -> Row:
    dash = "solid" if look.dash == "-" else ",".join(f"{part * 2:g}px" for part in look.dash[1])
    colour = _THEMED.get(look.colour, look.colour)
    return {"colour": colour, "dash": dash, "width": look.width, "order": look.order}


def _seed(run_id: str, seed: int, curve: Curve, mean: NDArray[np.float64]) -> Row:
    """One run's own points; `aligned` if the mean was taken at the same compute."""
    aligned = len(curve["flops"]) == len(mean) and np.allclose(curve["flops"], mean, rtol=1e-3)
    return {"run": run_id, "seed": int(seed), "aligned": bool(aligned)} | {
        k: _plain(values) for k, values in curve.items()
    }


def _growths(drawing: Drawing) -> dict[str, list[Row]]:
    """Where the growths of each method are drawn: at the mean over seeds, before the growth."""
    means = {(m, row["growth"]): row for m, own in drawing.growths.items() for row in own}
    found: dict[str, list[Row]] = {}
    for event in rows(drawing.analysis.tables["growth_events"]):
        at = means[event["method"], event["growth"]]
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


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    if np.isfinite(values).all():
        return values.tolist()
    return list(map(finite, values))
