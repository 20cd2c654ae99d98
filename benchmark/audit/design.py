"""Runs differ in method and seed alone, and all learn at the rate of the one schedule."""

import math
from collections.abc import Iterator

from benchmark.audit.evidence import PARTIAL, Evidence, Remark, log_of, numbered
from benchmark.audit.ledger import step_flops
from benchmark.records.events import flatten
from benchmark.records.folder import RunRecord

PRIVATE = frozenset({
    "name", "role", "summary", "paper", "target", "args", "budget", "sizes", "ladder", "schedule",
    "state_policy", "rewarm", "controls", "tunable", "tunes", "trial", "tuned", "levels",
})  # fmt: skip
"""Everything in which methods may differ."""

SHARED = ("suite", "suite_version", "workload", "protocol")
SAME_RATE = 1e-9
"""Relative difference below which two learning rates are equal."""


def seeds(evidence: Evidence) -> Iterator[Remark]:
    """Every planned run has ended, with its own seed; each method has those of the protocol."""
    suite = evidence.suite
    for run in suite.runs:
        name = f"runs/{run.run_id} ({run.method}, seed {run.seed})"
        if run.status in ("missing", "unfinished"):
            yield Remark(f"{name}: {run.status}")
        elif (right := (suite.name, suite.version, run.seed, run.method, run.role)) != _named(run):
            yield Remark(f"{name}: its configuration is of {_named(run)}, not of {right}")
    compared = [run for run in suite.runs if run.role != "tuning"]
    every = {run.seed for run in compared}
    if every != set(planned := evidence.shared["protocol"]["seeds"]):
        yield Remark(f"suite.yaml: seeds {sorted(every)}, configurations say {planned}")
    for method in dict.fromkeys(run.method for run in compared):
        if lost := every - {run.seed for run in compared if run.method == method}:
            yield Remark(f"suite.yaml: {method} lacks seeds {sorted(lost)} of the others")


def _named(run: RunRecord) -> tuple[str, str, int, str, str]:
    """Whose configuration a run has."""
    config, method = run.config, run.config["method"]
    version = str(config["suite_version"])
    return config["suite"], version, config["seed"], method["name"], method["role"]


def shared_settings(evidence: Evidence) -> Iterator[Remark]:
    """Configurations differ in `seed` and in what a method may set: no optimizer, no data."""
    reference = evidence.ran[0]
    right = flatten({part: reference.config[part] for part in SHARED})
    for run in evidence.ran:
        where = f"runs/{run.run_id}.jsonl.gz ({run.method}, seed {run.seed})"
        found = flatten({part: run.config.get(part) for part in SHARED})
        for key in sorted(found.keys() | right.keys()):
            if found.get(key) != right.get(key):
                has, others = found.get(key), right.get(key)
                yield Remark(f"{where}: {key} is {has}, {reference.method} has {others}")
        extra = run.config.keys() - {*SHARED, "seed", "method"}
        for key in sorted(extra) + sorted(run.config["method"].keys() - PRIVATE):
            yield Remark(f"{where}: {key} is not for a method to set")


def learning_rate(evidence: Evidence) -> Iterator[Remark]:
    """Every recorded rate is that of the schedule, which ends at zero with the run's budget."""
    for run in evidence.ran:
        grown: list[float] = []
        step = 0.0
        for place, event in numbered(run, "stage", "growth", "train"):
            if event["kind"] == "growth":
                grown.append(event["flops"])
            elif event["kind"] == "stage":
                step = step_flops(run.config, event)
            else:
                right = _rate(run, event["flops"] - step / 2, grown)
                if not math.isclose(event["lr"], right, rel_tol=SAME_RATE, abs_tol=1e-15):
                    yield Remark(
                        f"{place}: learning rate {event['lr']:.6g}, the schedule gives {right:.6g}"
                        f"{': not annealed' if event['lr'] > right else ''}"
                    )
        if run.status == "done" and not run.of("train"):
            yield Remark(f"{log_of(run)}: no learning rate is recorded")


def _rate(run: RunRecord, flops: float, grown: list[float]) -> float:
    """Warm-up, constant, linear decay to zero; then what re-warming makes of it."""
    protocol, method = run.config["protocol"], run.config["method"]
    curve, whole = protocol["learning_rate"], protocol["budget_flops"]
    tuned = {name.removeprefix("learning_rate."): x for name, x in method.get("tuned", {}).items()}
    curve = curve | tuned
    end = method["budget"] * whole
    rate = curve["peak"] * min(1.0, flops / (curve["warmup"] * whole))
    rate *= min(1.0, max(0.0, (end - flops) / (curve["decay"] * end)))
    rewarm = method.get("rewarm") or {"which": "none"}
    if rewarm["which"] != "all" or not grown:
        return float(rate)
    ratio = [rewarm["ratio"], *rewarm["ratios"][: len(grown)]][-1]
    done = min(1.0, (flops - grown[-1]) / (rewarm["length"] * whole))
    return float(rate * (rewarm["start"] + (ratio - rewarm["start"]) * done))


def is_headline(run: RunRecord) -> bool:
    """Whether a run is compared at C*."""
    return run.role not in PARTIAL
