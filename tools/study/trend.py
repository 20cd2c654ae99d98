"""Does it change with scale? Differences to scratch over a ladder of budgets, and their slopes."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.conventions import speed_up, worth_of_doubling
from benchmark.report.frames import Row, grouped, rows
from benchmark.report.prose import fixed_sizes
from benchmark.report.statistics import Estimate, t_limit

_TREND = ["suite", "budget_flops", "n_params", "method", "n", "difference", "low", "high",
          "degrees", "vs_best_fixed", "speed_up", "speed_up_low", "speed_up_high",
          "run_ids"]  # fmt: skip


def trend(ladder: Iterable[Analysis]) -> pd.DataFrame:
    """A row for every method at every rung, smallest budget first.

    The best fixed size of each rung is a row of that name; there is none where it is scratch.
    """
    found = [row for analysis in _climbed(ladder) for row in _rung(analysis)]
    return pd.DataFrame(found, columns=_TREND)


def hull(ladder: Iterable[Analysis]) -> list[Row]:
    """Of every rung, scratch and the size that does best there without growing."""
    found = []
    for a in _climbed(ladder):
        fixed = {row["method"]: row for row in rows(fixed_sizes(a))}
        best, target = fixed[a.controls.best_fixed or SCRATCH], fixed[SCRATCH]
        smaller = sum(row["n_params"] < target["n_params"] for row in fixed.values())
        found.append({"suite": a.frames.suite.name, "budget_flops": a.frames.budget_flops,
                      "target": target["n_params"], "scratch_bpb": target["test_bpb"],
                      "smaller": smaller, "larger": len(fixed) - smaller - 1} | best)  # fmt: skip
    return found


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """What a decade of compute does to each method: added to its difference, times its speed-up."""
    found = []
    for method, own in grouped(table).items():
        known = [row for row in own if math.isfinite(row["low"])]
        if len(known) < 2:  # noqa: PLR2004
            continue
        fit, worth = _slope(known), _slope(known, is_ratio=True)
        ends = [worth.value, worth.low, worth.high]
        factors = dict(zip(("factor", "factor_low", "factor_high"), np.exp2(ends), strict=True))
        found.append({"method": method, "rungs": len(known), "slope": fit.value, "low": fit.low,
                      "high": fit.high} | factors)  # fmt: skip
    return pd.DataFrame(found)


def extension(ladder: Iterable[Analysis], table: pd.DataFrame) -> str:
    """One sentence on what one more rung would take, and what it would tell."""
    before, last = _climbed(ladder)[-2:]
    ratio = last.frames.budget_flops / before.frames.budget_flops
    executed = rows(last.tables["shared_compute"])[1]
    tokens = last.frames.runs.tokens.max() * math.sqrt(ratio)
    rungs = np.log10(sorted(table.budget_flops.unique()))
    more = np.append(rungs, rungs[-1] + math.log10(ratio))
    narrower = 1 - math.sqrt(np.square(rungs - rungs.mean()).sum()
                             / np.square(more - more.mean()).sum())  # fmt: skip
    return (
        f"One more rung, C* = {formats.flops(last.frames.budget_flops * ratio)} FLOPs with the "
        f"{formats.plural(int(last.frames.runs.n_seeds.max()), 'seed')} of the last, would train "
        f"{formats.flops(executed['flops'] * ratio)} FLOPs, {ratio:.0f} times the last rung's "
        f"{formats.seconds(executed['seconds'])} of one core, read about "
        f"{formats.count(tokens)} bytes once, and narrow the slopes' intervals by about "
        f"{100 * narrower:.0f} %."
    )


def _climbed(ladder: Iterable[Analysis]) -> list[Analysis]:
    return sorted(ladder, key=lambda analysis: analysis.frames.budget_flops)


def _rung(analysis: Analysis) -> Iterable[Row]:
    frames, worth = analysis.frames, worth_of_doubling(analysis.frames)
    summary = {row["method"]: row for row in rows(analysis.tables["summary"])}
    compared = analysis.tables["comparisons"]
    for row in rows(compared[compared.control == SCRATCH]):
        own = summary[row["method"]]
        if row["role"] != "method" and not own["is_best_fixed"]:
            continue
        ends = [speed_up(row[name], worth) for name in ("difference", "high", "low")]
        yield {
            **row,
            "suite": frames.suite.name,
            "budget_flops": frames.budget_flops,
            "n_params": own["n_params"],
            "method": row["method"] if row["role"] == "method" else BEST_FIXED,
            "vs_best_fixed": own[f"vs_{BEST_FIXED}"],
            **dict(zip(("speed_up", "speed_up_low", "speed_up_high"), ends, strict=True)),
            "run_ids": own["run_ids"],
        }


def _slope(points: Sequence[Row], *, is_ratio: bool = False) -> Estimate:
    """Weighted least squares per decade of compute, 95 %.

    Weights are those of the rungs' own intervals. Where the points lie further from the line than
    those explain, the interval is widened by that ratio and takes its degrees of freedom from the
    rungs alone.
    """
    middle, low, high = (
        np.array([np.log2(row[f"speed_up{end}"]) if is_ratio else row[end[1:] or "difference"]
                  for row in points], float)
        for end in ("", "_low", "_high")
    )  # fmt: skip
    degrees = np.array([row["degrees"] for row in points], float)
    errors = (high - low) / 2 / np.array([t_limit(d) for d in degrees])
    x, weights = np.log10([row["budget_flops"] for row in points]), 1 / errors**2
    centred = x - np.average(x, weights=weights)
    spread = float((weights * centred**2).sum())
    slope = float((weights * centred * middle).sum()) / spread
    left = middle - np.average(middle, weights=weights) - slope * centred
    free = len(points) - 2
    excess = float((weights * left**2).sum()) / free if free else 0.0
    half = t_limit(free if excess > 1 else float(degrees.sum()))
    half *= math.sqrt(max(1.0, excess) / spread)
    return Estimate(n=len(points), value=slope, low=slope - half, high=slope + half)
