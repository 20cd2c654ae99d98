"""Runs start, grow and end at the sizes and times that their configuration gives."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, log_of, numbered
from benchmark.audit.ledger import step_flops
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

AT_FRACTIONS = "benchmark.growth.schedule:AtFractions"
SAME_TEXT = 1e-5
"""Relative difference below which two scores of one model on one text are equal."""

Sizes = dict[str, Any]


def sizes(evidence: Evidence) -> Iterator[Remark]:
    """Every run starts and ends at the sizes that target, method and ladder give."""
    for run in evidence.ran:
        method, stages = run.config["method"], list(numbered(run, "stage"))
        end = _target(run)
        start = _source(end, method["ladder"])
        if method["ladder"]["path"] == "constant" or not method["ladder"]["n_growths"]:
            end = start
        growths = run.of("growth")
        first = growths[0]["from"] if growths and growths[0]["step"] == 0 else None
        ends = [(log_of(run), "starts", first)] if first else []
        ends += [(place, "starts", stage["sizes"]) for place, stage in stages[: not first]]
        if run.status == "done":
            ends += [(place, "ends", stage["sizes"]) for place, stage in stages[-1:]]
        for place, verb, found in ends:
            right = start if verb == "starts" else end
            for name in sorted(found.keys() | right.keys()):
                if found.get(name) != right.get(name):
                    text = f"{verb} with {name} {found.get(name)}, not {right.get(name)}"
                    yield Remark(f"{place}: {text}")


def growth(evidence: Evidence) -> Iterator[Remark]:
    """Growth comes when the schedule says, by the method's class, and scores as the curve does."""
    for run in evidence.ran:
        grown = list(numbered(run, "growth"))
        method = run.config["method"]
        if run.status == "done" and len(grown) != method["ladder"]["n_growths"]:
            planned = method["ladder"]["n_growths"]
            yield Remark(f"{log_of(run)}: grows {len(grown)} times, its ladder says {planned}")
        for (place, event), at in zip(grown, _times(run, len(grown)), strict=True):
            yield from _as_stated(place, event, run)
            before = event["flops"] - event["growth_flops"]
            steps = [step_flops(run.config, stage) for stage in run.of("stage")]
            if at is not None and not at - max(steps) < before <= at * (1 + SAME_TEXT):
                yield Remark(f"{place}: grows at {before:.6g} FLOPs, its schedule says {at:.6g}")


def _as_stated(place: str, event: Event, run: RunRecord) -> Iterator[Remark]:
    """What a growth says of itself, against configuration, stages and curve."""
    stages = {stage["stage_id"]: stage for stage in run.of("stage")}
    method = run.config["method"]
    right = {"operator": method["target"], "state_policy": method["state_policy"]}
    if event["stage_id"] in stages:
        right["n_params_to"] = stages[event["stage_id"]]["n_params"]
    earlier = [stage for stage in run.of("stage") if stage["stage"] < event["stage"]]
    if earlier:
        right["n_params_from"] = earlier[-1]["n_params"]
    for name, value in right.items():
        if event[name] != value:
            yield Remark(f"{place}: {name} is {event[name]}, the rest of the run says {value}")
    curve = [e["bpb"] for e in run.of("evaluation")
             if e["step"] == event["step"] and e["stage"] < event["stage"]]  # fmt: skip
    for bpb in curve[-1:]:
        if not math.isclose(event["bpb_before"], bpb, rel_tol=SAME_TEXT):
            text = f"bpb_before is {event['bpb_before']:.6f}, the curve has {bpb:.6f}"
            yield Remark(f"{place}: {text}")


def _times(run: RunRecord, n: int) -> list[float | None]:
    """FLOPs at which each growth is due; None where a schedule decides by the loss."""
    schedule, budget = run.config["method"]["schedule"], run.events[0]["budget_flops"]
    if not schedule or schedule["target"] != AT_FRACTIONS:
        return [None] * n
    times: list[float | None] = [at * budget for at in schedule["args"]["at"]]
    return times[:n]


def _target(run: RunRecord) -> Sizes:
    """Sizes of the target, with those that the method has else."""
    target = run.config["workload"]["target"]
    named = (
        "d_model",
        "n_layer",
        "n_head",
        "d_head",
        "d_ff",
        "vocab_size",
        "seq_len",
        "n_token",
        "rank",
    )
    found: Sizes = {name: target[name] for name in named if target.get(name) is not None}
    for name, size in run.config["method"]["sizes"].items():
        found[name] = _multiple(size, target) if isinstance(size, str) else size
    return found


def _multiple(text: str, target: Mapping[str, Any]) -> int:
    """The size that "0.75*d_model" means, or "d_model"."""
    factor, _, name = text.rpartition("*")
    return round(float(factor or 1) * target[name.strip()])


def _source(end: Sizes, ladder: Mapping[str, Any]) -> Sizes:
    small = {name: round(end[name] / factor) for name, factor in ladder["shrink"].items()}
    return end | ladder["start"] | small
