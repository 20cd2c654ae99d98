"""Where does growing pay? Crossed designs at several target sizes, against both controls."""

from collections.abc import Iterable

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.factors import cells
from benchmark.report.frames import rows

AGAINST = {SCRATCH: "scratch", BEST_FIXED: "the best fixed size"}

_REGIME = ["suite", "budget_flops", "n_params", "operator", "state_policy", "rewarm",
           "at", "factor", "method", "n",
           *(f"vs_{name}{end}" for name in AGAINST for end in ("", "_low", "_high")),
           "run_ids"]  # fmt: skip


def regime(suites: Iterable[Analysis]) -> pd.DataFrame:
    """A row for every cell, smallest target first."""
    found = [
        {**row, **levels[row["method"]], "suite": a.frames.suite.name,
         "budget_flops": a.frames.budget_flops}
        for a in suites
        for levels in [cells(a.frames)]
        for row in rows(a.tables["summary"])
        if row["method"] in levels
    ]  # fmt: skip
    return pd.DataFrame(found, columns=_REGIME).sort_values("n_params", kind="stable")


def sizes(table: pd.DataFrame) -> dict[float, str]:
    """What each target is called: its parameters, and their ratio to the middle one's."""
    found = sorted(table.n_params.unique())
    middle = found[len(found) // 2]
    return {n: f"{formats.count(n)} ({n / middle:.2g}x)" for n in found}


def where_it_pays(table: pd.DataFrame) -> str:
    """How many cells end below scratch and below the best fixed size, target by target."""
    parts = []
    for n_params, name in sizes(table).items():
        own = table[table.n_params == n_params]
        counts = [f"{int((own[f'vs_{key}_high'] < 0).sum())} below {what}"
                  for key, what in AGAINST.items()]  # fmt: skip
        parts.append(f"of {len(own)} cells with a target of {name} parameters {counts[0]} and "
                     f"{counts[1]}")  # fmt: skip
    return f"With an interval that excludes zero end, {'; '.join(parts)}."
