"""Every number of a report, computed once from the records."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmark.records.folder import load_suite
from benchmark.records.lock import FILE, Lock, read
from benchmark.report import factors, tables, tuning
from benchmark.report.controls import Controls, controls, withheld
from benchmark.report.conventions import conventions, speed_ups
from benchmark.report.frames import Frames, frames
from benchmark.report.leaks import Overlap, overlap, require_possible
from benchmark.report.verdicts import comparisons, verdicts, worse_than

NOTE = "note.md"
"""In a results folder: what readers should know beside the records; its report quotes it."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What pages and figures are made from."""

    frames: Frames
    controls: Controls
    words: dict[str, str]
    """Verdict of each method."""

    lock: Lock | None
    """What was planned; None if nothing was written down before the first run."""

    overlap: Overlap
    """What held-out text shares with training text; empty if unknown."""

    note: str
    """What whoever published the results says of them, in Markdown."""

    tables: dict[str, pd.DataFrame] = field(repr=False)
    """By the name of the CSV file they are written to; those without rows are left out."""


def analyse_folder(results_dir: Path) -> Analysis:
    """All tables of a results folder.

    Raises:
        RecordError: the records are damaged or contradict one another, or there are none.
    """
    suite, note = load_suite(results_dir), results_dir / NOTE
    lock = read(results_dir) if (results_dir / FILE).is_file() else None
    shared_text = overlap(results_dir)
    require_possible(suite, shared_text)
    data = frames(suite)
    found = controls(data)
    compared, faster = comparisons(data, found), speed_ups(data)
    doubts = withheld(data, found)
    words = verdicts(data, found, compared, doubts)
    summary = tables.summary(data, found, compared, faster)
    said = {
        "verdict": words,
        "worse_than": worse_than(compared),
        "withheld": {method: "; ".join(reasons) for method, reasons in doubts.items()},
        "amended": lock.marks if lock else {},
    }
    for name, texts in said.items():
        summary[name] = [texts.get(method, "") for method in summary.method]
    by_method = {
        "comparisons": compared,
        "speed_ups": faster,
        "growth_events": tables.growth_events(data),
        "conventions": conventions(data, compared),
    }
    return Analysis(
        frames=data,
        controls=found,
        words=words,
        lock=lock,
        overlap=shared_text,
        note=note.read_text().strip() if note.is_file() else "",
        tables={"summary": summary}
        | {name: _ranked(table, summary) for name, table in by_method.items()}
        | _others(data, found, lock),
    )


def _others(data: Frames, found: Controls, lock: Lock | None) -> dict[str, pd.DataFrame]:
    """Tables that are not by method; those of tuning, factors and amendments if there are any."""
    of_some: dict[str, pd.DataFrame] = {}
    if data.methods("tuning"):
        tried = tuning.trials(data, found)
        of_some |= {"tuning": tuning.tuning(data, found, tried), "tuning_trials": tried}
    crossed = factors.design(data, factors.cells(data))
    if factors.varied(crossed):
        of_some["main_effects"] = factors.main_effects(crossed)
        of_some["effect_shares"] = factors.shares(crossed)
    if lock and lock.amendments:
        of_some["amendments"] = tables.amendments(lock)
    return of_some | {
        "shared_compute": tables.shared_compute(data),
        "settings": tables.hyperparameters(data),
        "what_differs": tables.differing(data),
        "environment": tables.environment(data),
        "runs": data.runs,
        "points": data.points,
        "growths": data.growths,
        "charges": data.charges,
    }


def _ranked(table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the summary's methods."""
    rank = {method: i for i, method in enumerate(summary.method)}
    return table.sort_values("method", key=lambda m: m.map(rank), kind="stable", ignore_index=True)
