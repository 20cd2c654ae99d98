"""Tuning was equal, on validation alone, and its choice is the one that the trials give."""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.records.folder import RunRecord

ROLE = "tuning"

TUNED = ("name", "tunes", "trial", "tuned", "args", "schedule")
OF_TRIALS = ("role", "controls", "budget")
"""In what a tuned run, or a trial, is other than the method that it tunes."""

Trials = dict[int, list[RunRecord]]


def tuning(evidence: Evidence) -> Iterator[Remark]:
    """As many trials for every tuned method, at the same shared settings; the best was chosen."""
    tried = evidence.shared["protocol"].get("tuning", {"trials": 0})
    by_method = _trials(evidence)
    for method, trials in by_method.items():
        if len(trials) != tried["trials"]:
            yield Remark(f"suite.yaml: {method} has {len(trials)} trials, not {tried['trials']}")
    yield from _equal(evidence, tried.get("space", {}))
    yield from _alike(evidence)
    for run in evidence.ran:
        method = run.config["method"]
        if method.get("tunes") and run.role != ROLE:
            yield from _chosen(run, by_method.get(method["tunes"], {}))
        elif method.get("tuned") and not method.get("tunes"):
            names = ", ".join(sorted(method["tuned"]))
            yield Remark(f"{log_of(run)}: has {names} for itself, without tuning")


def _alike(evidence: Evidence) -> Iterator[Remark]:
    """Trials and tuned runs are the default method in all that is not tuned: no plan holds them."""
    defaults = {run.method: run.config["method"] for run in evidence.ran}
    for run in evidence.ran:
        method = run.config["method"]
        right = defaults.get(method.get("tunes"), {})
        free = TUNED + (OF_TRIALS if run.role == ROLE else ())
        for key in right.keys() - set(free):
            if method.get(key) != right[key]:
                name = method["tunes"]
                yield Remark(f"{log_of(run)}: {key} is {method.get(key)}, {name} has {right[key]}")


def _trials(evidence: Evidence) -> dict[str, Trials]:
    found: dict[str, Trials] = {}
    for run in evidence.ran:
        if run.role == ROLE:
            method = run.config["method"]
            found.setdefault(method["tunes"], {}).setdefault(method["trial"], []).append(run)
    return found


def _equal(evidence: Evidence, space: Mapping[str, Any]) -> Iterator[Remark]:
    """Trial k has the same shared settings for everyone, in bounds and on seeds of their own."""
    final_seeds = {run.seed for run in evidence.suite.runs if run.role != ROLE}
    reference: dict[tuple[int, str], float] = {}
    for run in (run for run in evidence.ran if run.role == ROLE):
        number, tuned = run.config["method"]["trial"], run.config["method"]["tuned"]
        if run.seed in final_seeds:
            yield Remark(f"{log_of(run)}: tunes on a seed of the comparison")
        own = run.config["method"].get("tunable") or {}
        for name in sorted(tuned.keys() - space.keys() - own.keys()):
            yield Remark(f"{log_of(run)}: tries {name}, which is nobody's to tune")
        for name, (low, high) in space.items():
            value = tuned.get(name, math.nan)
            if value != reference.setdefault((number, name), value):
                yield Remark(f"{log_of(run)}: tries {name}={value} where others try another")
            elif number and not low <= value <= high:  # trial 0 is the default
                yield Remark(f"{log_of(run)}: tries {name}={value}, outside [{low}, {high}]")


def _chosen(run: RunRecord, trials: Trials) -> Iterator[Remark]:
    """The settings of a final run are those of the trial with the lowest mean on validation."""
    means = {number: fmean(map(_val_bpb, group)) for number, group in trials.items()}
    if not means:
        yield Remark(f"{log_of(run)}: tuned, but there are no trials")
        return
    best = min(sorted(means), key=means.__getitem__)
    if run.config["method"]["tuned"] != trials[best][0].config["method"]["tuned"]:
        yield Remark(f"{log_of(run)}: its settings are not those of trial {best}, the best")


def _val_bpb(run: RunRecord) -> float:
    finals = [event for event in run.of("final") if event["split"] == "val"]
    if run.status != "done" or len(finals) != 1:
        return math.inf
    return math.fsum(finals[0]["block_nats"]) / sum(finals[0]["block_bytes"]) / math.log(2)
