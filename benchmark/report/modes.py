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

_MODES = ["method", "n", "source_flops", "source_share", "paid_flops", "paid_share", "test_bpb",
          "a_difference", "a_low", "a_high", "b_scratch_bpb", "b_difference", "b_low",
          "b_high"]  # fmt: skip

Annealed = dict[int, tuple[list[float], list[float]]]


def modes(frames: Frames) -> pd.DataFrame:
    """Each growing method minus scratch under both accounts, paired by seed, on the test split."""
    annealed = _annealed_scratch(frames)
    growths = frames.growths[frames.growths.growth == 1]
    sources = dict(zip(growths.run_id, growths.start_flops, strict=True))
    grown = frames.methods("method")
    found = [
        row
        for method in frames.methods()
        if (method in grown or method == RESTART_ONLY)
        and (row := _mode(frames, method, annealed, sources)) is not None
    ]
    return pd.DataFrame(found, columns=_MODES)


def _mode(frames: Frames, method: str, annealed: Annealed, sources: dict[str, float]) -> Row | None:
    runs = frames.results(method)
    runs = runs[[run_id in sources for run_id in runs.run_id]]
    if runs.empty or not annealed:
        return None
    spent = [sources[run_id] for run_id in runs.run_id]
    paid = [budget - flops for budget, flops in zip(runs.budget_flops, spent, strict=True)]
    cells: Row = {
        "method": method,
        "n": len(runs),
        "source_flops": math.fsum(spent) / len(spent),
        "paid_flops": math.fsum(paid) / len(paid),
        "test_bpb": mean_interval(list(runs.test_bpb)).value,
    }
    scratch: list[float] = []
    for mode, prices in (("a", list(runs.budget_flops)), ("b", paid)):
        scratch = [_scratch(annealed, s, at) for s, at in zip(runs.seed, prices, strict=True)]
        known = [not math.isnan(bpb) for bpb in scratch]
        gaps = [ours - theirs for ours, theirs in zip(runs.test_bpb, scratch, strict=True)]
        gap = mean_interval(gaps if all(known) else [])
        cells |= {f"{mode}_difference": gap.value, f"{mode}_low": gap.low, f"{mode}_high": gap.high}
    return cells | {
        "source_share": cells["source_flops"] / frames.budget_flops,
        "paid_share": cells["paid_flops"] / frames.budget_flops,
        "b_scratch_bpb": mean_interval(scratch).value,
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
