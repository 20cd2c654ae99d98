"""A results folder as pandas frames for a reader's own analysis; docs/results.md documents them."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from benchmark.records.folder import load_suite
from benchmark.report.frames import Frames, frames

_RUN = {
    "run_id": "names the folder of the run's records",
    "suite": "name of the suite",
    "method": "name of the method",
    "role": "method, control, hull, rung or tuning",
    "seed": "repetition; equal seeds are paired: same initialisation, same bytes, same order",
}
_WHERE = {
    "step": "optimizer steps taken",
    "tokens": "bytes predicted in training",
    "flops": "training FLOPs charged, causal formula",
    "fraction": "the same as a fraction of C*, the budget of the suite",
    "seconds": "wall-clock of training and growth",
}
COLUMNS: dict[str, dict[str, str]] = {
    "runs": _RUN
    | {
        "status": "done, diverged, failed, timeout, unfinished or missing",
        "error": "what went wrong, if anything",
        "tunes": "method that a tuning trial or a tuned run belongs to",
        "trial": "number of a tuning trial",
        "corpus": "name of the corpus",
        "train_bytes": "bytes of its training split",
        "budget_flops": "training FLOPs the run may spend; a rung has less than C*",
        "n_params": "parameters at the end",
        "n_params_nonembedding": "without token and position tables",
    }
    | _WHERE
    | {
        "flops_unmasked": "the same charge with attention over the whole window",
        "epochs": "tokens over train_bytes",
        "eval_seconds": "wall-clock of evaluation, which is free",
        "peak_memory_bytes": "largest of any stage",
        "curve_bpb": "bits per byte on the slice of validation that curves use",
        "val_bpb": "bits per byte of the whole validation split; infinite unless done",
        "test_bpb": "bits per byte of the whole test split; infinite unless done",
    },
    "evaluations": _RUN | _WHERE | {"bpb": "bits per byte on the slice of validation for curves"},
    "losses": _RUN
    | _WHERE
    | {
        "loss": "training loss, nats per byte, mean over the steps since the row before",
        "lr": "learning rate of the last of these steps",
    },
    "growths": _RUN
    | {
        "growth": "1 for the first growth of a run",
        "operator": "class that grew the model",
        "state_policy": "what became of Adam's moments",
        "n_params_from": "parameters before",
        "n_params_to": "parameters after",
    }
    | _WHERE
    | {
        "bpb_before": "curve bits per byte of the small model",
        "bpb_after": "curve bits per byte of the large model, untrained as yet",
        "recovery_flops": "FLOPs from growth until bpb_before is reached again; infinite if never",
        "growth_flops": "FLOPs charged for growing itself",
        "growth_tokens": "bytes read for growing itself",
        "growth_seconds": "wall-clock of growing itself",
    },
}
"""What each column holds, by frame."""

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
        of = f" of the lowest of {len(scores)} methods" if len(scores) > SHOWN else ""
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
