"""Records as tidy tables: one row per run, curve point, growth and charge."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile, zip_longest
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.base.errors import RecordError
from benchmark.records.events import ABSENT, Event, differences
from benchmark.records.folder import OWN, RunRecord, Suite
from benchmark.report.statistics import cost_to_target

Row = dict[str, Any]
Curve = dict[str, NDArray[np.float64]]

CURVE = ("flops", "tokens", "seconds", "bpb")
"""Where a curve may be read, and what there is to read."""

_KEYS = ["run_id", "method", "role", "seed"]
WHERE = ["step", "tokens", "flops", "seconds"]
_RUN = ["tunes", "trial", "n_seeds", "status", "error", "budget_flops", "train_bytes", "corpus",
        "sizes", "n_params", "n_params_nonembedding", *WHERE, "flops_unmasked", "epochs",
        "eval_seconds", "peak_memory_bytes", "curve_bpb", "val_bpb", "test_bpb"]  # fmt: skip
_POINT = [*WHERE, "bpb", "phase"]
_GROWTH = ["growth", "operator", "from_sizes", "to_sizes", "n_params_from", "n_params_to",
           "start_flops", *WHERE, "bpb_before", "bpb_after", "recovery_flops", "growth_flops",
           "growth_tokens", "growth_seconds", "state_policy"]  # fmt: skip
_CHARGE = ["stage_id", "what", "flops", "flops_unmasked", "tokens", "steps", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A suite's records, in display order of the runs."""

    suite: Suite
    budget_flops: float
    """C* of the suite."""

    runs: pd.DataFrame
    """Every planned run; bpb is infinite unless the run is done."""

    points: pd.DataFrame
    """Curve points; phase is "evaluation", or "before" and "after" a growth."""

    growths: pd.DataFrame
    charges: pd.DataFrame

    @property
    def config(self) -> Row:
        """The configuration of a run; all have the same but for seed and method."""
        return next(dict(run.config) for run in self.suite.runs if run.config)

    @cached_property
    def settings(self) -> dict[str, Row]:
        """`method.*` of every method that has a record."""
        configs = [(run.method, run.config) for run in self.suite.runs if run.config]
        return {method: dict(config["method"]) for method, config in reversed(configs)}

    @cached_property
    def first_sizes(self) -> dict[str, Row]:
        """Sizes that each method trains first; lacks a method that never trained."""
        stages = [(run.method, run.of("stage")) for run in self.suite.runs]
        trained = [(m, [s for s in found if s["n_steps"]]) for m, found in stages]
        return {method: dict(found[0]["sizes"]) for method, found in reversed(trained) if found}

    def methods(self, *roles: str) -> list[str]:
        """Methods of these roles, all of them if none is named, in display order."""
        chosen = self.runs[self.runs.role.isin(roles)] if roles else self.runs
        return list(chosen.method.unique())

    def of(self, method: str) -> pd.DataFrame:
        """The runs of one method, by seed; empty if unplanned."""
        return self._by_method.get(method, self.runs[:0])

    def run_ids(self, method: str) -> str:
        """Ids of the runs of one method, by seed, as tables have them."""
        return " ".join(self.of(method).run_id)

    def results(self, method: str) -> pd.DataFrame:
        """Runs of a method that have a result, good or infinite, by seed; empty if unplanned."""
        runs = self.of(method)
        return runs[~runs.status.isin(ABSENT)]

    @cached_property
    def by_seed(self) -> dict[str, dict[int, Row]]:
        """The runs of each method as mappings, by seed."""
        return {m: {row["seed"]: row for row in own} for m, own in grouped(self.runs).items()}

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """`CURVE` and step of every run's curve, oldest first; by run id."""
        columns = {name: self.points[name].to_numpy(float) for name in (*CURVE, "step")}
        at = self.points.groupby("run_id", sort=False).indices
        return {str(run_id): {k: v[i] for k, v in columns.items()} for run_id, i in at.items()}

    @cached_property
    def validation(self) -> dict[str, float]:
        """Mean validation bpb over the results of each method that has one."""
        scored = self.runs[~self.runs.status.isin(ABSENT)]
        return {str(m): float(bpb) for m, bpb in scored.groupby("method").val_bpb.mean().items()}

    @cached_property
    def _by_method(self) -> dict[str, pd.DataFrame]:
        by_seed = self.runs.set_index("seed", drop=False).sort_index(kind="stable")
        return {str(method): runs for method, runs in by_seed.groupby("method", sort=False)}


