"""Every record of a run lies where the steps before it lead, and its end is what it says.

A run is a row of stages, each opened by a growth or not. Its position (step, tokens, FLOPs and
seconds) moves by the steps of a stage and by growth, and by nothing else; what is told on the way
is told at fixed marks. So no record can be added, moved or left out without a trace.
"""

import math
import re
from collections.abc import Generator, Iterator, Sequence

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.audit.ledger import step_flops
from benchmark.records.events import STOPPED, Event
from benchmark.records.folder import RunRecord

LETTERS = {"run": "R", "growth": "G", "charge": "C", "stage": "S", "train": "T",
           "evaluation": "V", "final": "F", "end": "E"}  # fmt: skip
ASIDE = ("micro_batch", "compilation")
"""Records of how a machine got there, wherever they stand: nothing is computed from them."""

STAGE = re.compile("(?:GC)?S[TV]*C")
RUN = re.compile(f"R(?:{STAGE.pattern})*F*E")

AXES = ("step", "tokens", "flops", "seconds")
N_TRAIN_RECORDS, N_FORMERLY = 50, 100
"""Marks of the budget at which training losses are recorded, now and in older suites."""

SAME = 1e-9
"""Relative difference below which two positions are equal."""

CLOCK = 1e-6
"""The same in seconds: differences of times are rounded."""

Position = dict[str, float]
Numbered = Sequence[tuple[str, Event]]


def course(evidence: Evidence) -> Iterator[Remark]:
    """Every record lies where the steps and growths before it lead, and none is left out."""
    n_marks = _marks_of(evidence.ran)
    for run in evidence.ran:
        lines = [(f"{log_of(run)}, line {n}", event) for n, event in enumerate(run.events, start=1)
                 if event["kind"] not in ASIDE]  # fmt: skip
        letters = "".join(LETTERS.get(event["kind"], "?") for _, event in lines)
        if run.status != "unfinished" and not RUN.fullmatch(letters):
            yield Remark(f"{log_of(run)}: its records come in an order that no run has")
            continue
        yield from _walk(run, letters, lines, n_marks)


def _marks_of(runs: Sequence[RunRecord]) -> int:
    """Marks of the training loss, as many in all runs; each stage tells its end as well."""
    most = max((len(run.of("train")) - len(run.of("stage")) for run in runs), default=0)
    return N_FORMERLY if most > N_TRAIN_RECORDS else N_TRAIN_RECORDS


def ends(evidence: Evidence) -> Iterator[Remark]:
    """A run that is done has no error and finite losses; one that is not has no final score."""
    for run in evidence.ran:
        end, losses = run.events[-1], [event["loss"] for event in run.of("train")]
        is_finite = all(map(math.isfinite, losses))
        place = f"{log_of(run)}, line {len(run.events)}"
        if run.status == "done" and (end["error"] or not is_finite):
            yield Remark(f"{place}: done, though it met {end['error'] or 'a loss without a value'}")
        elif run.status in STOPPED and (run.of("final") or not end["error"]):
            yield Remark(f"{place}: {run.status}, though its records go on to the end")
        elif run.status == "diverged" and is_finite:
            yield Remark(f"{place}: diverged, though every training loss is finite")


def _walk(run: RunRecord, letters: str, lines: Numbered, n_marks: int) -> Iterator[Remark]:
    """Stage by stage to the final scores."""
    at: Position = dict.fromkeys(AXES, 0)
    for number, found in enumerate(STAGE.finditer(letters)):
        block = lines[found.start() : found.end()]
        yield from (Remark(f"{place}: of stage {event['stage']}, in the midst of {number}")
                    for place, event in block if event["stage"] != number)  # fmt: skip
        at = yield from _stage(run, block, at, n_marks)
    last_stage = len(run.of("stage")) - 1
    for place, event in lines[len(letters.rstrip("FE")) :]:
        if event.get("stage", last_stage) != last_stage:
            yield Remark(f"{place}: a final score of stage {event['stage']}, not {last_stage}")
        if event["kind"] == "final" or run.status in ("done", "diverged"):
            yield from _off(place, event, at)


def _stage(
    run: RunRecord, block: Numbered, at: Position, n_marks: int
) -> Generator[Remark, None, Position]:
    """What is elsewhere than it should be; returns where the stage ends."""
    if block[0][1]["kind"] == "growth":
        place, growth = block[0]
        at = {axis: at[axis] + growth.get(f"growth_{axis}", 0) for axis in AXES}
        yield from _off(place, growth, at)
        yield from _off(*block[1], {"steps": 0, "seconds": growth["growth_seconds"]})
        yield from _charges(block[1], growth, "growth")
        block = block[2:]
    (place, stage), *told, (last_place, charge) = block
    yield from _off(place, stage, at)
    start, at = at, dict(at)
    for place, event in told:
        at = _within(run, stage, event, at["seconds"])
        yield from _off(place, event, at)
        if event["kind"] == "evaluation" and event["split"] != "curve":
            yield Remark(f"{place}: evaluated on {event['split']}, not on the slice of curves")
    done = at["step"] - start["step"]
    if run.status == "done" and stage["n_steps"] != done:
        yield Remark(f"{last_place}: {done:.0f} steps, the stage has {stage['n_steps']}")
    yield from _off(
        last_place, charge, {"steps": done, "seconds": at["seconds"] - start["seconds"]}
    )
    yield from _charges((last_place, charge), stage, "train")
    if run.status == "done":
        yield from _marks(run, stage, last_place, [event for _, event in told], n_marks)
    return at


def _charges(line: tuple[str, Event], whose: Event, what: str) -> Iterator[Remark]:
    place, charge = line
    if (charge["what"], charge["stage_id"]) != (what, whose["stage_id"]):
        yield Remark(f"{place}: a charge of {charge['what']} where {what} should be paid for")


def _marks(
    run: RunRecord, stage: Event, place: str, told: Sequence[Event], n_marks: int
) -> Iterator[Remark]:
    """Losses and evaluations that are missing, or told where nothing is told."""
    protocol, step = run.config["protocol"], step_flops(run.config, stage)
    for kind, n in (("train", n_marks), ("evaluation", protocol["n_evaluations"])):
        marks = (i * protocol["budget_flops"] / n for i in range(1, n + 1))
        steps = {int((mark - stage["flops"]) // step) for mark in marks if mark > stage["flops"]}
        right = {done for done in steps if 0 < done <= stage["n_steps"]} | {stage["n_steps"]}
        found = [event["step"] - stage["step"] for event in told if event["kind"] == kind]
        if found != sorted(right):
            wrong = sorted(right.symmetric_difference(found)) or found
            text = f"{kind} records of step {stage['step'] + wrong[0]} are missing, or too many"
            yield Remark(f"{place}: before it, {text}")


def _within(run: RunRecord, stage: Event, event: Event, seconds: float) -> Position:
    """Where the steps of a stage lead; the clock alone is its own."""
    done, sizes = event["step"] - stage["step"], stage["sizes"]
    return {
        "step": event["step"],
        "tokens": stage["tokens"] + done * run.config["workload"]["batch_size"] * sizes["seq_len"],
        "flops": stage["flops"] + done * step_flops(run.config, stage),
        "seconds": max(seconds, event["seconds"]),
    }


def _off(place: str, event: Event, right: Position) -> Iterator[Remark]:
    for name, value in right.items():
        if not math.isclose(event[name], value, rel_tol=SAME, abs_tol=CLOCK):
            found = event[name]
            yield Remark(f"{place}: {name} {found:.9g}, what came before leads to {value:.9g}")
