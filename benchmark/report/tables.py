"""The numbers of every table, unrounded; each becomes a CSV file and, formatted, part of a page."""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from benchmark.records.events import flatten
from benchmark.records.lock import Lock
from benchmark.report.controls import BEST_FIXED, SCRATCH, Controls
from benchmark.report.formats import changed, listed
from benchmark.report.frames import Frames, Row, grouped, rows
from benchmark.report.statistics import mean_interval

ROLES = ("method", "control", "hull", "rung")
GROUPS = {"control": "controls", "hull": "other fixed sizes"}
"""Headings of the rows that are no methods."""

_TOTALS = ["flops", "flops_unmasked", "tokens", "seconds"]
_COSTS = ["n_params", "n_params_nonembedding", *_TOTALS, "epochs", "peak_memory_bytes"]
_SPEED_UP = {"cost_to_scratch": "cost", "speed_up": "speed_up", "n_reached": "n_reached",
             "speed_up_n": "n", "speed_up_low": "low", "speed_up_high": "high"}  # fmt: skip


def summary(
    frames: Frames, found: Controls, compared: pd.DataFrame, faster: pd.DataFrame
) -> pd.DataFrame:
    """One row per method at C*: methods, then controls, then hull.

    Methods that grow the same sizes at the same time stand together, the group with the best
    method first; within a group and among controls, by mean test bpb.
    """
    at_end = {row["method"]: row for row in rows(faster[faster.reference == SCRATCH])}
    grows, factors = (what_grows(frames, words) for words in (changed, _factors))
    against = grouped(compared)
    compiled = [
        _quality(frames, method)
        | _differences(against.get(method, []))
        | {"grows": grows.get(method, ""), "group": factors.get(method, "does not grow")}
        | {"is_best_fixed": method == found.best_fixed}
        | {name: at_end.get(method, {}).get(key, math.nan) for name, key in _SPEED_UP.items()}
        | {**frames.results(method)[_COSTS].mean()}
        | {"run_ids": frames.run_ids(method)}
        for method in frames.methods("method", "control", "hull")
    ]
    table = pd.DataFrame(compiled).assign(rank=lambda t: t.role.map(ROLES.index))
    in_group = table.grows.where(table.role == "method", table.role)
    table["group"] = table.group.where(table.role == "method", table.role.map(GROUPS))
    table = table.assign(best=table.groupby(in_group).test_bpb.transform("min"), in_group=in_group)
    order = ["rank", "best", "in_group", "test_bpb"]
    ordered = table.sort_values(order, kind="stable", ignore_index=True)
    return ordered.drop(columns=["rank", "best", "in_group"])


def what_grows(frames: Frames, words: Callable[[Row, Row], str]) -> dict[str, str]:
    """Of each method that grows: what changes and the shares of C* at which it does.

    Means over seeds, rounded to a percent; "stops" if no size changes.
    """
    found = {}
    for method, growths in frames.growths.groupby("method", sort=False):
        sizes = words(growths.iloc[0].from_sizes, growths.iloc[-1].to_sizes)
        starts = growths.groupby("growth").start_flops.mean() / frames.budget_flops
        when = listed([f"{100 * share:.0f}" for share in starts])
        found[str(method)] = f"{sizes or 'stops'} at {when} %"
    return found


def growth_events(frames: Frames) -> pd.DataFrame:
    """Growths as means over seeds; a recovery is infinite if one seed did not recover."""
    means = {name: (name, "mean") for name in (
        "flops", "bpb_before", "bpb_after", "recovery_flops", "growth_flops", "growth_tokens",
        "growth_seconds",
    )}  # fmt: skip
    firsts = {name: (name, "first") for name in (
        "role", "operator", "from_sizes", "to_sizes", "n_params_from", "n_params_to",
        "state_policy",
    )}  # fmt: skip
    recovered = ("recovery_flops", lambda flops: int(np.isfinite(flops).sum()))
    grouped = frames.growths.groupby(["method", "growth"], sort=False)
    table = grouped.agg(n=("seed", "size"), n_recovered=recovered, **firsts, **means).reset_index()
    table["changed"] = list(map(changed, table.from_sizes, table.to_sizes))
    table["budget_share"] = table.flops / frames.budget_flops
    table["jump"] = table.bpb_after - table.bpb_before
    table["recovery_share"] = table.recovery_flops / frames.budget_flops
    return table.drop(columns=["from_sizes", "to_sizes"])


