"""The reporting card of a run: everything that a reader needs to judge it, with no field left out.

A pure function of the run's records. What does not apply says "none", what a run did not reach
says "not reached"; a field that is empty all the same is an error, so that nothing goes missing
without a word.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.base.errors import RecordError
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

Card = dict[str, dict[str, Any]]

NONE = "none"
NOT_REACHED = "not reached"
_ARITHMETIC = ("torch", "pytorch-lightning", "numpy")
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
        "learning rate": _learning_rate(record),
        "optimizer": _optimizer(record),
        "growth": _growth(record),
        "compute": _compute(record),
        "time and memory": _time_and_memory(record),
        "result": _result(record),
        "machine": _machine(record),
        "code": _code(record),
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
    return {
        "id": record.run_id,
        "suite": record.config.get("suite"),
        "version": record.config.get("suite_version"),
        "method": record.method,
        "role": record.role,
        "seed": record.seed,
        "class": _setting(record, "method", "target"),
        "arguments": _filled(_setting(record, "method", "args")),
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
        "batch_size": _setting(record, "workload", "batch_size"),
        "seq_len": _setting(record, "workload", "target", "seq_len"),
        "repeats_allowed": _setting(record, "protocol", "allow_repeats"),
    }


def _model(record: RunRecord) -> dict[str, Any]:
    stages = record.of("stage")
    first, last = (stages[0], stages[-1]) if stages else ({}, {})
    return {
        "sizes_at_start": first.get("sizes"),
        "sizes_at_end": last.get("sizes"),
        **{name: _setting(record, "workload", "target", name)
           for name in ("norm", "positions", "activation", "tied")},
        "parameters": last.get("n_params"),
        "parameters_without_embedding": last.get("n_params_nonembedding"),
        "parameters_by_tensor": last.get("n_params_by_group"),
        "frozen": _filled(last["frozen"]) if "frozen" in last else None,
    }  # fmt: skip


def _learning_rate(record: RunRecord) -> dict[str, Any]:
    rewarm = _setting(record, "method", "rewarm", default={})
    is_used = _grows(record) and rewarm.get("which") != "none"
    return {
        **_constants(record, "protocol", "learning_rate"),
        "after_growth": _filled(rewarm) if is_used else NONE,
        "own_schedule": own_schedule(_setting(record, "method", default={})) or NONE,
        "tuned": _filled(_setting(record, "method", "tuned")),
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


def _optimizer(record: RunRecord) -> dict[str, Any]:
    policy = _setting(record, "method", "state_policy")
    constants = _constants(record, "protocol", "optimizer")
    target = _setting(record, "protocol", "optimizer", "target", default="")
    foreign = ("target", "beta1", "beta2", "eps") if target else ("target", "args")
    constants = {name: value for name, value in constants.items() if name not in foreign}
    return {
        "name": target or "AdamW",
        **constants,
        "state_policy": policy if _grows(record) else NONE,
    }


def _growth(record: RunRecord) -> dict[str, Any]:
    if not _grows(record):
        return dict.fromkeys(("planned", "ladder", "schedule", "events"), NONE)
    return {
        "planned": _setting(record, "method", "ladder", "n_growths"),
        "ladder": _constants(record, "method", "ladder"),
        "schedule": _constants(record, "method", "schedule"),
        "events": _some_fields(record.of("growth"), _OF_A_GROWTH),
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
    is_trial = _setting(record, "method", "trial") is not None
    return {
        "curve_bpb": evaluations[-1]["bpb"] if evaluations else None,
        "val_bpb": finals.get("val"),
        "test_bpb": finals.get("test", NONE if is_trial else None),  # no trial looks at the test
    }


def _machine(record: RunRecord) -> dict[str, Any]:
    return {
        "device": _made_with(record, "device"),
        "gpu": _made_with(record, "gpu", optional=True),
        **{name: _made_with(record, name)
           for name in ("cpu", "precision", "threads", "kernels", "deterministic", "platform")},
    }  # fmt: skip


def _code(record: RunRecord) -> dict[str, Any]:
    """Without a commit if the harness was installed rather than checked out."""
    releases = [environment.get("packages", {}) for environment in record.environments]
    return {
        **{name: _made_with(record, name, optional=True)
           for name in ("commit", "dirty", "diff_sha256")},
        "python": _made_with(record, "python"),
        **{name: sorted({found[name] for found in releases if name in found})
           for name in _ARITHMETIC},
    }  # fmt: skip


def _setting(record: RunRecord, *path: str, default: object = None) -> Any:  # noqa: ANN401 - YAML
    """A value of the configuration; `default` if there is none."""
    value: Any = record.config
    for name in path:
        value = value.get(name, default) if isinstance(value, Mapping) else default
    return value


def _grows(record: RunRecord) -> bool:
    return bool(_setting(record, "method", "ladder", "n_growths"))


def _filled(settings: Any) -> Any:  # noqa: ANN401 - YAML
    """Settings as they are; those that are not used say so."""
    if isinstance(settings, Mapping) and settings:
        return {name: _filled(value) for name, value in settings.items()}
    return NONE if _is_empty(settings) else settings


def _constants(record: RunRecord, *path: str) -> dict[str, Any]:
    """Every setting of a group that all runs have."""
    settings = _setting(record, *path)
    return _filled(settings) if settings else {"constants": None}


def _made_with(record: RunRecord, name: str, *, optional: bool = False) -> Any:  # noqa: ANN401 - JSON
    """What all stages have in common, else the different values in order."""
    values: list[Any] = []
    for environment in record.environments:
        value = environment.get(name)
        value = NONE if optional and value is None else value
        if value not in values:
            values.append(value)
    return values[0] if len(values) == 1 else values


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
