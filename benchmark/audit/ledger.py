"""Parameters and compute of every run again, from what its stages say of their tensors and steps.

That a step costs what the formula of the protocol says is for the contract and for tests, which
compare it with torch's counter; here it is multiplied and added up.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, log_of, numbered
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

SAME = 1e-9
"""Relative difference below which two amounts are equal."""

TOTALS = ("flops", "tokens", "steps")


def parameters(evidence: Evidence) -> Iterator[Remark]:
    """Every stage has as many parameters as its tensors have together."""
    for run in evidence.ran:
        for place, stage in numbered(run, "stage"):
            tensors = stage["n_params_by_group"]
            whole = sum(tensors.values())
            right = {"n_params": whole, "n_params_nonembedding": whole - tensors["embed.weight"]}
            for name, value in right.items():
                if stage[name] != value:
                    yield Remark(f"{place}: {name} {stage[name]}, its tensors have {value}")


def step_flops(config: Mapping[str, Any], stage: Event, per_token: str) -> float:
    """Charge of one optimizer step of a stage: of its tokens, and of the optimizer's products."""
    tokens = config["workload"]["batch_size"] * stage["sizes"]["seq_len"]
    return float(tokens * stage[per_token] + stage.get("optimizer_flops", 0.0))


def charges(evidence: Evidence) -> Iterator[Remark]:
    """Every stage is charged its steps at the cost of its model; growth what it declared."""
    for run in evidence.ran:
        for place, event in numbered(run, "charge"):
            for name, value in _right(run, event).items():
                if not _same(event[name], value):
                    yield Remark(f"{place}: {name} {event[name]:.6g}, its steps cost {value:.6g}")


def _right(run: RunRecord, event: Event) -> dict[str, float]:
    """What a charge should be."""
    kind = "growth" if event["what"] == "growth" else "stage"
    (whose,) = (other for other in run.of(kind) if other["stage_id"] == event["stage_id"])
    if kind == "growth":
        return {"flops": whose["growth_flops"], "tokens": whose["growth_tokens"], "steps": 0}
    n = event["steps"]
    return {
        "flops": n * step_flops(run.config, whose, "flops_per_token"),
        "flops_unmasked": n * step_flops(run.config, whose, "flops_per_token_unmasked"),
        "tokens": n * run.config["workload"]["batch_size"] * whose["sizes"]["seq_len"],
    }


def totals(evidence: Evidence) -> Iterator[Remark]:
    """Charges add up to where the run says it ended, and to where each stage started."""
    for run in evidence.ran:
        sums = dict.fromkeys(TOTALS, 0.0)
        for place, event in numbered(run, "stage", "charge", "end"):
            if event["kind"] == "charge":
                sums = {name: sums[name] + event[name] for name in TOTALS}
            elif run.status != "failed":
                found = {**event, "steps": event["step"]}
                for name in TOTALS:
                    if not _same(found[name], sums[name]):
                        yield Remark(
                            f"{place}: {name} {found[name]:.6g}, charges so far add up to "
                            f"{sums[name]:.6g}"
                        )


def budget(evidence: Evidence) -> Iterator[Remark]:
    """Every finished run ends within one step below its budget, which is C* unless it is a rung."""
    shared = evidence.shared["protocol"]["budget_flops"]
    for run in evidence.ran:
        share = run.config["method"]["budget"]
        if not _same(run.events[0]["budget_flops"], share * shared):
            said = run.events[0]["budget_flops"]
            yield Remark(f"{log_of(run)}: budget {said:.6g}, the plan says {share * shared:.6g}")
        if run.status != "done":
            continue
        left = share * shared - run.events[-1]["flops"]
        step = step_flops(run.config, run.of("stage")[-1], "flops_per_token")
        if not -SAME * shared <= left < step * (1 + SAME):
            yield Remark(
                f"{log_of(run)}: ends {left / step:.1f} steps before its budget of "
                f"{share * shared:.6g} FLOPs"
            )


def epochs(evidence: Evidence) -> Iterator[Remark]:
    """No run read more than one epoch, unless the protocol allows it."""
    if evidence.shared["protocol"]["allow_repeats"]:
        yield Remark("suite.yaml: protocol.allow_repeats is true", is_fault=False)
        return
    for run in evidence.ran:
        read, has = run.events[-1].get("tokens", 0), run.train_tokens
        if read > has:
            yield Remark(f"{log_of(run)}: read {read:,} tokens of a text of {has:,}: repeats data")


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=SAME, abs_tol=0.5)  # flops, tokens and steps are whole
