"""Two results folders of one suite side by side: what moved, was it noise, where do runs part?

Runs are paired by method and seed, and the differences are B minus A in bpb of the test split.
Only folders of the same suite, version and shared settings are compared: across them a difference
has no single cause.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.records.events import Event, differences
from benchmark.records.folder import OWN, RunRecord, Suite, load_suite
from benchmark.report.frames import Frames, frames
from benchmark.report.statistics import Estimate, compare, mean_interval, verdict
from benchmark.report.tables import environment

NOT_SIGNIFICANT = "~"
UNTOLD = ("run_id", "stage_id", "seconds", "memory")
"""In names of fields that tell of code and machine rather than of what happened."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One method in both folders, over the seeds that both have."""

    method: str
    before: Estimate
    """Mean test bpb in A."""

    after: Estimate
    """In B."""

    difference: Estimate
    """B minus A, paired by seed."""

    @property
    def mark(self) -> str:
        """Whether B is "better" or "worse"; "~" where noise or too few seeds allow neither."""
        word = verdict(self.difference)
        return word if word in ("better", "worse") else NOT_SIGNIFICANT

    @property
    def regressed(self) -> bool:
        """Whether B is worse beyond noise, or failed."""
        return self.mark == "worse" or self.after.value == math.inf


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


def compare_folders(a: Path, b: Path) -> Changes:
    """Compare the results in B, the folder to judge, with those in A.

    Raises:
        RecordError: the folders are of other suites, versions or shared settings.
    """
    suites = load_suite(a), load_suite(b)
    sides = [frames(suite) for suite in suites]
    _require_comparable((a, b), sides)
    old, new = ({m: dict(side.results(m).test_bpb) for m in side.methods() if m in side.validation}
                for side in sides)  # fmt: skip
    return Changes(
        methods=tuple(_change(method, old[method], new[method]) for method in old if method in new),
        only_in_a=_only(old, new, suites[1]),
        only_in_b=_only(new, old, suites[0]),
        records={name: first_difference(*pair) for name, pair in _pairs(suites).items()},
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
        {key: value for key, value in side.config.items() if key not in OWN}
        | {"suite": side.suite.name, "version": side.suite.version}
        for side in sides
    )
    wrong = [
        f"{key} is {was} and {now}"
        for key, (was, now) in differences(old, new).items()
        if key != "protocol.seeds"
    ]
    if wrong:
        raise RecordError(
            f"cannot compare {folders[0]} with {folders[1]}: {', '.join(wrong)}; runs may differ "
            "only in method and seed"
        )


def _change(method: str, old: Mapping[int, float], new: Mapping[int, float]) -> Change:
    seeds = [seed for seed in old if seed in new and math.isfinite(old[seed])]
    before, after = ([side[seed] for seed in seeds] for side in (old, new))
    return Change(
        method=method,
        before=mean_interval(before),
        after=mean_interval(after),
        difference=compare(after, before).difference,
    )


def _pairs(suites: tuple[Suite, Suite]) -> dict[str, tuple[RunRecord, RunRecord]]:
    """The runs that both have, by "METHOD seed SEED"."""
    old, new = ({f"{run.method} seed {run.seed}": run for run in suite.runs if run.events}
                for suite in suites)  # fmt: skip
    return {name: (run, new[name]) for name, run in old.items() if name in new}


def _provenance(sides: list[Frames]) -> dict[str, tuple[str, str]]:
    tables = [environment(side).groupby("key").value.agg(", ".join) for side in sides]
    both = pd.concat(tables, axis="columns", keys=["a", "b"]).fillna("nothing").sort_index()
    return {str(k): (row.a, row.b) for k, row in both[both.a != both.b].iterrows()}


def first_difference(a: RunRecord, b: RunRecord) -> str | None:
    """The first record in which two runs differ, and its first field; None if all are the same.

    Times, memory and ids are left out: no two runs have them in common.

    Returns:
        Such as "train at step 40: loss 2.531 against 2.532".
    """
    for mine, theirs in zip_longest(a.events, b.events):
        if mine is None or theirs is None or mine["kind"] != theirs["kind"]:
            return f"{_place(mine)} against {_place(theirs)}"
        for name, (one, other) in differences(_told(mine), _told(theirs)).items():
            return f"{_place(mine)}: {name} {one} against {other}"
    return None


def _told(event: Event) -> dict[str, Any]:
    """What a record says of what happened, as text; entries of lists by their number."""
    told = {key: event[key] for key in event if not any(word in key for word in UNTOLD)}
    return {key: _text(value) for key, value in told.items()}


def _text(value: object) -> object:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    return str(value)


def _place(event: Event | None) -> str:
    if event is None:
        return "no further record"
    return f"{event['kind']} at step {event['step']}" if "step" in event else str(event["kind"])
