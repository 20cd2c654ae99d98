"""The comparison itself: controls, paired differences, speed-ups, and what they allow to say."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmark.errors import RecordError
from benchmark.report.frames import ABSENT, Frames, Row
from benchmark.statistics import (
    Comparison,
    Estimate,
    Verdict,
    compare,
    cost_to_target,
    deviation,
    hierarchical_bootstrap,
    holm,
    is_significant,
    joint_verdict,
    mean_interval,
    speed_up,
    verdict,
)

SCRATCH = "scratch"
SCRATCH_SMALL = "scratch_small"
BEST_FIXED = "best_fixed"

_COMPARISON = ["method", "role", "control", "n", "difference", "low", "high", "bootstrap_low",
               "bootstrap_high", "sd", "p", "p_holm", "detectable", "correlation", "verdict",
               "significant"]  # fmt: skip
_SPEED_UP = ["method", "role", "reference", "budget", "loss", "n", "n_reached", "speed_up", "low",
             "high", "saving"]  # fmt: skip

Blocks = dict[str, tuple[np.ndarray, np.ndarray]]
Curves = dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What every method is held against."""

    fixed: tuple[str, ...]
    """Methods that train one size for the whole of C*, in display order."""

    best_fixed: str | None
    """The one with the lowest mean bpb on the validation split."""

    missing: tuple[str, ...]
    """Controls without a single result; while there are any, there is no verdict."""

    def names(self) -> dict[str, str | None]:
        """Method behind each control of a verdict."""
        scratch = SCRATCH if SCRATCH in self.fixed else None
        return {SCRATCH: scratch, BEST_FIXED: self.best_fixed}


def controls(frames: Frames) -> Controls:
    """The controls of a suite; rungs are none, as they spend less than C*."""
    hull = frames.methods("hull")
    fixed = [m for m in frames.methods("control") if m == SCRATCH or m.startswith(SCRATCH_SMALL)]
    means = {method: results(frames, method).val_bpb.mean() for method in [*fixed, *hull]}
    missing = [] if SCRATCH in means else [SCRATCH]
    missing += [] if any(m.startswith(SCRATCH_SMALL) for m in fixed) else [SCRATCH_SMALL]
    missing += [method for method, mean in means.items() if math.isnan(mean)]
    ran = {method: mean for method, mean in means.items() if not math.isnan(mean)}
    return Controls(
        fixed=tuple(means),
        best_fixed=min(ran, key=ran.__getitem__) if ran else None,
        missing=tuple(missing),
    )


def results(frames: Frames, method: str) -> pd.DataFrame:
    """Runs of a method that have a result, good or infinite, by seed."""
    runs = frames.of(method)
    return runs[~runs.status.isin(ABSENT)]


def paired(frames: Frames, method: str, control: str, column: str = "test_bpb") -> Comparison:
    """Method minus control over the seeds where the control is done and the method has a result."""
    ours, theirs = results(frames, method)[column], results(frames, control)[column]
    seeds = [s for s in ours.index if s in theirs.index and math.isfinite(theirs[s])]
    return compare([ours[s] for s in seeds], [theirs[s] for s in seeds])


