"""Runs differ in method and seed alone."""

from collections.abc import Iterator

from benchmark.audit.evidence import PARTIAL, Evidence, Remark, log_of
from benchmark.records.events import flatten
from benchmark.records.folder import RunRecord

PRIVATE = frozenset({
    "name", "role", "summary", "paper", "target", "args", "budget", "sizes", "ladder", "schedule",
    "state_policy", "rewarm", "controls", "tunable", "tunes", "trial", "tuned", "levels",
})  # fmt: skip
"""Everything in which methods may differ."""

SHARED = ("suite", "suite_version", "workload", "protocol")


def seeds(evidence: Evidence) -> Iterator[Remark]:
    """Every planned run has ended, with its own seed; each method has those of the protocol."""
    suite = evidence.suite
    for run in suite.runs:
        name = log_of(run)
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
        where = log_of(run)
        found = flatten({part: run.config.get(part) for part in SHARED})
        for key in sorted(found.keys() | right.keys()):
            if found.get(key) != right.get(key):
                has, others = found.get(key), right.get(key)
                yield Remark(f"{where}: {key} is {has}, {reference.method} has {others}")
        extra = run.config.keys() - {*SHARED, "seed", "method"}
        for key in sorted(extra) + sorted(run.config["method"].keys() - PRIVATE):
            yield Remark(f"{where}: {key} is not for a method to set")


def is_headline(run: RunRecord) -> bool:
    """Whether a run is compared at C*."""
    return run.role not in PARTIAL
