"""What runs share is the same in each of them, and every stage says what it was made with."""

from collections.abc import Iterator, Mapping

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

Place = tuple[RunRecord, list[tuple[int, Event]]]


def shared_stages(evidence: Evidence) -> Iterator[Remark]:
    """A stage of several runs was trained once: all of them tell the same of it."""
    told: dict[str, Place] = {}
    for run in evidence.ran:
        for stage_id, events in _by_stage(run).items():
            other, theirs = told.setdefault(stage_id, (run, events))
            for (line, event), (_, right) in zip(events, theirs, strict=False):
                if {**event, "stage": 0} != {**right, "stage": 0}:
                    yield Remark(f"{log_of(run)}, line {line}: not what {_name(other)} tells of it")
            if len(events) != len(theirs):
                text = (
                    f"has {len(events)} records of stage {stage_id}, {_name(other)} {len(theirs)}"
                )
                yield Remark(f"{log_of(run)}: {text}")


def provenance(evidence: Evidence) -> Iterator[Remark]:
    """Every stage, and no other, says what it was made with, and the same in every run."""
    told: dict[str, tuple[RunRecord, list[Event]]] = {}
    for run in evidence.ran:
        where = f"runs/{run.run_id}.jsonl.gz ({run.method}, seed {run.seed})"
        said = [(entry["stage"], entry["stage_id"]) for entry in run.provenance]
        trained = list(enumerate(event["stage_id"] for event in run.of("stage")))
        wrong = sorted(set(trained) ^ set(said))
        if wrong and (run.status == "done" or set(trained) - set(said)):
            yield Remark(f"{where}: stage {wrong[0][0]} is {wrong[0][1]} in one of both only")
        for entry in run.provenance:
            if entry["precision"] != run.config["protocol"]["precision"]:
                yield Remark(f"{where}: precision {entry['precision']} in stage {entry['stage']}")
        for _, stage_id in trained:
            here = [{**e, "stage": 0} for e in run.provenance if e["stage_id"] == stage_id]
            other, theirs = told.setdefault(stage_id, (run, here))
            if here != theirs:
                yield Remark(f"{where}: stage {stage_id} was made with else in {_name(other)[:-1]}")


def _by_stage(run: RunRecord) -> dict[str, list[tuple[int, Event]]]:
    """Line and record of everything that a stage left, by its id."""
    ids: Mapping[int, str] = dict(enumerate(event["stage_id"] for event in run.of("stage")))
    found: dict[str, list[tuple[int, Event]]] = {}
    for line, event in enumerate(run.events, start=1):
        if "stage" in event and event["stage"] in ids:
            found.setdefault(ids[event["stage"]], []).append((line, event))
    return found


def _name(run: RunRecord) -> str:
    return f"{run.method}, seed {run.seed},"
