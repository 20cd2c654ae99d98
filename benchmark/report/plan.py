"""What was planned before it was seen: the lock of a results folder, and its later changes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd

from benchmark.records.lock import Lock

_AMENDMENTS = ["date", "results", "added", "removed", "changed"]


def marks(lock: Lock | None) -> dict[str, str]:
    """What to say beside each method whose runs changed after results could be seen."""
    said = defaultdict[str, list[str]](list)
    for amendment in lock.amendments if lock else ():
        for method, mark in amendment.marks.items():
            said[method].append(mark)
    return {method: "; ".join(marks) for method, marks in said.items()}


def amendments(lock: Lock | None) -> pd.DataFrame:
    """Every change of the plan, oldest first."""
    listed = [
        {
            "date": amendment.date,
            "results": amendment.results,
            "added": _seeds(amendment.added),
            "removed": _seeds(amendment.removed),
            "changed": ", ".join(amendment.changed),
        }
        for amendment in (lock.amendments if lock else ())
    ]
    return pd.DataFrame(listed, columns=_AMENDMENTS)


def _seeds(by_method: Mapping[str, Iterable[int]]) -> str:
    """Such as "net2net 3 4; stacking 3"."""
    return "; ".join(f"{m} {' '.join(map(str, seeds))}" for m, seeds in by_method.items())
