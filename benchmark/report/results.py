"""A results folder as pandas frames for a reader's own analysis; docs/results.md documents them."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from benchmark.records.folder import load_suite
from benchmark.report.frames import Frames, frames

_RUN = ("run_id", "suite", "method", "role", "seed")
_WHERE = ("step", "tokens", "flops", "fraction", "seconds")
COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (
        *_RUN, "status", "error", "tunes", "trial", "corpus", "train_bytes", "budget_flops",
        "n_params", "n_params_nonembedding", *_WHERE, "flops_unmasked", "epochs", "eval_seconds",
        "peak_memory_bytes", "curve_bpb", "val_bpb", "test_bpb",
    ),
    "evaluations": (*_RUN, *_WHERE, "bpb"),
    "losses": (*_RUN, *_WHERE, "loss", "lr"),
    "growths": (
        *_RUN, "growth", "operator", "state_policy", "n_params_from", "n_params_to", *_WHERE,
        "bpb_before", "bpb_after", "recovery_flops", "growth_flops", "growth_tokens",
        "growth_seconds",
    ),
}  # fmt: skip
"""Names of the columns, by frame; docs/results.md tells what each holds."""

SIZES = {
    "runs": {"sizes": ""},
    "growths": {"from_sizes": "from_", "to_sizes": "to_"},
}
"""Columns of sizes, which become one column per size, and the prefixes of these."""


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
    losses = [
        {"run_id": run.run_id, "method": run.method, "role": run.role, "seed": run.seed, **event}
        for run in data.suite.runs
        for event in run.of("train")
    ]
    evaluations = data.points[data.points.phase == "evaluation"]
    return Results(
        runs=_tidy(data, "runs", data.runs),
        evaluations=_tidy(data, "evaluations", evaluations),
        losses=_tidy(data, "losses", pd.DataFrame(losses, columns=list(COLUMNS["losses"]))),
        growths=_tidy(data, "growths", data.growths),
    )


def _tidy(data: Frames, name: str, table: pd.DataFrame) -> pd.DataFrame:
    described = table.assign(suite=data.suite.name, fraction=table.flops / data.budget_flops)
    if "trial" in described:
        described["trial"] = described.trial.astype("Int64")
    parts = [described.reset_index(drop=True)[list(COLUMNS[name])]]
    for column, prefix in SIZES.get(name, {}).items():
        sizes = [sizes if isinstance(sizes, dict) else {} for sizes in table[column]]
        parts.append(pd.DataFrame(sizes).convert_dtypes().add_prefix(prefix))
    return pd.concat(parts, axis="columns")