def frames(suite: Suite) -> Frames:
    """Tables of a suite.

    Raises:
        RecordError: runs differ outside `method` and `seed`, scored different text, or a finished
            one lacks its score.
    """
    if not any(run.config for run in suite.runs):
        raise RecordError(f"suite {suite.name}: none of its {len(suite.runs)} runs has records yet")
    if all(run.role in ("rung", "tuning") for run in suite.runs):
        raise RecordError(
            f"suite {suite.name}: nothing to compare, every run is a rung of scratch or a trial"
        )
    config = _shared_config(suite)
    _require_same_text(suite)
    runs = gathered(suite, _run_rows, _RUN)
    runs["n_seeds"] = runs.groupby("method").run_id.transform("size")
    return Frames(
        suite=suite,
        budget_flops=float(config["protocol"]["budget_flops"]),
        runs=runs,
        points=gathered(suite, _point_rows, _POINT),
        growths=gathered(suite, _growth_rows, _GROWTH),
        charges=gathered(suite, lambda run: iter(run.of("charge")), _CHARGE),
    )


def rows(table: pd.DataFrame) -> list[Row]:
    """The rows of a table as mappings."""
    return cast("list[Row]", table.to_dict("records"))


def grouped(table: pd.DataFrame, key: str = "method") -> dict[str, list[Row]]:
    """The rows of a table by one of its columns, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows(table):
        groups.setdefault(row[key], []).append(row)
    return groups


def gathered(
    suite: Suite, rows_of: Callable[[RunRecord], Iterator[Row]], names: list[str]
) -> pd.DataFrame:
    """The rows of all runs in one table: whose they are, and what they say under these names."""
    filled = [
        {"run_id": run.run_id, "method": run.method, "role": run.role, "seed": run.seed}
        | {name: row.get(name) for name in names}
        for run in suite.runs
        for row in rows_of(run)
    ]
    return pd.DataFrame(filled, columns=_KEYS + names)


def _run_rows(run: RunRecord) -> Iterator[Row]:
    finals = {event["split"]: event for event in run.of("final")}
    wanted = {"val"} if run.role == "tuning" else {"val", "test"}
    if run.status == "done" and not wanted <= finals.keys():
        raise RecordError(f"run {run.run_id}: done, but it has final scores of {list(finals)} only")
    bpb = {split: event["bpb"] for split, event in finals.items()}
    scored = run.status == "done" and all(map(math.isfinite, bpb.values()))
    evaluations, last = run.of("evaluation"), run.events[-1] if run.events else {}
    located: Event = next((e for e in reversed(run.events) if "flops" in e and "step" in e), {})
    stage = (run.of("stage") or [{}])[-1]
    _require_possible(run)
    method = run.config.get("method", {})
    yield {
        "tunes": method.get("tunes", ""),
        "trial": method.get("trial"),
        **{name: located.get(name, math.nan) for name in WHERE},
        **{name: stage.get(name, math.nan) for name in ("n_params", "n_params_nonembedding")},
        **{name: run.events[0][name] for name in ("budget_flops", "corpus") if last},
        **({"train_bytes": run.train_bytes} if last else {}),
        "epochs": _epochs(run, located.get("tokens", 0)) if last else math.nan,
        "sizes": stage.get("sizes"),
        "status": "diverged" if run.status == "done" and not scored else run.status,
        "error": last.get("error") or "",
        "flops_unmasked": sum(event["flops_unmasked"] for event in run.of("charge")),
        "eval_seconds": sum(event["eval_seconds"] for event in [*evaluations, *finals.values()]),
        "peak_memory_bytes": last.get("peak_memory_bytes", math.nan),
        "curve_bpb": evaluations[-1]["bpb"] if evaluations and scored else math.inf,
        "val_bpb": bpb["val"] if scored else math.inf,
        "test_bpb": bpb.get("test", math.nan) if scored else math.inf,
    }


def _epochs(run: RunRecord, tokens: int) -> float:
    """The most passes over any text that a run read: the suite's, or one of a stage of its own."""
    own = [stage["corpus"] for stage in run.config.get("method", {}).get("stages") or ()]
    has = {"": run.events[0].get("train_tokens") or run.events[0]["train_bytes"]}
    read: dict[str, float] = {}
    ends = [0, *(event["tokens"] for event in run.of("growth")), tokens]
    for (start, end), corpus in zip_longest(pairwise(ends), own[: len(ends) - 1]):
        name = corpus["name"] if corpus else ""
        if corpus:
            share = corpus["splits"]["val_start"]
            has[name] = share if share > 1 else share * corpus["size"]
        read[name] = read.get(name, 0) + end - start
    return max(read[name] / has[name] for name in read)


