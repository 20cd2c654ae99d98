"""Who pays for the source: everyone from nothing (A), or a source that is there anyway (B).

Mode A is the headline: all training is charged. Mode B answers the owner of a trained small model,
to whom its training is sunk cost: the method pays only what came after its first growth began, and
meets a scratch run that is annealed at those FLOPs. Between the budgets at which scratch was
annealed, its loss is read off a line over log FLOPs, never beyond them. What a source is worth that
trains on and never grows shows in the row of `restart_only`.
"""

import math

import pandas as pd

from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.frames import Frames, Row
from benchmark.report.statistics import mean_interval, value_at

_MODES = ["method", "n", "source_share", "paid_share", "test_bpb", "scratch_bpb", "difference",
          "low", "high"]  # fmt: skip

Annealed = dict[int, tuple[list[float], list[float]]]


def modes(frames: Frames) -> pd.DataFrame:
    """Each growing method minus scratch at what it paid itself, by seed, on the test split."""
    annealed = _annealed_scratch(frames)
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
    budgets, bpb = annealed.get(seed, ([], []))
    return value_at(budgets, bpb, flops)


def _annealed_scratch(frames: Frames) -> Annealed:
    """Budgets and test bpb of the annealed scratch runs of each seed, smallest budget first."""
    of_scratch = (frames.runs.role == "rung") | (frames.runs.method == SCRATCH)
    runs = frames.runs[of_scratch & (frames.runs.status == "done")]
    by_seed = runs.sort_values("budget_flops", kind="stable").groupby("seed")
    return {
        int(str(seed)): (found.budget_flops.tolist(), found.test_bpb.tolist())
        for seed, found in by_seed
    }
