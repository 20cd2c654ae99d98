"""Every number of a report, computed once from the records."""

from dataclasses import dataclass

import pandas as pd

from benchmark.records import Suite
from benchmark.report import tables
from benchmark.report.frames import Frames, frames
from benchmark.report.verdicts import Controls, comparisons, controls, speed_ups, verdicts


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What pages and figures are made from."""

    frames: Frames
    controls: Controls
    words: dict[str, str]
    """Verdict of each method."""

    tables: dict[str, pd.DataFrame]
    """By the name of the CSV file they are written to."""


def analyse(suite: Suite) -> Analysis:
    """All tables of a suite.

    Raises:
        RecordError: the records contradict one another, or there are none.
    """
    data = frames(suite)
    found = controls(data)
    compared, faster = comparisons(data, found), speed_ups(data)
    words = verdicts(data, found, compared)
    summary = tables.summary(data, found, compared, faster, words)
    return Analysis(
        frames=data,
        controls=found,
        words=words,
        tables={
            "summary": summary,
            "comparisons": _ranked(compared, summary),
            "compute_matched": _ranked(tables.compute_matched(data), summary),
            "speed_ups": _ranked(faster, summary),
            "growth_events": _ranked(tables.growth_events(data), summary),
            "hull": tables.hull(data, found),
            "shared_compute": tables.shared_compute(data),
            "settings": tables.hyperparameters(data),
            "what_differs": tables.differing(data),
            "environment": tables.environment(data),
            "runs": data.runs,
            "points": data.points,
            "growths": data.growths,
            "charges": data.charges,
        },
    )


def _ranked(table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    rank = {method: i for i, method in enumerate(summary.method)}
    by_rank = table.assign(rank=table.method.map(rank).fillna(len(rank)))
    ordered = by_rank.sort_values("rank", kind="stable", ignore_index=True)
    return ordered.drop(columns="rank")