def comparisons(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every method against scratch and against the best fixed size, one row each."""
    blocks, compared = _blocks(frames), []
    for against, control in found.names().items():
        if control is None or not len(results(frames, control)):
            continue
        family = [_comparison(frames, blocks, m, control) for m in _contestants(frames, control)]
        tested = [row for row in family if row["role"] == "method"]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row |= {"p_holm": p, "significant": is_significant(row["n"], p)}
        compared += [{"against": against} | row for row in family]
    return pd.DataFrame(compared, columns=["against", *_COMPARISON])


def verdicts(frames: Frames, found: Controls, compared: pd.DataFrame) -> dict[str, str]:
    """One word per method with role "method"; "no verdict" while a control is missing."""
    words = {}
    for method in frames.methods("method"):
        mine = compared[compared.method == method]
        if found.missing or len(mine) < len(found.names()):
            words[method] = "no verdict"
        else:
            word: Verdict = joint_verdict(list(mine.verdict))
            deciding = mine.significant[mine.verdict == word]
            strong = deciding.all() if word == "better" else deciding.any()
            words[method] = f"significantly {word}" if strong else word
    return words


def mean_test_bpb(frames: Frames, method: str) -> Estimate:
    """Mean test bpb over a method's results; infinite if one of them is."""
    return mean_interval(list(results(frames, method).test_bpb))


def oversized(
    frames: Frames, found: Controls, target_params: float
) -> list[tuple[str, Comparison]]:
    """Smaller fixed sizes that beat scratch at C*, best first.

    A size counts if its paired interval lies below zero or, lacking that, if its mean is lower by
    more than the standard deviation of scratch over seeds.
    """
    noise = deviation(list(results(frames, SCRATCH).test_bpb))
    noise = noise if math.isfinite(noise) else 0.0
    smaller = [m for m in found.fixed if frames.of(m).n_params.max() < target_params]
    pairs = [(method, paired(frames, method, SCRATCH)) for method in smaller]
    beating = [
        (method, comparison)
        for method, comparison in pairs
        if verdict(comparison) == "better" or comparison.difference.value < -noise
    ]
    return sorted(beating, key=lambda pair: pair[1].difference.value)


def speed_ups(frames: Frames) -> pd.DataFrame:
    """Speed-up of every method over scratch at each loss that an annealed scratch run ended with.

    Paired by seed: the loss is the one that scratch of the same seed ends with, as a mean over
    seeds would be out of reach for about half of scratch's own runs.
    """
    rungs = frames.methods("rung") + [m for m in frames.methods("control") if m == SCRATCH]
    rungs = [rung for rung in rungs if len(results(frames, rung))]
    budgets = {rung: frames.of(rung).budget_flops.max() / frames.budget_flops for rung in rungs}
    curves = {
        str(run_id): (list(points.flops), list(points.bpb))
        for run_id, points in frames.points.groupby("run_id", sort=False)
    }
    rows = [
        _speed_up(frames, curves, method, rung) | {"budget": budgets[rung]}
        for method in frames.methods("method", "control", "hull")
        for rung in sorted(rungs, key=budgets.__getitem__)
    ]
    return pd.DataFrame(rows, columns=_SPEED_UP)


def _contestants(frames: Frames, control: str) -> list[str]:
    return [m for m in frames.methods("method", "control", "hull") if m != control]


def _comparison(frames: Frames, blocks: Blocks, method: str, control: str) -> Row:
    comparison = paired(frames, method, control)
    difference = asdict(comparison.difference)
    bootstrap = _bootstrap(frames, blocks, method, control)
    return {
        "method": method,
        "role": frames.of(method).role.iloc[0],
        "control": control,
        "n": difference["n"],
        "difference": difference["value"],
        "low": difference["low"],
        "high": difference["high"],
        "bootstrap_low": round(bootstrap.low, 6),  # finer digits are Monte Carlo error
        "bootstrap_high": round(bootstrap.high, 6),
        "sd": comparison.sd,
        "p": comparison.p_value,
        "p_holm": math.nan,
        "detectable": comparison.detectable,
        "correlation": comparison.correlation,
        "verdict": verdict(comparison),
        "significant": False,
    }


def _bootstrap(frames: Frames, blocks: Blocks, method: str, control: str) -> Estimate:
    ours, theirs = (frames.of(name) for name in (method, control))
    done = [s for s in ours.index if s in theirs.index]
    done = [s for s in done if ours.status[s] == theirs.status[s] == "done"]
    if not done:
        return Estimate(n=0, value=math.nan)
    pairs = [(blocks[ours.run_id[s]], blocks[theirs.run_id[s]]) for s in done]
    sizes = [size for pair in pairs for _, size in pair]
    if any(not np.array_equal(size, sizes[0]) for size in sizes):
        raise RecordError(f"{method} and {control} scored different blocks of the test split")
    return hierarchical_bootstrap([a - b for (a, _), (b, _) in pairs], sizes[0])


def _blocks(frames: Frames) -> Blocks:
    return {
        run.run_id: (
            np.asarray(event["block_nats"], float),
            np.asarray(event["block_bytes"], float),
        )
        for run in frames.suite.runs
        for event in run.of("final")
        if event["split"] == "test"
    }


def _speed_up(frames: Frames, curves: Curves, method: str, reference: str) -> Row:
    ours, theirs = frames.of(method), frames.of(reference)
    seeds = [s for s in ours.index if s in theirs.index and theirs.status[s] == "done"]
    costs = [
        [_cost(curves, runs.loc[s], theirs.curve_bpb[s]) for s in seeds] for runs in (theirs, ours)
    ]
    result = speed_up(costs[0], costs[1])
    value = result.estimate.value
    return {
        "method": method,
        "role": ours.role.iloc[0],
        "reference": reference,
        "loss": mean_interval([theirs.curve_bpb[s] for s in seeds]).value,
        "n": result.estimate.n,
        "n_reached": result.n_reached,
        "speed_up": value,
        "low": result.estimate.low,
        "high": result.estimate.high,
        "saving": 1 - 1 / value if value and result.n_reached == len(seeds) else math.nan,
    }


def _cost(curves: Curves, run: "pd.Series[Any]", loss: float) -> float:
    """FLOPs to a loss; infinite for a run that failed, however good it was before."""
    if run.status != "done" or run.run_id not in curves:
        return math.inf
    return cost_to_target(*curves[run.run_id], loss)
