"""Two results folders of one suite side by side: what moved, was it noise, where do runs part?

Runs are paired by method and seed, and the differences are B minus A in bpb of the test split.
Only folders of the same suite, version and shared settings are compared: across them a difference
has no single cause.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.records.events import Event, flatten
from benchmark.records.folder import RunRecord, Suite, load_suite
from benchmark.report.frames import Frames, frames
from benchmark.report.statistics import Comparison, Estimate, compare, mean_interval, verdict
from benchmark.report.tables import environment

NOT_SIGNIFICANT = "~"
HIDDEN = ("seed", "protocol.seeds", "method")
"""Settings in which runs of the two folders may differ."""

UNTOLD = ("run_id", "stage_id", "seconds", "memory")
"""In names of fields that tell of code and machine rather than of what happened."""

NAMED = 3
"""Differing fields of a record that are spelt out."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One method in both folders."""

    method: str
    before: Estimate
    """Mean test bpb in A over the shared seeds."""

    after: Estimate
    """In B."""

    comparison: Comparison
    """B minus A, paired by seed."""

    regressed: bool
    """Whether B is worse, beyond noise and beyond what is tolerated."""

    @property
    def mark(self) -> str:
        """Whether B is "better" or "worse"; "~" where noise or too few seeds allow neither."""
        word = verdict(self.comparison.difference)
        return word if word in ("better", "worse") else NOT_SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Two results folders compared."""

    methods: tuple[Change, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    records: dict[str, str | None]
    """Where each run that both have first differs, by "METHOD seed SEED"; None if nowhere."""

    provenance: dict[str, tuple[str, str]]
    """What the runs of the two were made with, where it is not the same: key to both values."""

    @property
    def regressed(self) -> bool:
        """Whether a method is worse in B, or has no result there."""
        return bool(self.only_in_a) or any(change.regressed for change in self.methods)


def compare_folders(a: Path, b: Path, *, factor: float = 1.0, threshold: float = 0.0) -> Changes:
    """Compare the results in B with those in A.

    Args:
        a: the results folder to compare with.
        b: the one to judge.
        factor: a method regresses only if its mean bpb is more than this many times that in A.
        threshold: and only if it is more than this many bpb above it.

    Raises:
        RecordError: the folders are of other suites, versions or shared settings.
    """
    suites = load_suite(a), load_suite(b)
    sides = [frames(suite) for suite in suites]
    _require_comparable((a, b), sides)
    old, new = ({m: dict(side.results(m).test_bpb) for m in side.methods() if m in side.validation}
                for side in sides)  # fmt: skip
    return Changes(
        methods=tuple(
            _change(method, old[method], new[method], factor, threshold)
            for method in old
            if method in new
        ),
        only_in_a=_only(old, new, suites[1]),
        only_in_b=_only(new, old, suites[0]),
        records=_records(suites),
        provenance=_provenance(sides),
    )


Scores = Mapping[str, Mapping[int, float]]
"""Test bpb by method and seed, of runs with a result."""


def _only(here: Scores, there: Scores, planned: Suite) -> tuple[str, ...]:
    """Methods that only one folder has results of, then runs that the other planned and lost."""
    lost = sorted(
        f"{run.method} seed {run.seed}"
        for run in planned.runs
        if run.method in there
        and run.seed in here.get(run.method, {}).keys() - there[run.method].keys()
    )
    return (*(method for method in here if method not in there), *lost)


def _require_comparable(folders: tuple[Path, Path], sides: list[Frames]) -> None:
    old, new = (
        flatten({k: v for k, v in side.config.items() if k not in HIDDEN})
        | {"suite": side.suite.name, "version": side.suite.version}
        for side in sides
    )
    wrong = [
        f"{key} is {old.get(key)} and {new.get(key)}"
        for key in {**old, **new}
        if key not in HIDDEN and old.get(key) != new.get(key)
    ]
    if wrong:
        raise RecordError(
            f"cannot compare {folders[0]} with {folders[1]}: {', '.join(wrong)}; runs may differ "
            "only in method and seed"
        )


def _change(
    method: str, old: Mapping[int, float], new: Mapping[int, float], factor: float, threshold: float
) -> Change:
    seeds = [seed for seed in old if seed in new and math.isfinite(old[seed])]
    before, after = [old[s] for s in seeds], [new[s] for s in seeds]
    comparison, means = compare(after, before), (mean_interval(before), mean_interval(after))
    is_worse = verdict(comparison.difference) == "worse"
    limit = max(means[0].value * factor, means[0].value + threshold)
    return Change(
        method=method,
        before=means[0],
        after=means[1],
        comparison=comparison,
        regressed=math.inf in after or (is_worse and means[1].value > limit),
    )


def _records(suites: tuple[Suite, Suite]) -> dict[str, str | None]:
    old, new = ({(run.method, run.seed): run for run in suite.runs if run.events}
                for suite in suites)  # fmt: skip
    return {
        f"{method} seed {seed}": first_difference(run, new[method, seed])
        for (method, seed), run in old.items()
        if (method, seed) in new
    }


def _provenance(sides: list[Frames]) -> dict[str, tuple[str, str]]:
    tables = [environment(side).groupby("key").value.agg(", ".join) for side in sides]
    both = pd.concat(tables, axis="columns", keys=["a", "b"]).fillna("nothing").sort_index()
    return {str(k): (row.a, row.b) for k, row in both[both.a != both.b].iterrows()}


def first_difference(a: RunRecord, b: RunRecord) -> str | None:
    """The first record in which two runs differ, in words; None if all are the same.

    Times, memory and ids are left out: no two runs have them in common.

    Returns:
        Such as "train at step 40: loss 2.531 against 2.532".
    """
    for mine, theirs in zip_longest(a.events, b.events):
        if mine is None or theirs is None or mine["kind"] != theirs["kind"]:
            return f"{_place(mine)} against {_place(theirs)}"
        if differing := list(_differing(mine, theirs)):
            more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
            return f"{_place(mine)}: {', '.join(differing[:NAMED])}{more}"
    return None


def _differing(mine: Event, theirs: Event) -> Iterator[str]:
    """Fields that differ, with both values."""
    old, new = _fields(mine), _fields(theirs)
    for name in {**old, **new}:
        one, other = old.get(name, "nothing"), new.get(name, "nothing")
        if str(one) != str(other):
            yield f"{name} {' against '.join(_told_apart(one, other))}"


def _fields(event: Event) -> dict[str, Any]:
    """What a record says by dotted name, entries of lists by their number."""
    told = [key for key in event if not any(word in key for word in UNTOLD)]
    return flatten({key: _numbered(event[key]) for key in told})


def _numbered(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _numbered(item) for key, item in value.items()}
    return dict(enumerate(value)) if isinstance(value, list) else value


def _told_apart(one: object, other: object) -> tuple[str, str]:
    """Both values, numbers with as few digits as tell them apart."""
    if isinstance(one, float) and isinstance(other, float):
        pairs = ((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(5, 18))
        return next((pair for pair in pairs if pair[0] != pair[1]), (str(one), str(other)))
    return str(one), str(other)


def _place(event: Event | None) -> str:
    if event is None:
        return "no further record"
    return f"{event['kind']} at step {event['step']}" if "step" in event else str(event["kind"])
