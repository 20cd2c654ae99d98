"""The reporting card of a run: what its records say that a reader needs to judge it, without a gap.

A pure function of the run's events. The configuration, and what each stage was made with, stand
beside it whole. What does not apply says "none", what a run did not reach says "not reached"; a
field that is empty all the same is an error, so that nothing goes missing without a word.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.base.errors import RecordError
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

Card = dict[str, dict[str, Any]]

NONE = "none"
NOT_REACHED = "not reached"
_OF_A_CHARGE = ("stage", "stage_id", "what", "flops", "flops_unmasked", "tokens", "steps",
                     "seconds")  # fmt: skip
_OF_A_GROWTH = ("stage", "operator", "from", "to", "n_params_from", "n_params_to", "bpb_before",
                "bpb_after", "flops", "growth_flops", "growth_tokens", "growth_seconds",
                "state_policy")  # fmt: skip
_OF_A_SHORTAGE = ("stage", "what", "n_windows", "step")


def card(record: RunRecord) -> Card:
    """Fields by section.

    Raises:
        RecordError: a field is empty.
    """
    filled = {
        "run": _run(record),
        "data": _data(record),
        "model": _model(record),
        "growth": _growth(record),
        "compute": _compute(record),
        "time and memory": _time_and_memory(record),
        "result": _result(record),
    }
    absent = NOT_REACHED if record.status != "done" else None
    found = {
        section: {name: absent if _is_empty(value) else value for name, value in fields.items()}
        for section, fields in filled.items()
    }
    for section, fields in found.items():
        for name, value in fields.items():
            if value is None:
                raise RecordError(f"run {record.run_id}: reporting card: {section}.{name} is empty")
    return found


def _run(record: RunRecord) -> dict[str, Any]:
    first = _last(record, "run")
    return {
        "id": record.run_id,
        "suite": first.get("suite"),
        "version": first.get("suite_version"),
        "method": record.method,
        "role": record.role,
        "seed": record.seed,
        "own_schedule": own_schedule(_method(record)) or NONE,
        "status": record.status,
        "error": _last(record, "end").get("error") or NONE,
    }


def _data(record: RunRecord) -> dict[str, Any]:
    first, tokens = _last(record, "run"), _last(record, "end").get("tokens")
    train = record.train_tokens
    epochs = tokens / train if tokens is not None and train else None
    return {
        "corpus": first.get("corpus"),
        "sha256": first.get("corpus_sha256"),
        **{name: first.get(name) for name in ("train_bytes", "val_bytes", "test_bytes")},
        "tokens": tokens,
        "bytes": None if epochs is None else round(epochs * record.train_bytes),
        "epochs": epochs,
    }


def _model(record: RunRecord) -> dict[str, Any]:
    stages = record.of("stage") or [{}]
    first, last = stages[0], stages[-1]
    return {
        "sizes_at_start": first.get("sizes"),
        "sizes_at_end": last.get("sizes"),
        "parameters": last.get("n_params"),
        "parameters_without_embedding": last.get("n_params_nonembedding"),
        "parameters_by_tensor": last.get("n_params_by_group"),
        "frozen": NONE if last.get("frozen") == [] else last.get("frozen"),
    }


def own_schedule(method: Mapping[str, Any]) -> str:
    """How a method trains in its own way, size after size; empty if it does as all do."""
    stages = method.get("stages") or []
    return "; then ".join(map(_own_stage, stages))


def _own_stage(stage: Mapping[str, Any]) -> str:
    rate, corpus = stage["rate"], stage["corpus"]
    words = ["the suite's rate"]
    if rate is not None:
        warmup = rate["warmup"]
        words = [
            f"{rate['peak']:g} x the peak rate",
            "the suite's warm-up"
            if warmup is None
            else f"warm-up over {100 * warmup:g} % of the size",
            f"{rate['shape']} decay to {rate['floor']:g} over {100 * rate['decay']:g} % of it"
            if rate["decay"]
            else "no decay",
        ]
    return ", ".join([*words, *([f"text of {corpus['name']}"] if corpus else [])])


def _growth(record: RunRecord) -> dict[str, Any]:
    planned = _method(record).get("ladder", {}).get("n_growths")
    return {
        "planned": planned or NONE,
        "events": _some_fields(record.of("growth"), _OF_A_GROWTH) if planned else NONE,
    }


def _compute(record: RunRecord) -> dict[str, Any]:
    charges = record.of("charge")
    return {
        "budget_flops": _last(record, "run").get("budget_flops"),
        "flops": sum(charge["flops"] for charge in charges) if charges else None,
        "flops_unmasked": sum(charge["flops_unmasked"] for charge in charges) if charges else None,
        "steps": _last(record, "end").get("step"),
        "stages": _some_fields(charges, _OF_A_CHARGE),
    }


def _time_and_memory(record: RunRecord) -> dict[str, Any]:
    end, evaluated = _last(record, "end"), [*record.of("evaluation"), *record.of("final")]
    times = [event["eval_seconds"] for event in evaluated]
    return {
        "seconds": end.get("seconds"),
        "seconds_of_evaluation": sum(times) if times else None,
        "peak_memory_bytes": end.get("peak_memory_bytes") or None,
        "peak_memory_of": end.get("peak_memory_scope"),
        "micro_batches": _some_fields(record.of("micro_batch"), _OF_A_SHORTAGE) or NONE,
    }


def _result(record: RunRecord) -> dict[str, Any]:
    finals = {event["split"]: event["bpb"] for event in record.of("final")}
    evaluations = record.of("evaluation")
    is_trial = _method(record).get("trial") is not None
    return {
        "curve_bpb": evaluations[-1]["bpb"] if evaluations else None,
        "val_bpb": finals.get("val"),
        "test_bpb": finals.get("test", NONE if is_trial else None),  # no trial looks at the test
    }


def _method(record: RunRecord) -> Mapping[str, Any]:
    """The method's configuration; empty if the run has no records."""
    return dict(record.config.get("method", {}))


def _last(record: RunRecord, kind: str) -> Event:
    return (record.of(kind) or [{}])[-1]


def _some_fields(events: Iterable[Event], names: Sequence[str]) -> list[Event]:
    return [{name: event.get(name) for name in names} for event in events]


def _is_empty(value: object) -> bool:
    """Whether a field says nothing, or a part of it does."""
    if isinstance(value, dict):
        return not value or any(map(_is_empty, value.values()))
    if isinstance(value, list):
        return not value or any(map(_is_empty, value))
    return value is None or value == ""
