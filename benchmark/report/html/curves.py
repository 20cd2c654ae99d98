"""The data of the interactive chart: every curve of the suite and how it is drawn."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.records.events import STOPPED
from benchmark.report import formats
from benchmark.report.controls import SCRATCH
from benchmark.report.drawing import FIRST_SHOWN, GREY, INK, Drawing, Look
from benchmark.report.frames import CURVE, Curve, Row, rows
from benchmark.report.statistics import MIN_SEEDS

AXES = CURVE[:-1]

_THEMED = {INK: "ink", GREY: "grey"}


def curves(drawing: Drawing) -> Row:
    """Methods in the order of the verdict table; nan and infinity are null."""
    summary = [m for m in drawing.analysis.tables["summary"].method if m in drawing.looks]
    names = [*summary, *(name for name in drawing.looks if name not in summary)]
    return {
        "budget": drawing.budget,
        "from": FIRST_SHOWN,
        "limits": list(drawing.limits),
        "methods": [_method(drawing, name) for name in names],
        "rungs": rows(drawing.rungs),
    }


def finite(value: float) -> float | None:
    """A number as JSON can write it."""
    return float(value) if math.isfinite(value) else None


def _method(drawing: Drawing, name: str) -> Row:
    frames, curve, look = drawing.analysis.frames, drawing.curves[name], drawing.looks[name]
    runs, events = frames.of(name), drawing.analysis.tables["growth_events"]
    return _look(look) | {
        "name": name,
        "role": str(runs.role.iloc[0]),
        "shown": name in drawing.prominent,
        "banded": name in drawing.ranked[:1] or look.colour == INK,
        "mean": _mean(curve),
        "minus": _mean(drawing.minus[name]) if name in drawing.minus else None,
        "seeds": [
            _seed(drawing, run) | {"aligned": _is_aligned(frames.curves[run["run_id"]], curve)}
            for run in rows(runs)
            if run["run_id"] in frames.curves
        ],
        "growths": [_growth(drawing, event) for event in rows(events[events.method == name])],
        "stopped": bool(runs.status.isin(STOPPED).any()),
    }


def _mean(curve: pd.DataFrame) -> Row:
    n = int(curve.n.iloc[0])
    band = "95 % interval" if n >= MIN_SEEDS else "lowest to highest"
    points = {name: _plain(curve[name].to_numpy()) for name in (*CURVE, "low", "high")}
    return {"n": n, "band": band} | points


def _seed(drawing: Drawing, run: Row) -> Row:
    """One run's own points, and their differences to scratch with the same seed if it has some."""
    own, minus = drawing.analysis.frames.curves[run["run_id"]], drawing.minus_scratch(run)
    points = {column: _plain(values) for column, values in own.items()}
    bpb = _plain(minus["bpb"]) if minus else []
    return {"run": run["run_id"], "seed": int(run["seed"]), "minus": bpb} | points


def _is_aligned(own: Curve, mean: pd.DataFrame) -> bool:
    """Whether the mean was taken at the compute where the run was evaluated."""
    at = mean.flops.to_numpy()
    return len(own["flops"]) == len(at) and np.allclose(own["flops"], at, rtol=1e-3)


def _look(look: Look) -> Row:
    dash = "solid" if look.dash == "-" else ",".join(f"{part * 2:g}px" for part in look.dash[1])
    colour = _THEMED.get(look.colour, look.colour)
    return {"colour": colour, "dash": dash, "width": look.width, "order": look.order}


def _growth(drawing: Drawing, event: Row) -> Row:
    """Where a growth is drawn: at the mean over seeds, before the growth."""
    means = {row["growth"]: row for row in drawing.growths[event["method"]]}[event["growth"]]
    curve, before = drawing.curves.get(SCRATCH), event["bpb_before"]
    scratch = math.nan if curve is None else np.interp(event["flops"], curve.flops, curve.bpb)
    return {axis: finite(means[axis]) for axis in AXES} | {
        "bpb": finite(before),
        "notes": [
            event["changed"] or "same size",
            f"at {formats.percent(event['budget_share'])} of C*, mean of "
            f"{formats.plural(event['n'], 'seed')}",
            f"bpb {formats.bpb(before)} before, {formats.bpb(event['bpb_after'])} after",
            f"Adam state: {event['state_policy']}",
        ],
        "minus": finite(before - scratch),
    }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers as JSON can write them, with as many decimals as the page shows."""
    return list(map(finite, values.round(6).tolist()))
