"""The numbers that readers take home, again from the nats of every block."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from scipy import stats

from benchmark.audit.evidence import PARTIAL, Evidence, Remark
from benchmark.records.folder import RunRecord

SAME = 1e-7
"""Absolute difference in bpb below which two numbers are equal; reports print four digits."""

MIN_SEEDS = 3
LEVEL = 0.95


def headline(evidence: Evidence) -> Iterator[Remark]:
    """Means, differences and t intervals of the report follow from the nats of every block."""
    tables = evidence.folder / "tables"
    missing = [n for n in ("summary.csv", "comparisons.csv") if not (tables / n).is_file()]
    if missing:
        yield from (Remark(f"tables/{name}: missing") for name in missing)
        return
    scores = _scores(evidence)
    for line, row in _rows(tables / "summary.csv"):
        found = fmean(scores[row["method"]].values()) if row["method"] in scores else math.nan
        if not _same(row["test_bpb"], found):
            place = f"tables/summary.csv, line {line} ({row['method']})"
            yield Remark(f"{place}: test_bpb {row['test_bpb']:.6f}, blocks give {found:.6f}")
    for line, row in _rows(tables / "comparisons.csv"):
        place = f"tables/comparisons.csv, line {line} ({row['method']} against {row['control']})"
        ours, theirs = scores[row["method"]], scores[row["control"]]
        shared = sorted(s for s in ours.keys() & theirs.keys() if math.isfinite(theirs[s]))
        right = _difference([ours[s] for s in shared], [theirs[s] for s in shared])
        for name, value in right.items():
            if not _same(row[name], value):
                yield Remark(f"{place}: {name} {row[name]:.6f}, blocks give {value:.6f}")


def _rows(table: Path) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """Rows of a table with the number of each one's line."""
    yield from enumerate(pd.read_csv(table).to_dict("records"), start=2)


def _scores(evidence: Evidence) -> dict[str, dict[int, float]]:
    """Test bpb by method and seed; infinite for a run that has a result but no score."""
    found: dict[str, dict[int, float]] = {}
    for run in evidence.ran:
        if run.role not in PARTIAL and run.status != "unfinished":
            found.setdefault(run.method, {})[run.seed] = _bpb(run)
    return found


def _bpb(run: RunRecord) -> float:
    finals = [event for event in run.of("final") if event["split"] == "test"]
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
    return found


def _same(found: float, right: float) -> bool:
    if math.isnan(right) or math.isinf(right):
        return math.isnan(found) or math.isinf(found)
    return math.isclose(found, right, rel_tol=0, abs_tol=SAME)
