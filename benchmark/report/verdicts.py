"""The comparison itself: differences paired by seed, and what they allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.report.controls import (
    SCRATCH,
    Controls,
    best_fixed,
    held_against,
)
from benchmark.report.frames import Frames, Row
from benchmark.report.moderation import prior
from benchmark.report.statistics import (
    MIN_SEEDS,
    Comparison,
    Estimate,
    Verdict,
    compare,
    deviation,
    hierarchical_bootstrap,
    holm,
    is_significant,
    joint_verdict,
    mean_interval,
    t_limit,
    verdict,
)

_COMPARISON = ["against", "method", "role", "control", "n", "n_lost", "is_best_fixed", "difference",
               "low", "high", "bootstrap_low", "bootstrap_high", "sd", "p", "p_holm", "detectable",
               "correlation", "verdict", "significant", "moderated_low", "moderated_high",
               "own_share"]  # fmt: skip

Blocks = dict[str, tuple[np.ndarray, np.ndarray]]


def paired(frames: Frames, method: str, control: str, column: str = "test_bpb") -> Comparison:
    """Method minus control over the seeds where the control is done and the method has a result."""
    ours, theirs = (dict(frames.results(name)[column]) for name in (method, control))
    seeds = [s for s in ours if math.isfinite(theirs.get(s, math.nan))]
    return compare([ours[s] for s in seeds], [theirs[s] for s in seeds])


def comparisons(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every method, control and hull size against each of its controls, one row each.

    The methods' tests are one family of Holm's correction, whatever control they are against.
    """
    blocks = _blocks(frames)
    compared = [
        _comparison(frames, blocks, method, control)
        | {"against": against, "is_best_fixed": control == best_fixed(frames, found, method)}
        for method in frames.methods("method", "control", "hull")
        for against, control in held_against(frames, found, method).items()
    ]
    family = [row for row in compared if row["role"] == "method"]
    for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
        row |= {"p_holm": p, "significant": is_significant(row["n"], p)}
    for against in dict.fromkeys(row["against"] for row in family):
        _moderate([row for row in family if row["against"] == against])
    return pd.DataFrame(compared, columns=_COMPARISON)


def _moderate(rows: Sequence[Row]) -> None:
    """Add to each row the interval under a standard deviation shrunk towards that of all rows."""
    degrees = [row["n"] - 1.0 for row in rows]
    common = prior([row["sd"] for row in rows], degrees)
    for row, own in zip(rows, degrees, strict=True):
        if row["n"] < MIN_SEEDS or not math.isfinite(row["sd"]):
            continue
        sd, total, share = common.moderated(row["sd"], own)
        half = t_limit(min(total, sum(degrees))) * sd / math.sqrt(row["n"])
        low, high = row["difference"] - half, row["difference"] + half
        row |= {"moderated_low": low, "moderated_high": high, "own_share": share}


def verdicts(
    frames: Frames, found: Controls, compared: pd.DataFrame, withheld: Mapping[str, list[str]]
) -> dict[str, str]:
    """One word per method with role "method".

    "no verdict" while a control is missing, and instead of "better" for a method in `withheld`.
    """
    words = {}
    for method in frames.methods("method"):
        mine = compared[compared.method == method]
        if found.missing or mine.empty:
            words[method] = "no verdict"
            continue
        word: Verdict = joint_verdict(list(mine.verdict))
        deciding = mine.significant[mine.verdict == word]
        strong = deciding.all() if word == "better" else deciding.any()
        if word == "better" and method in withheld:
            words[method] = "no verdict"
        else:
            words[method] = f"significantly {word}" if strong else word
    return words


def mean_test_bpb(frames: Frames, method: str) -> Estimate:
    """Mean test bpb over a method's results; infinite if one of them is."""
    return mean_interval(list(frames.results(method).test_bpb))


def oversized(
    frames: Frames, found: Controls, target_params: float
) -> list[tuple[str, Comparison]]:
    """Smaller fixed sizes that beat scratch at C*, best first.

    A size counts if its paired interval lies below zero or, lacking that, if its mean is lower by
    more than the standard deviation of scratch over seeds.
    """
    noise = deviation(list(frames.results(SCRATCH).test_bpb))
    noise = noise if math.isfinite(noise) else 0.0
    smaller = [m for m in found.fixed if frames.of(m).n_params.max() < target_params]
    pairs = [(method, paired(frames, method, SCRATCH)) for method in smaller]
    beating = [
        (method, comparison)
        for method, comparison in pairs
        if verdict(comparison) == "better" or comparison.difference.value < -noise
    ]
    return sorted(beating, key=lambda pair: pair[1].difference.value)


def _comparison(frames: Frames, blocks: Blocks, method: str, control: str) -> Row:
    comparison = paired(frames, method, control)
    difference = asdict(comparison.difference)
    bootstrap = _bootstrap(frames, blocks, method, control)
    return {
        "method": method,
        "role": frames.of(method).role.iloc[0],
        "control": control,
        "n": difference["n"],
        "n_lost": len(frames.of(method)) - difference["n"],
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
    ours, theirs = (_done(frames, name) for name in (method, control))
    pairs = [(blocks[ours[s]], blocks[theirs[s]]) for s in ours if s in theirs]
    if not pairs:
        return Estimate(n=0, value=math.nan)
    sizes = [size for pair in pairs for _, size in pair]
    if any(not np.array_equal(size, sizes[0]) for size in sizes):
        raise RecordError(f"{method} and {control} scored different blocks of the test split")
    return hierarchical_bootstrap([a - b for (a, _), (b, _) in pairs], sizes[0])


def _done(frames: Frames, method: str) -> dict[int, str]:
    """Run ids of the runs that ended well, by seed."""
    found = frames.rows_of(method).items()
    return {seed: row["run_id"] for seed, row in found if row["status"] == "done"}


def _blocks(frames: Frames) -> Blocks:
    return {
        run.run_id: (
            np.asarray(event["block_nats"], float),
            np.asarray(event["block_bytes"], float),
        )
        for run in frames.suite.runs
        if run.role != "tuning"
        for event in run.of("final")
        if event["split"] == "test"
    }
