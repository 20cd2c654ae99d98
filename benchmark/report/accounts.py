"""What growing saves: compute to equal loss, read off curves.

Verdicts, and this, charge all training, the source's included; `conventions` shows what other ways
of counting would say.
"""

import math

import pandas as pd

from benchmark.report.controls import SCRATCH
from benchmark.report.frames import Frames, Row
from benchmark.report.statistics import cost_to_target, mean_interval, speed_up

_SPEED_UP = ["method", "role", "reference", "budget", "loss", "n", "n_reached", "cost", "speed_up",
             "low", "high", "saving"]  # fmt: skip


def speed_ups(frames: Frames) -> pd.DataFrame:
    """Speed-up of every method over scratch at each loss that an annealed scratch run ended with.

    nan unless all seeds reached the loss. Paired by seed: the loss is the one that scratch of the
    same seed ends with, as a mean over seeds would be out of reach for about half of scratch's own
    runs. The cost is the mean over seeds of the FLOPs to that loss, infinite if one did not get
    there.
    """
    rungs = frames.methods("rung") + [m for m in frames.methods("control") if m == SCRATCH]
    rungs = [rung for rung in rungs if rung in frames.validation]
    budgets = {rung: frames.of(rung).budget_flops.max() / frames.budget_flops for rung in rungs}
    found = [
        _speed_up(frames, method, rung) | {"budget": budgets[rung]}
        for method in frames.methods("method", "control", "hull")
        for rung in sorted(rungs, key=budgets.__getitem__)
    ]
    return pd.DataFrame(found, columns=_SPEED_UP)


def _speed_up(frames: Frames, method: str, reference: str) -> Row:
    ours, theirs = frames.rows_of(method), frames.rows_of(reference)
    losses = {s: theirs[s]["curve_bpb"] for s in ours if theirs.get(s, {}).get("status") == "done"}
    costs = [[_cost(frames, runs[s], losses[s]) for s in losses] for runs in (theirs, ours)]
    result = speed_up(*costs)
    return {
        "method": method,
        "role": next(iter(ours.values()))["role"],
        "reference": reference,
        "loss": mean_interval(list(losses.values())).value,
        "n": result.estimate.n,
        "n_reached": result.n_reached,
        "cost": mean_interval(costs[1]).value,
        "speed_up": result.estimate.value,
        "low": result.estimate.low,
        "high": result.estimate.high,
        "saving": 1 - 1 / result.estimate.value,
    }


def _cost(frames: Frames, run: Row, loss: float) -> float:
    """FLOPs to a loss; infinite for a run that failed, however good it was before."""
    if run["status"] != "done" or run["run_id"] not in frames.curves:
        return math.inf
    curve = frames.curves[run["run_id"]]
    return cost_to_target(curve["flops"].tolist(), curve["bpb"].tolist(), loss)
