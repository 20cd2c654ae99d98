"""The comparison is the one that was planned: `plan.lock` with its amendments against records."""

from collections.abc import Iterator

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.records.events import ABSENT
from benchmark.records.folder import RunRecord
from benchmark.records.lock import FILE, Plan, plan_of, unlike


def plan(evidence: Evidence) -> Iterator[Remark]:
    """The runs are those of plan.lock and its amendments, with the settings it holds."""
    lock = evidence.lock
    if lock is None:
        yield Remark(f"{FILE}: there is none; nothing shows that the plan came before the results")
        return
    yield from _complete(evidence, lock.current)
    for run in evidence.ran:
        yield from _kept(run, lock.current)


def seeds(evidence: Evidence) -> Iterator[Remark]:
    """Every planned run has ended, and the protocol's seeds are those of all methods together."""
    runs = evidence.suite.runs
    for run in runs:
        if run.status in ABSENT:
            yield Remark(f"{log_of(run)}: {run.status}")
    found = {run.seed for run in runs if run.role != "tuning"}
    if found != set(planned := evidence.shared["protocol"]["seeds"]):
        yield Remark(f"suite.yaml: seeds {sorted(found)}, configurations say {planned}")


def _complete(evidence: Evidence, current: Plan) -> Iterator[Remark]:
    """Runs that only the plan has, or only suite.yaml."""
    planned = {
        (method, seed): entry["role"]
        for method, entry in current["methods"].items()
        for seed in entry["seeds"]
    }
    found = {(run.method, run.seed): run.role for run in evidence.suite.runs}
    for method, seed in sorted(planned.keys() | found.keys()):
        has, wanted = found.get((method, seed)), planned.get((method, seed))
        if has != wanted:
            said = f"is {has or 'dropped'}, {FILE} says {wanted or 'nothing of it'}"
            yield Remark(f"suite.yaml: {method}, seed {seed} {said}")


def _kept(run: RunRecord, current: Plan) -> Iterator[Remark]:
    """What the configuration of a run has else than the plan."""
    where, first = log_of(run), run.events[0]
    read = {"corpus": first["corpus"], "train": first["train_bytes"]}
    own = plan_of([run.config], current["corpus"] | read, current["science"])
    for words in unlike(current, own):
        yield Remark(f"{where}: {words} in {FILE}")
    if own["budget_flops"] != current["budget_flops"]:
        said = f"{own['budget_flops']:g}, {FILE} says {current['budget_flops']:g}"
        yield Remark(f"{where}: budget_flops is {said}")
    (entry,), planned = own["methods"].values(), current["methods"].get(run.method)
    for key in ("budget", "settings"):
        if planned is not None and planned[key] != entry[key]:
            yield Remark(f"{where}: its {key} is {entry[key]}, {FILE} says {planned[key]}")