def _require_possible(run: RunRecord) -> None:
    for event in run.events:
        if event["kind"] in ("evaluation", "final") and event["bpb"] < 0:
            raise RecordError(
                f"run {run.run_id} ({run.method}): {event['bpb']:.4g} bpb on {event['split']} at "
                f"step {event['step']}: a perplexity below 1 is impossible"
            )


def _point_rows(run: RunRecord) -> Iterator[Row]:
    for event in run.events:
        if event["kind"] == "evaluation":
            yield event | {"phase": "evaluation"}
        elif event["kind"] == "growth":
            start = {name: event[name] - event[f"growth_{name}"] for name in WHERE[1:]}
            yield event | start | {"bpb": event["bpb_before"], "phase": "before"}
            yield event | {"bpb": event["bpb_after"], "phase": "after"}


def _growth_rows(run: RunRecord) -> Iterator[Row]:
    growths = [i for i, event in enumerate(run.events) if event["kind"] == "growth"]
    for number, i in enumerate(growths, start=1):
        event = run.events[i]
        start = event["flops"] - event["growth_flops"]
        later = [e for e in run.events[i:] if e["kind"] == "evaluation"]
        later = list(takewhile(lambda e: math.isfinite(e["bpb"]), later))
        flops = [event["flops"], *(e["flops"] for e in later)]
        bpb = [event["bpb_after"], *(e["bpb"] for e in later)]
        yield event | {
            "growth": number,
            "from_sizes": event["from"],
            "to_sizes": event["to"],
            "start_flops": start,
            "recovery_flops": cost_to_target(flops, bpb, event["bpb_before"]) - start,
        }


def _shared_config(suite: Suite) -> Mapping[str, Any]:
    """The configuration of the first run that has one; all others must share it."""
    first, *others = (run for run in suite.runs if run.config)
    for run in others:
        parts = [{k: v for k, v in r.config.items() if k not in OWN} for r in (first, run)]
        if wrong := sorted(differences(*parts)):
            raise RecordError(
                f"runs {first.run_id} and {run.run_id} differ in {', '.join(wrong)}; the runs of a "
                "suite may differ only in method and seed"
            )
    return first.config


def _require_same_text(suite: Suite) -> None:
    scored: dict[str, tuple[str, list[int]]] = {}
    for run in suite.runs:
        for event in run.of("final"):
            split, blocks = event["split"], event["block_bytes"]
            other, theirs = scored.setdefault(split, (run.run_id, blocks))
            if blocks != theirs:
                raise RecordError(
                    f"runs {other} and {run.run_id} scored different blocks of the {split} split"
                )
