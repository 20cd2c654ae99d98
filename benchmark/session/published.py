"""Runs that are published already: they are shown, and not trained again."""

from collections.abc import Iterable
from pathlib import Path

from benchmark.plan.run import Run
from benchmark.records.folder import RunRecord, load_runs, run_ids

REUSABLE = ("done", "diverged")
"""Ends that the same run would come to again; one that failed may have met with an accident."""


def published(folder: Path, runs: Iterable[Run]) -> dict[str, RunRecord]:
    """Records in `folder` of those runs that came to an end there, by id.

    Raises:
        RecordError: the records are damaged.
    """
    found = load_runs(folder, run_ids(folder) & {run.id for run in runs})
    return {run.run_id: run for run in found if run.status in REUSABLE}