def shared_compute(frames: Frames) -> pd.DataFrame:
    """What runs are charged, and what was executed: each distinct stage once."""
    charges = frames.charges[frames.charges.role != "tuning"]
    charged = charges[_TOTALS].sum()
    executed = charges.drop_duplicates(["stage_id", "what"])[_TOTALS].sum()
    table = pd.DataFrame([charged, executed], index=["charged", "executed"]).astype(float)
    table.loc["ratio"] = table.loc["charged"] / table.loc["executed"]
    return table.rename_axis("what").reset_index()


def hyperparameters(frames: Frames) -> pd.DataFrame:
    """Every setting that all runs of the suite share."""
    leaves = flatten({part: frames.config[part] for part in ("workload", "protocol")})
    return pd.DataFrame({"key": list(leaves), "value": list(map(literal, leaves.values()))})


def differing(frames: Frames) -> pd.DataFrame:
    """Settings under `method` whose values are not the same for every method."""
    configs = frames.settings
    compared = [m for m in frames.methods(*ROLES) if m in configs]
    leaves = {method: flatten(configs[method]) for method in compared}
    keys = dict.fromkeys(key for settings in leaves.values() for key in settings)
    values = {k: [literal(settings.get(k)) for settings in leaves.values()] for k in keys}
    return pd.DataFrame(
        {"method": list(leaves)}
        | {k: v for k, v in values.items() if len(set(v)) > 1 and k != "name"}
    )


def environment(frames: Frames) -> pd.DataFrame:
    """Every value of the runs' provenance, and how many runs have it."""
    found = {
        (key, literal(value), run.run_id)
        for run in frames.suite.runs
        for environment in run.environments
        for key, value in flatten(environment).items()
    }
    table = pd.DataFrame(sorted(found), columns=["key", "value", "runs"])
    return table.groupby(["key", "value"], as_index=False).count()


def amendments(lock: Lock) -> pd.DataFrame:
    """Every change of the plan, oldest first."""
    return pd.DataFrame(
        [
            {
                "date": amendment.date,
                "results": amendment.results,
                "added": _seeds(amendment.added),
                "removed": _seeds(amendment.removed),
                "changed": ", ".join(amendment.changed),
            }
            for amendment in lock.amendments
        ]
    )


def _seeds(by_method: Mapping[str, Iterable[int]]) -> str:
    """Such as "net2net 3 4; stacking 3"."""
    return "; ".join(f"{m} {' '.join(map(str, seeds))}" for m, seeds in by_method.items())


def literal(value: object) -> str:
    """A setting as text, the same on every machine."""
    if isinstance(value, float):
        return format(value, ".10g")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict) and value:
        return f"{{{', '.join(f'{key}: {literal(item)}' for key, item in value.items())}}}"
    return "" if value is None or value in ({}, "") else str(value)


def status(runs: pd.DataFrame) -> str:
    """How the planned runs of one method ended, such as "2 of 3 done, 1 diverged"."""
    counts = runs.status.value_counts()
    done = int(counts.pop("done")) if "done" in counts else 0
    if done == len(runs):
        return "done"
    others = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    return f"{done} of {len(runs)} done, {others}"


def _quality(frames: Frames, method: str) -> Row:
    runs, scored = frames.of(method), frames.results(method).test_bpb
    mean = mean_interval(list(scored))
    return {
        "method": method,
        "role": runs.role.iloc[0],
        "status": status(runs),
        "n": len(scored),
        "n_planned": len(runs),
        "test_bpb": mean.value,
        "test_bpb_low": mean.low,
        "test_bpb_high": mean.high,
        "test_bpb_min": scored.min(),
        "test_bpb_max": scored.max(),
    }


def _differences(compared: list[Row]) -> Row:
    """Against scratch, the best fixed size, and the least favourable control of the method's own.

    A control that is two of these is compared once and shown under both.
    """
    cells: Row = {}
    found = {row["against"]: row for row in compared}
    own = [row for against, row in found.items() if against not in (SCRATCH, BEST_FIXED)]
    shown = {
        SCRATCH: found.get(SCRATCH),
        BEST_FIXED: next((row for row in found.values() if row["is_best_fixed"]), None),
        "own": max(own, key=lambda row: row["difference"], default=None),
    }
    for against, row in shown.items():
        for name in ("difference", "low", "high", "n", "control"):
            key = f"vs_{against}" if name == "difference" else f"vs_{against}_{name}"
            empty = "" if name == "control" else math.nan
            cells[key] = row[name] if row is not None else empty
    return cells


def _factors(small: Row, large: Row) -> str:
    """Such as "n_layer x2"."""
    grown = {key: (small.get(key), large[key]) for key in large}
    return ", ".join(f"{key} x{b / a:.3g}" if a else key for key, (a, b) in grown.items() if a != b)
