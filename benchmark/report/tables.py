"""The numbers of every table, unrounded; each becomes a CSV file and, formatted, part of a page."""

import math

import numpy as np
import pandas as pd

from benchmark.report.frames import ABSENT, Frames, Row, flatten, rows
from benchmark.report.verdicts import BEST_FIXED, SCRATCH, Controls, results
from benchmark.statistics import Estimate, mean_interval

ROLES = ("method", "control", "hull", "rung")
SAME_BUDGET = 0.01
"""Relative difference within which two budgets are one."""

_QUALITY = ["method", "role", "status", "n", "n_planned", "test_bpb", "test_bpb_low",
            "test_bpb_high", "test_bpb_min", "test_bpb_max"]  # fmt: skip
_HULL = ["n_params", "n_params_nonembedding", "is_target", "is_best_fixed"]
_TOTALS = ["flops", "flops_unmasked", "tokens", "seconds"]


def summary(
    frames: Frames, found: Controls, compared: pd.DataFrame, faster: pd.DataFrame,
    words: dict[str, str],
) -> pd.DataFrame:  # fmt: skip
    """One row per method at C*: methods, then controls, then hull; each by mean test bpb."""
    at_end = {row["method"]: row for row in rows(faster[faster.reference == SCRATCH])}
    compiled = [
        _quality(frames, method)
        | _differences(compared[compared.method == method])
        | {"verdict": words.get(method, ""), "is_best_fixed": method == found.best_fixed}
        | _speed_up(at_end.get(method, {}))
        | _costs(frames, method)
        for method in frames.methods("method", "control", "hull")
    ]
    table = pd.DataFrame(compiled).assign(rank=lambda t: t.role.map(ROLES.index))
    ordered = table.sort_values(["rank", "test_bpb"], kind="stable", ignore_index=True)
    return ordered.drop(columns="rank")


def compute_matched(frames: Frames) -> pd.DataFrame:
    """Curve bpb at fractions of C*: the last evaluation within one step of each, never a guess.

    A run is annealed at a fraction if its own budget ends there.
    """
    protocol = next(run.config["protocol"] for run in frames.suite.runs if run.config)
    steps = _step_flops(frames)
    evaluations = frames.points[frames.points.phase == "evaluation"]
    curves = {str(run_id): curve for run_id, curve in evaluations.groupby("run_id")}
    found = []
    for method in frames.methods(*ROLES):
        for fraction in protocol.get("rungs", [0.25, 0.5, 1.0]):
            rung, runs = fraction * frames.budget_flops, results(frames, method)
            budget = runs.budget_flops.max()
            if not len(runs) or budget < rung * (1 - SAME_BUDGET):
                continue
            bpb = [_bpb_at(run, curves, rung, steps.get(run["run_id"], 0.0)) for run in rows(runs)]
            found.append(
                {"method": method, "role": runs.role.iloc[0], "fraction": fraction}
                | _estimate("bpb", mean_interval(bpb))
                | {"n": len(bpb), "is_annealed": budget <= rung * (1 + SAME_BUDGET)}
            )
    names = ["method", "role", "fraction", "bpb", "bpb_low", "bpb_high", "n", "is_annealed"]
    return pd.DataFrame(found, columns=names)


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
    table["changed"] = [
        ", ".join(f"{key} {a[key]} to {b[key]}" for key in b if a.get(key) != b[key])
        for a, b in zip(table.from_sizes, table.to_sizes, strict=True)
    ]
    table["budget_share"] = table.flops / frames.budget_flops
    table["jump"] = table.bpb_after - table.bpb_before
    table["recovery_share"] = table.recovery_flops / frames.budget_flops
    return table.drop(columns=["from_sizes", "to_sizes"])


