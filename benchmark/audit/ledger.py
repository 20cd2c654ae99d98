"""The compute of every run again, from its sizes and steps.

The formula (d2 of the protocol) is written down here a second time on purpose: nothing in this file
calls the code that charged the runs.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from benchmark.audit.evidence import PARTIAL, Evidence, Remark, log_of, numbered
from benchmark.audit.parameters import is_known
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord

SAME = 1e-9
"""Relative difference below which two amounts are equal."""

TOTALS = ("flops", "tokens", "steps")

Config = Mapping[str, Any]
Pairs = Sequence[tuple[int, int]]


def training_flops_per_token(
    sizes: Mapping[str, int], activation: str, keys: float, frozen: Collection[str] = ()
) -> float:
    """Two FLOPs per multiply-accumulate, of the forward pass and of each gradient that is needed.

    A product has a gradient for its weight, unless that is frozen, and one for its input, unless
    nothing below it learns; attention has two such products. Attention to tokens and factors of low
    rank never rest here: of them the three passes are charged.

    Args:
        sizes: of the model; `n_token`, `rank` or `n_path`, the blocks that a step runs, only if the
            architecture has them.
        activation: "gelu" (two matrices) or "swiglu" (three).
        keys: mean keys that a position attends to.
        frozen: names of the parameters that rest.
    """
    d, inner, d_ff = sizes["d_model"], sizes["n_head"] * sizes["d_head"], sizes["d_ff"]
    queries = sizes.get("n_query", 1)
    up = [(d_ff, d)] * (2 if activation == "swiglu" else 1)
    maps = {"qkv": [(inner, d)] * (queries + 2), "o": [(d, queries * inner)],
            "up": up, "down": [(d, d_ff)]}  # fmt: skip
    attention = 2 * queries * inner * keys
    if tokens := sizes.get("n_token"):
        block = tokens * ((queries + 3) * d + (2 * queries + 2) * inner) + 4 * tokens * (d + d)
    elif rank := sizes.get("rank"):
        block = sum(min(m * n, rank * (m + n)) for pairs in maps.values() for m, n in pairs)
    else:
        block = sum(m * n for pairs in maps.values() for m, n in pairs)
    n_run = sizes.get("n_path", sizes["n_layer"])
    whole = 3 * (n_run * (block + attention) + d * sizes["vocab_size"])
    return 2 * (whole - (_spared(sizes, maps, attention, frozen) if frozen else 0))


def _spared(
    sizes: Mapping[str, int], maps: Mapping[str, Pairs], attention: float, frozen: Collection[str]
) -> float:
    """Multiply-accumulates of the gradients that nobody needs, from the first layer to the head."""
    spared, learns = 0.0, "embed.weight" not in frozen
    for layer in range(sizes["n_layer"]):
        for name in ("norm_attn", "qkv", "o", "norm_mlp", "up", "down"):
            weight = f"blocks.{layer}.{name}.weight"
            spared += sum(m * n for m, n in maps.get(name, ())) * (
                (weight in frozen) + (not learns)
            )
            learns |= weight not in frozen
            spared += 2 * attention * (name == "qkv" and not learns)
    learns |= "norm_head.weight" not in frozen
    head = "head.weight" in frozen  # a tied head has no weight of its own, and its table learns
    return spared + sizes["d_model"] * sizes["vocab_size"] * (head + (not learns))


def step_flops(config: Config, stage: Event, *, causal: bool = True) -> float:
    """Charge of one optimizer step of a stage; products within an optimizer count as it says."""
    tokens = config["workload"]["batch_size"] * stage["sizes"]["seq_len"]
    per_token = _token_flops(config, stage, causal=causal)
    return float(tokens * per_token + stage.get("optimizer_flops", 0.0))


def _token_flops(config: Config, stage: Event, *, causal: bool) -> float:
    """What a token costs in the model; what the stage says itself if its architecture is unknown.

    Known are the shared architecture, attention to tokens, and factors of low rank.
    """
    sizes = stage["sizes"]
    if not is_covered(config, stage):
        return float(stage[f"flops_per_token{'' if causal else '_unmasked'}"])
    keys = (sizes["seq_len"] + 1) / 2 if causal else sizes["seq_len"]
    activation, frozen = config["workload"]["target"]["activation"], stage.get("frozen", ())
    return training_flops_per_token(sizes, activation, keys, frozen)


def is_covered(config: Config, stage: Event) -> bool:
    """Whether the formula holds for a stage."""
    is_other = "n_token" in stage["sizes"] or "rank" in stage["sizes"]
    return is_known(config, stage) and not (is_other and stage.get("frozen"))


def charges(evidence: Evidence) -> Iterator[Remark]:
    """Every stage is charged its steps at its size, by formula; growth what it declared."""
    as_stated: dict[str, str] = {}
    for run in evidence.ran:
        for place, event in numbered(run, "stage", "charge"):
            for name, value in _right(run, event).items():
                if not _same(event[name], value):
                    yield Remark(f"{place}: {name} {event[name]:.6g}, by formula {value:.6g}")
            if event["kind"] == "stage" and not is_covered(run.config, event):
                as_stated[run.method] = place
    for method, place in as_stated.items():
        text = f"{place}: cost of a step as stated: the formula does not cover {method}'s model"
        yield Remark(text, is_fault=False)
    optimizer = evidence.shared["protocol"]["optimizer"].get("target")
    stages = [found for run in evidence.ran for found in numbered(run, "stage")]
    if stated := [place for place, stage in stages if stage.get("optimizer_flops")]:
        text = f"{stated[0]}: FLOPs of {optimizer or 'AdamW'} itself as stated"
        yield Remark(text, is_fault=not optimizer)


def _right(run: RunRecord, event: Event) -> dict[str, float]:
    """What a stage costs per token, or what a charge should be."""
    if event["kind"] == "stage":
        return {
            "flops_per_token": _token_flops(run.config, event, causal=True),
            "flops_per_token_unmasked": _token_flops(run.config, event, causal=False),
        }
    kind = "growth" if event["what"] == "growth" else "stage"
    (whose,) = (other for other in run.of(kind) if other["stage_id"] == event["stage_id"])
    if kind == "growth":
        return {"flops": whose["growth_flops"], "tokens": whose["growth_tokens"], "steps": 0}
    n = event["steps"]
    return {
        "flops": n * step_flops(run.config, whose),
        "flops_unmasked": n * step_flops(run.config, whose, causal=False),
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
        if share != 1 and run.role not in PARTIAL:
            yield Remark(f"{log_of(run)}: a {run.role} with {share:g} C*: stops before the others")
        if not _same(run.events[0]["budget_flops"], share * shared):
            said = run.events[0]["budget_flops"]
            yield Remark(f"{log_of(run)}: budget {said:.6g}, the plan says {share * shared:.6g}")
        if run.status != "done":
            continue
        left = share * shared - run.events[-1]["flops"]
        step = step_flops(run.config, run.of("stage")[-1])
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
