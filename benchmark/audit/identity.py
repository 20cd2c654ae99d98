"""The id of a stage is the hash of what determines its result: again, from settings and plan.

So an id vouches for corpus, seed, optimizer, learning rate, batch, sizes, science code and releases
at once. Ids of stages after a growth, and of other architectures, hash code that is not in the
records; their parents are among those checked here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, numbered
from benchmark.audit.ledger import step_flops
from benchmark.audit.parameters import SHIPPED
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord
from benchmark.records.lock import Plan

NO_CODE = hashlib.sha256(b"").hexdigest()[:16]
"""Digest of a method's own code before it grows: it has none."""

AT_FRACTIONS = "benchmark.growth.schedule:AtFractions"

PLAIN: dict[str, Any] = {
    "baseline": "benchmark.training.baseline:Plain",
    "args": {},
    "method_code": NO_CODE,
    "model_class": "benchmark.model.transformer:Transformer",
    "grows_from": None,
    "grows_from_class": "",
    "rung": 0,
    "frozen": [],
    "state_policy": "",
    "rewarm": None,
}
"""What a stage is before any growth."""

Settings = Mapping[str, Any]


def stage_ids(evidence: Evidence) -> Iterator[Remark]:
    """Ids of stages that train from scratch are those of the plan's code, data and settings."""
    if evidence.lock is None:
        return
    for run in evidence.ran:
        if not run.config["method"]["target"].startswith(SHIPPED):
            continue
        growths = {event["stage"] for event in run.of("growth")}
        parent: str | None = None
        for place, stage in numbered(run, "stage"):
            if stage["stage"] in growths or {"n_token", "rank"} & stage["sizes"].keys():
                break
            right = _id(evidence.lock.current, run, stage, parent)
            if right is not None and stage["stage_id"] != right:
                text = f"stage_id is {stage['stage_id']}, plan and configuration give {right}"
                yield Remark(f"{place}: {text}")
            parent = stage["stage_id"]


def _id(plan: Plan, run: RunRecord, stage: Event, parent: str | None) -> str | None:
    """The id of a stage; None if it depends on what is not recorded."""
    made_with = next((e for e in run.provenance if e["stage"] == stage["stage"]), None)
    until = _until(run, stage)
    if made_with is None or until is None or "+" not in made_with["packages"].get("torch", ""):
        return None  # a build of torch that is not named is still a part of its release
    content = {
        "code": plan["science"],
        "device": made_with["device"],
        "releases": {name: made_with["packages"][name] for name in ("torch", "pytorch-lightning")},
        "seed": run.config["seed"],
        "data": plan["corpus"],
        "batch_size": run.config["workload"]["batch_size"],
        "model": run.config["workload"]["target"] | stage["sizes"],
        **PLAIN,
        **_parallel(made_with),
        **_rules(run, stage["flops"], until),
        "parent": parent,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _parallel(made_with: Settings) -> dict[str, Any]:
    """What later stages hash as well: how many devices, and whether steps are compiled."""
    if "devices" not in made_with:
        return {}
    is_compiled = "Inductor" in made_with["kernels"].values()
    return {"devices": made_with["devices"], "is_compiled": is_compiled}


def _rules(run: RunRecord, spent: float, until: float) -> dict[str, Any]:
    """How a stage that goes from `spent` to `until` FLOPs learns, and is measured."""
    protocol, whole = _tuned(run.config), run.config["protocol"]["budget_flops"]
    budget, curve = run.events[0]["budget_flops"], protocol["learning_rate"]
    decay_start = (1 - curve["decay"]) * (run.config["method"]["budget"] * whole)
    splits = ["val"] if run.role == "tuning" else ["val", "test"]
    decay = [decay_start, budget] if until > decay_start else None
    return {
        "optimizer": protocol["optimizer"],
        "rate": {"peak": curve["peak"], "warmup_flops": curve["warmup"] * whole, "decay": decay},
        "budget_flops": whole,
        "until": until,
        "marks": [mark for mark in _marks(protocol) if spent < mark < until],
        "is_last": until == budget,
        "splits": splits if until == budget else [],
        "measure": {
            "curve_bytes": protocol["curve_bytes"],
            "batch_size": protocol["eval_batch_size"],
            "block_bytes": protocol["block_bytes"],
        },
        "allow_repeats": protocol["allow_repeats"],
        "precision": protocol["precision"],
    }


def _marks(protocol: Settings) -> list[float]:
    """FLOPs at which every run is evaluated."""
    n = protocol["n_evaluations"]
    return [i * protocol["budget_flops"] / n for i in range(1, n + 1)]


def _until(run: RunRecord, stage: Event) -> float | None:
    """FLOPs at which a stage that never grew ends; None if a schedule decides by the loss."""
    protocol, method = run.config["protocol"], run.config["method"]
    whole, budget = protocol["budget_flops"], run.events[0]["budget_flops"]
    decay = _tuned(run.config)["learning_rate"]["decay"]
    marks = {cut * whole for cut in protocol["cuts"]}
    marks |= {(1 - decay) * (rung * whole) for rung in [*protocol["rungs"], method["budget"]]}
    if schedule := method["schedule"]:
        if schedule["target"] != AT_FRACTIONS:
            return None
        marks.add(schedule["args"]["at"][0] * budget)
    step = step_flops(run.config, stage)
    ahead = (mark for mark in sorted(marks) if mark < budget)
    return float(next((m for m in ahead if (m - stage["flops"]) // step > 0), budget))


def _tuned(config: Settings) -> dict[str, Any]:
    """The protocol at the settings of a trial, if the run has some."""
    protocol = dict(config["protocol"])
    for name, value in config["method"]["tuned"].items():
        section, _, key = name.partition(".")
        if section in ("learning_rate", "optimizer"):
            protocol[section] = protocol[section] | {key: value}
    return protocol