def hull(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every fixed size at C*, smallest first."""
    sizes = [
        _quality(frames, method)
        | {
            "n_params": frames.of(method).n_params.max(),
            "n_params_nonembedding": frames.of(method).n_params_nonembedding.max(),
            "is_target": method == SCRATCH,
            "is_best_fixed": method == found.best_fixed,
        }
        for method in found.fixed
    ]
    table = pd.DataFrame(sizes, columns=[*_QUALITY, *_HULL])
    return table.sort_values("n_params", kind="stable", ignore_index=True)


def shared_compute(frames: Frames) -> pd.DataFrame:
    """What runs are charged, and what was executed: each distinct stage once."""
    charged = frames.charges[_TOTALS].sum()
    executed = frames.charges.drop_duplicates(["stage_id", "what"])[_TOTALS].sum()
    table = pd.DataFrame([charged, executed], index=["charged", "executed"])
    table.loc["ratio"] = charged / executed
    return table.rename_axis("what").reset_index()


def hyperparameters(frames: Frames) -> pd.DataFrame:
    """Every setting that all runs of the suite share."""
    config = next(run.config for run in frames.suite.runs if run.config)
    leaves = flatten({part: config[part] for part in ("workload", "protocol")})
    return pd.DataFrame({"key": list(leaves), "value": list(map(literal, leaves.values()))})


def differing(frames: Frames) -> pd.DataFrame:
    """Settings under `method` whose values are not the same for every method."""
    configs = {run.method: run.config["method"] for run in frames.suite.runs if run.config}
    leaves = {method: flatten(config) for method, config in configs.items()}
    keys = dict.fromkeys(key for settings in leaves.values() for key in settings)
    values = {k: [literal(settings.get(k)) for settings in leaves.values()] for k in keys}
    return pd.DataFrame(
        {"method": list(leaves)}
        | {k: v for k, v in values.items() if len(set(v)) > 1 and k != "name"}
    )


def environment(frames: Frames) -> pd.DataFrame:
    """Every value of the runs' provenance, and how many runs have it."""
    found: dict[str, dict[str, int]] = {}
    for run in frames.suite.runs:
        for key, value in flatten(dict(run.provenance)).items() if run.provenance else ():
            counts = found.setdefault(key, {})
            counts[literal(value)] = counts.get(literal(value), 0) + 1
    return pd.DataFrame(
        [(k, v, n) for k, counts in found.items() for v, n in sorted(counts.items())],
        columns=["key", "value", "runs"],
    )


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
    runs, scored = frames.of(method), results(frames, method).test_bpb
    return {
        "method": method,
        "role": runs.role.iloc[0],
        "status": status(runs),
        "n": len(scored),
        "n_planned": len(runs),
        **_estimate("test_bpb", mean_interval(list(scored))),
        "test_bpb_min": scored.min(),
        "test_bpb_max": scored.max(),
    }


def _differences(compared: pd.DataFrame) -> Row:
    cells: Row = {}
    for against in (SCRATCH, BEST_FIXED):
        row = compared[compared.against == against]
        for name in ("difference", "low", "high", "n"):
            key = f"vs_{against}" if name == "difference" else f"vs_{against}_{name}"
            cells[key] = row[name].iloc[0] if len(row) else math.nan
    return cells


def _costs(frames: Frames, method: str) -> Row:
    runs = frames.of(method)
    shown = ["n_params", "n_params_nonembedding", *_TOTALS, "epochs", "peak_memory_bytes"]
    ran = runs[~runs.status.isin(ABSENT)]
    return {name: ran[name].mean() for name in shown} | {"run_ids": " ".join(runs.run_id)}


def _speed_up(row: Row) -> Row:
    names = {"speed_up": "speed_up", "n_reached": "n_reached", "speed_up_n": "n",
             "speed_up_low": "low", "speed_up_high": "high"}  # fmt: skip
    return {name: row.get(source, math.nan) for name, source in names.items()}


def _estimate(name: str, estimate: Estimate) -> Row:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _step_flops(frames: Frames) -> dict[str, float]:
    steps = frames.charges[(frames.charges.what == "train") & (frames.charges.steps > 0)]
    by_run = (steps.flops / steps.steps).groupby(steps.run_id).max()
    return {str(run_id): float(flops) for run_id, flops in by_run.items()}


def _bpb_at(run: Row, curves: dict[str, pd.DataFrame], flops: float, step: float) -> float:
    got_there = run["status"] == "done" or run["flops"] >= flops - step
    if not got_there or run["run_id"] not in curves:
        return math.inf
    curve = curves[run["run_id"]]
    seen = curve.bpb[(curve.flops <= flops + step) & (curve.flops >= flops - step)]
    return float(seen.iloc[-1]) if len(seen) and math.isfinite(seen.iloc[-1]) else math.inf
