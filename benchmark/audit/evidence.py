"""What an audit looks at, and how it says what it found."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.records.events import Event
from benchmark.records.folder import RunRecord, Suite, load_suite
from benchmark.records.lock import FILE, Lock, read


@dataclass(frozen=True)
class Remark:
    """Something that is wrong, or that a reader of the results should know."""

    text: str
    """Begins with the file it is about."""

    is_fault: bool = True


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A results folder: its records, and the plan that was locked before them."""

    folder: Path
    suite: Suite
    lock: Lock | None

    @classmethod
    def of(cls, folder: Path) -> "Evidence":
        """Read a results folder.

        Raises:
            RecordError: its records, or its plan, are damaged.
        """
        lock = read(folder) if (folder / FILE).is_file() else None
        return cls(folder=folder, suite=load_suite(folder), lock=lock)

    @property
    def ran(self) -> list[RunRecord]:
        """Runs with records."""
        return [run for run in self.suite.runs if run.events]

    @property
    def done(self) -> list[RunRecord]:
        """Runs that reached the end of their budget."""
        return [run for run in self.suite.runs if run.status == "done"]

    @property
    def shared(self) -> dict[str, Any]:
        """The configuration that runs should share; that of the first with records."""
        return dict(self.ran[0].config)


def numbered(run: RunRecord, *kinds: str) -> Iterator[tuple[str, Event]]:
    """Records of these kinds with the place of each, such as "runs/ID.jsonl.gz, line 7"."""
    for line, event in enumerate(run.events, start=1):
        if event["kind"] in kinds:
            yield f"{log_of(run)}, line {line}", event


def log_of(run: RunRecord) -> str:
    """The file of a run's records, and whose they are."""
    return f"runs/{run.run_id}.jsonl.gz ({run.method}, seed {run.seed})"
