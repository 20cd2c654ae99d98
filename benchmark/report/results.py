"""A results folder as pandas frames for a reader's own analysis; docs/results.md documents them."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from benchmark.records.folder import load_suite
from benchmark.report.frames import WHERE, Frames, frames, gathered

SIZES = {"sizes": "", "from_sizes": "from_", "to_sizes": "to_"}
"""Columns that become one column per size, and the prefixes of these."""

UNTOLD = ("n_seeds", "phase", "start_flops", *SIZES)
"""Columns that only reports need."""

SHOWN = 10
"""Methods that a summary names."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """One results folder; rows are in display order of the runs."""

    runs: pd.DataFrame
    """One row per planned run."""

    evaluations: pd.DataFrame
    """One row per point of a curve."""

    losses: pd.DataFrame
    """One row per record of the training loss."""

    growths: pd.DataFrame
    """One row per growth of a run."""

    def __repr__(self) -> str:
        """What there is, and the methods with the lowest mean test bpb."""
        runs, statuses = self.runs, self.runs.status.value_counts()
        ended = ", ".join(f"{n} {status}" for status, n in statuses.items())
        rows = ", ".join(
            f"{field.name} {len(getattr(self, field.name)):,}" for field in fields(self)
        )
        bpb = runs[runs.role != "tuning"].groupby(["method", "role"], sort=False).test_bpb
        scores = bpb.agg(["mean", "std", "count"]).sort_values("mean", kind="stable").reset_index()
        of = f", the {SHOWN} lowest of {len(scores)} methods" if len(scores) > SHOWN else ""
        return (
            f"{runs.suite.iloc[0]}: {len(runs)} runs ({ended}); rows: {rows}\n"
            f"test bpb{of}:\n{scores.head(SHOWN).to_string(index=False, float_format='%.4f')}"
        )


def load_results(folder: str | Path) -> Results:
    """Read the records in a folder such as results/cpu; see docs/results.md.

    Raises:
        RecordError: there are no records, or they are damaged or contradict one another.
    """
    data = frames(load_suite(Path(folder)))
    losses = gathered(data.suite, lambda run: iter(run.of("train")), [*WHERE, "loss", "lr"])
    return Results(
        runs=_tidy(data, data.runs.astype({"trial": "Int64"})),
        evaluations=_tidy(data, data.points[data.points.phase == "evaluation"]),
        losses=_tidy(data, losses),
        growths=_tidy(data, data.growths),
    )


def _tidy(data: Frames, table: pd.DataFrame) -> pd.DataFrame:
    told = table.drop(columns=list(UNTOLD), errors="ignore").reset_index(drop=True)
    parts = [told.assign(suite=data.suite.name, fraction=told.flops / data.budget_flops)]
    for column in table.columns.intersection(list(SIZES)):
        sizes = [sizes if isinstance(sizes, dict) else {} for sizes in table[column]]
        parts.append(pd.DataFrame(sizes).convert_dtypes().add_prefix(SIZES[column]))
    return pd.concat(parts, axis="columns")
