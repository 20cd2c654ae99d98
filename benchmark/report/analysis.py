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
    return Analysis(
        frames=data,
        controls=found,
        words=words,
        tables={
            "summary": tables.summary(data, found, compared, faster, words),
            "comparisons": compared,
            "compute_matched": tables.compute_matched(data),
            "speed_ups": faster,
            "growth_events": tables.growth_events(data),
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
