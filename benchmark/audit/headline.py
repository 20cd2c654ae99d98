"""The numbers that readers take home, again from the nats of every block."""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean, stdev
from typing import Any

import pandas as pd
from scipy import stats

from benchmark.audit.evidence import PARTIAL, Evidence, Remark
from benchmark.records.folder import RunRecord
from benchmark.report.moderation import prior

SAME = 1e-7
"""Absolute difference in bpb below which two numbers are equal; reports print four digits."""

MIN_SEEDS = 3
LEVEL = 0.95

Scores = dict[str, dict[int, float]]
"""bpb by method and seed; infinite for a run that has a result but no score."""


def headline(evidence: Evidence) -> Iterator[Remark]:
    """Means, differences and intervals of the report follow from the nats of every block."""
    tables = evidence.folder / "tables"
    missing = [n for n in ("summary.csv", "comparisons.csv") if not (tables / n).is_file()]
    if missing:
        yield from (Remark(f"tables/{name}: missing") for name in missing)
        return
    test, val = _scores(evidence, "test"), _scores(evidence, "val")
    summary = pd.read_csv(tables / "summary.csv")
    for line, row in enumerate(summary.to_dict("records"), start=2):
        found = fmean(test[row["method"]].values()) if test.get(row["method"]) else math.nan
        if not _same(row["test_bpb"], found):
            place = f"tables/summary.csv, line {line} ({row['method']})"
            yield Remark(f"{place}: test_bpb {row['test_bpb']:.6f}, blocks give {found:.6f}")
    yield from _best(evidence, summary, val)
    compared = pd.read_csv(tables / "comparisons.csv")
    rights = _moderated([_difference(*_pairs(test, row)) for row in compared.to_dict("records")])
    for line, (row, right) in enumerate(zip(compared.to_dict("records"), rights, strict=True), 2):
        place = f"tables/comparisons.csv, line {line} ({row['method']} against {row['control']})"
        for name, value in right.items():
            if not _same(row[name], value):
                yield Remark(f"{place}: {name} {row[name]:.6f}, blocks give {value:.6f}")


def _pairs(test: Scores, row: Mapping[Any, Any]) -> tuple[list[float], list[float]]:
    """Scores of both sides of a comparison, by the seeds that they share."""
    ours, theirs = test[row["method"]], test[row["control"]]
    shared = sorted(s for s in ours.keys() & theirs.keys() if math.isfinite(theirs[s]))
    return [ours[s] for s in shared], [theirs[s] for s in shared]


def _scores(evidence: Evidence, split: str) -> Scores:
    found: Scores = {}
    for run in evidence.ran:
        if run.role not in PARTIAL and run.status != "unfinished":
            found.setdefault(run.method, {})[run.seed] = _bpb(run, split)
    return found


def _bpb(run: RunRecord, split: str) -> float:
    finals = [event for event in run.of("final") if event["split"] == split]
    if run.status != "done" or not finals:
        return math.inf
    (final,) = finals
    bpb = math.fsum(final["block_nats"]) / sum(final["block_bytes"]) / math.log(2)
    return bpb if math.isfinite(bpb) else math.inf


def _difference(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Mean paired difference and its t interval, as scipy computes them."""
    if not ours:
        return {"n": 0, "difference": math.nan}
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    found: dict[str, float] = {"n": len(ours), "difference": fmean(differences)}
    if len(ours) >= MIN_SEEDS and all(map(math.isfinite, differences)):
        interval = stats.ttest_rel(ours, theirs).confidence_interval(LEVEL)
        found |= {"own_low": float(interval.low), "own_high": float(interval.high)}
        found["sd"] = stdev(differences)
    return found


def _moderated(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """The differences with the limits that verdicts use, from the report's own prior.

    Rounding moves equal differences apart by less than it moves them: rows are told apart by
    twelve digits.
    """
    known = {(round(row["sd"], 12), row["n"] - 1) for row in found if "sd" in row}
    common = prior([sd for sd, _ in known], [degrees for _, degrees in known])
    for row in found:
        if "sd" in row:
            sd, degrees, _ = common.moderated(row["sd"], row["n"] - 1)
            half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * sd / math.sqrt(row["n"])
            row |= {"low": row["difference"] - half, "high": row["difference"] + half}
    return found


def _best(evidence: Evidence, summary: pd.DataFrame, val: Scores) -> Iterator[Remark]:
    """The best fixed size is the one with the lowest mean validation bpb."""
    tuned = {run.method for run in evidence.ran if run.config["method"].get("tunes")}
    roles = {run.method: run.role for run in evidence.suite.runs if run.method not in tuned}
    fixed = {
        method: fmean(scores.values())
        for method, scores in val.items()
        if roles.get(method) == "hull" or (roles.get(method) == "control" and _is_fixed(method))
    }
    said = list(summary.method[summary.is_best_fixed.astype(bool)])
    best = min(fixed, key=fixed.__getitem__) if fixed else None
    if best is not None and said != [best] and fixed.get(next(iter(said), "")) != fixed[best]:
        yield Remark(f"tables/summary.csv: the best fixed size is {said}, validation says {best}")


def _is_fixed(method: str) -> bool:
    return method == "scratch" or method.startswith("scratch_small")


def _same(found: float, right: float) -> bool:
    if math.isnan(right) or math.isinf(right):
        return math.isnan(found) or math.isinf(found)
    return math.isclose(found, right, rel_tol=0, abs_tol=SAME)
