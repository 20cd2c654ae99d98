"""Performance profiles: who is rarely far from the best, over several workloads.

The cost of a method on a workload is its compute to the loss that scratch ends with, relative to
scratch's own: 1 / speed-up, infinite if it does not get there. Ratios to the best depend on who
takes part, so the pool is the methods that every workload has, and is named; ratios to scratch,
which depend on nobody else, stand beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.records.folder import load_suite
from benchmark.report import formats
from benchmark.report.analysis import Analysis, analyse
from benchmark.report.controls import SCRATCH
from benchmark.report.frames import rows
from benchmark.report.statistics import R_MAX, cost_ratios, profile_at, profile_score

MIN_WORKLOADS = 5
TAUS = (1.0, 1.1, 1.25, 1.5, 2.0, R_MAX)
"""Where the table reads the profiles."""


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """Costs of a pool of methods on five or more workloads."""

    costs: pd.DataFrame
    """Compute to scratch's loss over scratch's own; methods by workloads, infinite for a miss."""

    ratios: pd.DataFrame
    """The same relative to the best of the pool on each workload."""

    scores: "pd.Series[float]"
    """Area under each method's profile up to 4 times the best, 0 to 1; the exact integral."""

    left_out: tuple[str, ...]
    """Methods that some workload lacks, hence in no profile."""


def load_profiles(folders: Sequence[Path]) -> Profiles:
    """Profiles over results folders, one workload each.

    Raises:
        RecordError: fewer than five workloads, two folders of the same one, or damaged records.
    """
    return profiles([analyse(load_suite(folder)) for folder in folders])


def profiles(analyses: Sequence[Analysis]) -> Profiles:
    """Profiles over suites, one workload each.

    Raises:
        RecordError: fewer than five workloads, or two suites of the same one.
    """
    names = [analysis.frames.suite.name for analysis in analyses]
    workloads = [_workload(analysis) for analysis in analyses]
    for i, workload in enumerate(workloads):
        if workload in workloads[:i]:
            same = names[workloads.index(workload)]
            raise RecordError(f"suites {same} and {names[i]} have the same workload and budget")
    if len(analyses) < MIN_WORKLOADS:
        raise RecordError(
            f"a performance profile needs {MIN_WORKLOADS} workloads or more, got "
            f"{len(analyses)}: {', '.join(names)}"
        )
    costs = [_costs(analysis) for analysis in analyses]
    pool = [method for method in costs[0] if all(method in cost for cost in costs)]
    everyone = dict.fromkeys(method for cost in costs for method in cost)
    table = pd.DataFrame(
        {name: [cost[m] for m in pool] for name, cost in zip(names, costs, strict=True)}, pool
    )
    ratios = pd.DataFrame(cost_ratios(table), table.index, table.columns)
    return Profiles(
        costs=table,
        ratios=ratios,
        scores=pd.Series(profile_score(ratios), table.index),
        left_out=tuple(method for method in everyone if method not in pool),
    )


def table(found: Profiles) -> str:
    """Markdown: score, profile and the cost on every workload, best score first."""
    shares = {tau: dict(zip(found.ratios.index, profile_at(found.ratios, tau), strict=True))
              for tau in TAUS}  # fmt: skip
    ordered = found.scores.sort_values(ascending=False, kind="stable")
    costs = {str(name): dict(cost) for name, cost in found.costs.items()}
    shown = [
        {"method": f"`{method}`", "score": formats.number(score)}
        | {f"within {tau:g}x": formats.percent(shares[tau][method]) for tau in TAUS}
        | {name: formats.number(cost[method]) for name, cost in costs.items()}
        for method, score in ordered.items()
    ]
    return "\n\n".join(
        [
            f"Pool: {formats.plural(len(ordered), 'method')} that all "
            f"{found.costs.shape[1]} workloads have"
            + (f"; left out: {formats.listed(found.left_out)}" if found.left_out else "")
            + f". Columns named after a workload: compute to {SCRATCH}'s loss over its own.",
            formats.table(shown),
        ]
    )


def _workload(analysis: Analysis) -> str:
    config = next(run.config for run in analysis.frames.suite.runs if run.config)
    return repr([config["workload"], config["protocol"]["budget_flops"]])


def _costs(analysis: Analysis) -> dict[str, float]:
    faster = analysis.tables["speed_ups"]
    at_end = rows(faster[(faster.reference == SCRATCH) & (faster.role != "hull")])
    speeds = {row["method"]: row["speed_up"] for row in at_end}
    return {m: 1 / s if s > 0 else np.inf for m, s in speeds.items()}
