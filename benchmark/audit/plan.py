"""The comparison is the one that was planned: `plan.lock` with its amendments against records."""

from collections.abc import Iterator
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.records.events import ABSENT, flatten
from benchmark.records.folder import RunRecord, load_run
from benchmark.records.lock import FILE, FIXED, METRIC, TARGET_LOSS, TESTS, Lock, Plan, settings


def plan(evidence: Evidence) -> Iterator[Remark]:
    """The runs are those of plan.lock and its amendments, with the settings it holds."""
    lock = evidence.lock
    if lock is None:
        yield Remark(f"{FILE}: there is none; nothing shows that the plan came before the results")
        return
    yield from _judged(lock.current)
    yield from _late(lock)
    yield from _complete(evidence, lock.current)
    yield from _left_out(evidence, lock)
    for run in evidence.ran:
        yield from _kept(run, lock.current)


def seeds(evidence: Evidence) -> Iterator[Remark]:
    """Every planned run has ended; each method has the seeds of the protocol."""
    runs = evidence.suite.runs
    for run in runs:
        if run.status in ABSENT:
            yield Remark(f"{log_of(run)}: {run.status}")
    compared = [run for run in runs if run.role != "tuning"]
    every = {run.seed for run in compared}
    if every != set(planned := evidence.shared["protocol"]["seeds"]):
        yield Remark(f"suite.yaml: seeds {sorted(every)}, configurations say {planned}")
    for method in dict.fromkeys(run.method for run in compared):
        if lost := every - {run.seed for run in compared if run.method == method}:
            yield Remark(f"suite.yaml: {method} lacks seeds {sorted(lost)} of the others")


def _judged(current: Plan) -> Iterator[Remark]:
    """Metric, target loss and tests other than those that reports are made with."""
    for key, right in {"metric": METRIC, "target_loss": TARGET_LOSS, "tests": list(TESTS)}.items():
        if current[key] != right:
            text = f"{FILE}: {key} is {current[key]!r}, reports are made by {right!r}"
            yield Remark(text, is_fault=key != "tests")  # the report names tests that came later


def _late(lock: Lock) -> Iterator[Remark]:
    """What was planned after results could be seen; no fault, but a reader should know."""
    if lock.results:
        text = f"{FILE}: written on {lock.date[:10]}, when {lock.results} runs had results"
        yield Remark(text, is_fault=False)
    for amendment in lock.amendments:
        for method, words in amendment.marks.items():
            yield Remark(f"{FILE}: {method}: {words}", is_fault=False)


def _complete(evidence: Evidence, current: Plan) -> Iterator[Remark]:
    """Runs that only the plan has, or only suite.yaml."""
    planned = {
        (method, seed): entry["role"]
        for method, entry in current["methods"].items()
        for seed in entry["seeds"]
    }
    found = {(run.method, run.seed): run.role for run in evidence.suite.runs}
    for method, seed in sorted(planned.keys() - found.keys()):
        yield Remark(f"suite.yaml: {method}, seed {seed} is dropped: {FILE} plans it")
    for method, seed in sorted(found.keys() - planned.keys()):
        yield Remark(f"suite.yaml: {method}, seed {seed} is not in {FILE} or its amendments")
    for key in sorted(planned.keys() & found.keys()):
        if planned[key] != found[key]:
            yield Remark(f"suite.yaml: {key[0]} is a {found[key]}, {FILE} says {planned[key]}")


def _left_out(evidence: Evidence, lock: Lock) -> Iterator[Remark]:
    """Results of this version of the suite that neither the plan nor an amendment ever named."""
    for run_id in evidence.suite.unplanned:
        run = load_run(evidence.folder, run_id)
        is_ours = str(run.events[0]["suite_version"]) == evidence.suite.version
        if is_ours and (run.method, run.seed) not in lock.named():
            yield Remark(f"{log_of(run)}: has results, and {FILE} never planned it")


def _kept(run: RunRecord, current: Plan) -> Iterator[Remark]:
    """What the configuration of a run has else than the plan."""
    where = log_of(run)
    protocol = dict(run.config["protocol"])
    protocol.pop("seeds", None)
    first = run.events[0]
    has: dict[str, Any] = {
        "suite": run.config["suite"],
        "version": str(run.config["suite_version"]),
        "workload": run.config["workload"],
        "budget_flops": protocol.pop("budget_flops"),
        "protocol": protocol,
        "corpus": {"corpus": first["corpus"], "train": first["train_bytes"]},
    }
    promised = {part: current[part] for part in (*FIXED, "budget_flops")}
    promised["corpus"] = {key: promised["corpus"][key] for key in has["corpus"]}
    found, right = flatten(has), flatten(promised)
    for key in sorted(found.keys() | right.keys()):
        if found.get(key) != right.get(key):
            yield Remark(f"{where}: {key} is {found.get(key)}, {FILE} says {right.get(key)}")
    entry = current["methods"].get(run.method)
    if entry is not None and entry["settings"] != settings(run.config["method"]):
        yield Remark(f"{where}: its settings are not those that {FILE} holds")
    if entry is not None and entry["budget"] != (share := run.config["method"]["budget"]):
        yield Remark(f"{where}: budget {share:g} C*, {FILE} says {entry['budget']:g}")
