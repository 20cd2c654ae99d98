"""What growing saves: compute to equal loss, and the same with the source as sunk cost.

Verdicts charge all training (mode A). Mode B answers the owner of a trained small model, to whom
its training is sunk cost: the method pays only what came after its first growth began, and meets a
scratch run that is annealed at those FLOPs. Between the budgets at which scratch was annealed, its
loss is read off a line over log FLOPs, never beyond them. What a source is worth that trains on and
never grows shows in the row of `restart_only`.
"""

import math

import numpy as np
import pandas as pd

from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.frames import Frames, Row
from benchmark.report.statistics import cost_to_target, mean_interval, speed_up

_SPEED_UP = ["method", "role", "reference", "budget", "loss", "n", "n_reached", "cost", "speed_up",
             "low", "high", "saving"]  # fmt: skip
_MODES = ["method", "n", "source_share", "paid_share", "test_bpb", "scratch_bpb", "difference",
          "low", "high"]  # fmt: skip

Annealed = dict[int, tuple[list[float], list[float]]]


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


def modes(frames: Frames) -> pd.DataFrame:
    """Each growing method minus scratch at what it paid itself, by seed, on the test split."""
    annealed = annealed_scratch(frames)
    growths = frames.growths[frames.growths.growth == 1].set_index("run_id").start_flops
    grown = {*frames.methods("method"), RESTART_ONLY}
    found = [
        _mode(method, runs, growths[runs.run_id], annealed)
        for method in frames.methods()
        if method in grown and len(runs := _grown(frames, method, growths)) and annealed
    ]
    return pd.DataFrame(found, columns=_MODES)


def _grown(frames: Frames, method: str, growths: pd.Series) -> pd.DataFrame:
    runs = frames.results(method)
    return runs[runs.run_id.isin(growths.index)]


def _mode(method: str, runs: pd.DataFrame, source: pd.Series, annealed: Annealed) -> Row:
    budgets, spent = runs.budget_flops.to_numpy(), source.to_numpy()
    paid = zip(runs.seed, budgets - spent, strict=True)
    scratch = [_scratch(annealed, seed, flops) for seed, flops in paid]
    gaps = [ours - theirs for ours, theirs in zip(runs.test_bpb, scratch, strict=True)]
    gap = mean_interval([] if any(map(math.isnan, scratch)) else gaps)
    return {
        "method": method,
        "n": len(runs),
        "source_share": float((spent / budgets).mean()),
        "paid_share": float((1 - spent / budgets).mean()),
        "test_bpb": mean_interval(list(runs.test_bpb)).value,
        "scratch_bpb": mean_interval(scratch).value,
        "difference": gap.value,
        "low": gap.low,
        "high": gap.high,
    }


def _scratch(annealed: Annealed, seed: int, flops: float) -> float:
    """Test bpb of scratch annealed at some compute; nan outside of what was trained."""
    budgets, bpb = annealed.get(seed, ([], []))
    if not budgets or not budgets[0] <= flops <= budgets[-1]:
        return math.nan
    return float(np.interp(math.log(flops), list(map(math.log, budgets)), bpb))


def annealed_scratch(frames: Frames) -> Annealed:
    """Budgets and test bpb of the annealed scratch runs of each seed, smallest budget first."""
    of_scratch = (frames.runs.role == "rung") | (frames.runs.method == SCRATCH)
    runs = frames.runs[of_scratch & (frames.runs.status == "done")]
    by_seed = runs.sort_values("budget_flops", kind="stable").groupby("seed")
    return {
        int(str(seed)): (found.budget_flops.tolist(), found.test_bpb.tolist())
        for seed, found in by_seed
    }
