"""How much of the noise is rounding? One suite trained twice, on other kernels or threads."""

import math

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import rows
from benchmark.report.statistics import compare, deviation

_ROUNDING = ["method", "role", "n", "seed_sd", "rounding_sd", "difference", "low", "high",
             "run_ids"]  # fmt: skip


def rounding(one: Analysis, other: Analysis) -> pd.DataFrame:
    """For every method, the SD between seeds, and between two runs with the same seed.

    A single run's share of the differences between two: their root mean square over the root of 2.
    """
    found = []
    for method in one.frames.methods("method", "control", "hull"):
        a, b = (dict(x.frames.results(method).test_bpb) for x in (one, other))
        seeds = [s for s in a if math.isfinite(a[s]) and math.isfinite(b.get(s, math.inf))]
        if not seeds:
            continue
        first, second = [a[s] for s in seeds], [b[s] for s in seeds]
        gap = compare(second, first).difference
        squares = [(y - x) ** 2 for x, y in zip(first, second, strict=True)]
        found.append({
            "method": method,
            "role": one.frames.of(method).role.iloc[0],
            "n": len(seeds),
            "seed_sd": math.hypot(deviation(first), deviation(second)) / math.sqrt(2),
            "rounding_sd": math.sqrt(math.fsum(squares) / len(seeds) / 2),
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "run_ids": " ".join(side.frames.run_ids(method) for side in (one, other)),
        })  # fmt: skip
    return pd.DataFrame(found, columns=_ROUNDING)


def how_much(table: pd.DataFrame, one: Analysis, other: Analysis) -> str:
    """Both noises over all methods, how far means moved, and how many words changed."""
    seed, same = (pooled(table, name) for name in ("seed_sd", "rounding_sd"))
    moved = max((abs(row["difference"]) for row in rows(table)), default=math.nan)
    words = sum(other.words.get(method) != word for method, word in one.words.items())
    return (
        f"Trained twice, with the same seeds on other kernels, single runs differ with an SD of "
        f"{formats.bpb(same)} bpb from rounding alone; from seed to seed it is "
        f"{formats.bpb(seed)}. Means moved by at most {formats.bpb(moved)}; {words} of "
        f"{len(one.words)} verdicts changed. Pairing by seed cannot remove that part."
    )


def pooled(table: pd.DataFrame, column: str) -> float:
    """Root mean square of a column of SDs over the methods that have one."""
    return math.sqrt(float((table[column].dropna() ** 2).mean()))
