"""The sections of a report that let a reader check it: costs, settings, failures, every run."""

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import ABSENT, rows
from benchmark.report.leaks import splits
from benchmark.report.prose import code
from benchmark.report.sections import Section

COMPUTING = ("numpy", "pytorch-lightning", "safetensors", "torch")
"""Packages that a number may depend on; the others are in the CSV only."""

DESCRIBING = ("summary", "paper")
"""Settings of a method that are text for a reader."""


def shared_compute(analysis: Analysis) -> list[str]:
    """How much training was shared, and how long evaluation took."""
    evaluating = analysis.frames.runs.eval_seconds.sum()
    seconds = evaluating + analysis.frames.runs.seconds.sum()
    share = evaluating / seconds if seconds else 0.0
    by_kind = {row["what"]: row for row in rows(analysis.tables["shared_compute"])}
    shown = [
        {
            "": kind,
            "FLOPs": formats.flops(by_kind[kind]["flops"]),
            "with unmasked attention": formats.flops(by_kind[kind]["flops_unmasked"]),
            "tokens": formats.count(by_kind[kind]["tokens"]),
            "time": formats.seconds(by_kind[kind]["seconds"]),
        }
        for kind in ("charged", "executed")
    ]
    return [
        "A stage that several runs have in common is trained once and charged to each: "
        f"{formats.number(by_kind['ratio']['flops'])} FLOPs charged for one executed. Evaluation "
        f"took {formats.percent(share)} of the wall-clock and is not charged.",
        formats.table(shown),
    ]


def settings(analysis: Analysis) -> list[str]:
    """Everything all runs share."""
    return [_plain(analysis.tables["settings"])]


def what_differs(analysis: Analysis) -> list[str]:
    """Everything in which methods differ; nothing else may."""
    table = analysis.tables["what_differs"]
    keys = [key for key in table.columns if key not in ("method", *DESCRIBING)]
    usual = {key: table[key].mode().iloc[0] for key in keys}
    shown = []
    for row in rows(table):
        unusual = [f"{k} = {row[k] or 'none'}" for k, value in usual.items() if row[k] != value]
        shown.append(
            {
                "method": f"`{row['method']}`",
                "what it is": "; ".join(filter(None, (row.get(key, "") for key in DESCRIBING))),
                "settings": "; ".join(unusual),
            }
        )
    return [
        "Settings that are not those of most methods; all of them are in "
        "`tables/what_differs.csv`.",
        formats.table(shown, alignment="left"),
    ]


def failures(analysis: Analysis) -> list[str]:
    """Runs that did not end well, and folders that the plan does not know."""
    runs = analysis.frames.runs
    shown = [
        {
            "method": f"`{row['method']}`",
            "seed": str(row["seed"]),
            "status": row["status"],
            "got to": formats.percent(row["flops"] / row["budget_flops"]),
            "cost": formats.DASH if row["status"] in ABSENT else formats.INFINITY,
            "error": row["error"],
            "run": row["run_id"],
        }
        for row in rows(runs[runs.status != "done"])
    ]
    unplanned = analysis.frames.suite.unplanned
    note = f"Not in the plan, hence in no table: {code(unplanned)}." if unplanned else ""
    return [formats.table(shown, alignment="left"), note]


def runs(analysis: Analysis) -> list[str]:
    """One row per planned run; tuning lists its own."""
    published = analysis.frames.suite.published
    compared = analysis.frames.runs[analysis.frames.runs.role != "tuning"]
    shown = [
        {
            "run": row["run_id"],
            "method": f"`{row['method']}`",
            "seed": str(row["seed"]),
            "status": row["status"] + ", published" * (row["run_id"] in published),
            "test bpb": formats.bpb(row["test_bpb"]),
            "val bpb": formats.bpb(row["val_bpb"]),
            "FLOPs": formats.flops(row["flops"]),
            "of budget": formats.percent(row["flops"] / row["budget_flops"]),
            "steps": formats.count(row["step"]),
            "tokens": formats.count(row["tokens"]),
            "time": formats.seconds(row["seconds"]),
            "memory": formats.memory(row["peak_memory_bytes"]),
        }
        for row in rows(compared)
    ]
    return [formats.table(shown)]


def plan(analysis: Analysis) -> list[str]:
    """What was fixed before the first run, and what changed since."""
    lock, changes = analysis.registration.lock, analysis.tables.get("amendments")
    if lock is None:
        return ["Not pre-registered: there is no `plan.lock`."]
    seen = formats.plural(lock.results, "result")
    tests = "; ".join(lock.first.get("tests", ()))
    fixed = (
        f"`plan.lock` of {lock.date}, when there were {seen}. Metric: {lock.first.get('metric')}."
    )
    return [f"{fixed} Tests: {tests}.", "No amendments." if changes is None else _plain(changes)]


def leaks(analysis: Analysis) -> list[str]:
    """How much of the held-out text a model may have read in training."""
    shown = [
        {
            "split": split,
            "bytes": formats.count(found["n_bytes"]),
            f"windows of {analysis.overlap['window']} bytes in train": formats.percent(
                found["share_in_train"]
            ),
        }
        for split, found in splits(analysis.overlap).items()
    ]
    epochs = f"The most that a run has read is {analysis.frames.runs.epochs.max():.3g} epochs."
    if not shown:
        return [f"The overlap of training and held-out text was not looked for. {epochs}"]
    return [f"Exact matches, at every offset of the held-out text. {epochs}", formats.table(shown)]


def environment(analysis: Analysis) -> list[str]:
    """Where and with what the runs were made."""
    table = analysis.tables["environment"]
    computing = table.key.isin([f"packages.{name}" for name in COMPUTING])
    shown = table[~table.key.str.startswith("packages.") | computing]
    return [_plain(shown), "Every installed package: `tables/environment.csv`."]


SECTIONS: dict[str, Section] = {
    "Shared compute": shared_compute,
    "What every run shares": settings,
    "What differs": what_differs,
    "Failures": failures,
    "Runs": runs,
    "Plan": plan,
    "Leaks and repeats": leaks,
    "Environment": environment,
}


def _plain(table: pd.DataFrame) -> str:
    shown = [{key: str(value) for key, value in row.items()} for row in rows(table)]
    return formats.table(shown, alignment="left")
