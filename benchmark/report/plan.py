"""What was planned before it was seen: the lock of a results folder, and its later changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmark.records.lock import FILE, Lock, read

_AMENDMENTS = ["date", "results", "added", "removed", "changed"]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Whether a comparison was pre-registered, and what was changed after results were seen."""

    lock: Lock | None = None
    """None if nothing was written down before the first run."""

    @property
    def marks(self) -> dict[str, str]:
        """What to say beside each method whose runs changed after results could be seen."""
        said: dict[str, list[str]] = {}
        for amendment in self.lock.amendments if self.lock else ():
            for method, mark in amendment.marks.items():
                said.setdefault(method, []).append(mark)
        return {method: "; ".join(marks) for method, marks in said.items()}

    def amendments(self) -> pd.DataFrame:
        """Every change of the plan, oldest first."""
        listed = [
            {
                "date": amendment.date,
                "results": amendment.results,
                "added": _seeds(amendment.added),
                "removed": _seeds(amendment.removed),
                "changed": ", ".join(amendment.changed),
            }
            for amendment in (self.lock.amendments if self.lock else ())
        ]
        return pd.DataFrame(listed, columns=_AMENDMENTS)


def registration(results_dir: Path) -> Registration:
    """What the results folder says of its plan.

    Raises:
        RecordError: the lock is damaged or was edited.
    """
    return Registration(lock=read(results_dir) if (results_dir / FILE).is_file() else None)


def _seeds(by_method: Mapping[str, Iterable[int]]) -> str:
    """Such as "net2net 3 4; stacking 3"."""
    return "; ".join(f"{m} {' '.join(map(str, seeds))}" for m, seeds in by_method.items())
