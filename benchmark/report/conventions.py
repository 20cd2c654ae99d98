"""How much faster? Compute to equal loss, and how much of a published speed-up is accounting.

A speed-up is the compute that scratch needs for the loss a method ends with, over what the method
spent. `speed_ups` reads it off curves; all training is charged, the source's included. The rest
compares annealed ends: scratch is annealed at C*/2 and at C*, what it gains between them is what a
doubling of compute is worth, and a method that ends lower by as much is twice as fast. That line is
used beyond C*, too; loss against log compute bends up, so a gain is understated and a loss looks
smaller than it is. `conventions` counts so, and as papers count: what is spent, what is compared,
or both.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.formats import DASH
from benchmark.report.frames import Frames, Row, grouped, rows
from benchmark.report.statistics import cost_to_target, mean_interval, ratio_of_costs

CONVENTIONS = {
    "source_free": "source free",
    "at_target": "tokens at the target's size only",
    "crossing": "scratch read before it is annealed",
    "equal_tokens": "equal tokens, any loss",
    "one_seed": "best seed",
    "no_control": "no never-grown control",
    "ours": "ours",
}
"""Columns of speed-ups, and what they are called."""

READING = {
    "source_free": "what came before the first growth costs nothing",
    "at_target": "only tokens after the last growth count, of scratch all",
    "crossing": "the method annealed, scratch by its one curve, far from its end: all compute "
    "counted, times what annealing alone is worth to scratch at C*/2 (below)",
    "equal_tokens": "compute of as many tokens at the target's size, over what was spent; no loss "
    "is compared",
    "one_seed": "the seed that shows the method best, above what any one seed would say",
    "no_control": "all compute counted, both ends annealed, but held against scratch alone",
    "ours": "the same against the hardest control (scratch, the best size that never grows, the "
    "method's own), so equal to the former where that is scratch",
}

_TOKENFORMER = (
    "above 2x",
    "tokens at the target's size only; one seed",
    "TokenFormer's README: perplexity 10.9 after 60 k steps at 757 M, scratch 11.3 after 120 k",
)
PUBLISHED = {
    "tokenformer": _TOKENFORMER,
    "tokenformer_chain": _TOKENFORMER,
    "stacking": (
        "1.55x", "scratch read before it is annealed; training loss; one seed", "G_stack: +54.6 %"
    ),
    "staged_training": ("1.28x", "up to 22 % saved", "Shen et al. 2022, abstract"),
    "msg": ("1.4x", "wall-clock", "MSG, abstract, GPT-2"),
    "hypercloning": ("2.2x to 4x", "source free", "HyperCloning"),
    "ligo": ("1.81x", "source free", "LiGO: 44.7 % saved, BERT"),
    "flm101b": ("3.56x", "equal tokens, any loss", "FLM-101B: no run from scratch"),
}  # fmt: skip
"""By method: claim, convention, source; only what was read in paper, abstract or code's page."""

_SPEED_UPS = ["method", "role", "reference", "budget", "loss", "n", "n_reached", "cost", "speed_up",
              "low", "high", "saving"]  # fmt: skip
_CONVENTIONS = ["suite", "method", "n", *CONVENTIONS, "ours_low", "ours_high", "ours_control",
                "published", "convention", "source", "run_ids"]  # fmt: skip


def speed_ups(frames: Frames) -> pd.DataFrame:
    """Speed-up of every method over scratch at each loss that an annealed scratch run ended with.

    nan unless all seeds reached the loss. Paired by seed: the loss is the one that scratch of the
    same seed ends with, as a mean over seeds would be out of reach for about half of scratch's own
    runs. The cost is the mean over seeds of the FLOPs to that loss, infinite if one did not get
    there.
    """
    annealed = [m for m in (*frames.methods("rung"), SCRATCH) if m in frames.validation]
    budgets = {m: frames.of(m).budget_flops.max() / frames.budget_flops for m in annealed}
    found = [
        _speed_up(frames, method, reference) | {"budget": budgets[reference]}
        for method in frames.methods("method", "control", "hull")
        for reference in sorted(budgets, key=budgets.__getitem__)
    ]
    return pd.DataFrame(found, columns=_SPEED_UPS)


def _speed_up(frames: Frames, method: str, reference: str) -> Row:
    ours, theirs = frames.by_seed[method], frames.by_seed[reference]
    losses = {s: theirs[s]["curve_bpb"] for s in ours if theirs.get(s, {}).get("status") == "done"}
    control, costs = (
        [_cost(frames, runs[s], losses[s]) for s in losses] for runs in (theirs, ours)
    )
    ratio = ratio_of_costs(control, costs)
    return {
        "method": method,
        "role": frames.of(method).role.iloc[0],
        "reference": reference,
        "loss": mean_interval(list(losses.values())).value,
        "n": ratio.n,
        "n_reached": sum(map(math.isfinite, costs)),
        "cost": mean_interval(costs).value,
        "speed_up": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "saving": 1 - 1 / ratio.value,
    }


def _cost(frames: Frames, run: Row, loss: float) -> float:
    """FLOPs to a loss; infinite for a run that failed, however good it was before."""
    if run["status"] != "done" or run["run_id"] not in frames.curves:
        return math.inf
    curve = frames.curves[run["run_id"]]
    return cost_to_target(curve["flops"], curve["bpb"], loss)


def worth_of_doubling(frames: Frames) -> float:
    """Mean over seeds of the test bpb that scratch gains by a doubling; nan if it shows none.

    Each seed's two largest budgets at which scratch was annealed count.
    """
    of_scratch = (frames.runs.role == "rung") | (frames.runs.method == SCRATCH)
    runs = frames.runs[of_scratch & (frames.runs.status == "done")]
    gains = [
        (own[-2]["test_bpb"] - own[-1]["test_bpb"])
        / math.log2(own[-1]["budget_flops"] / own[-2]["budget_flops"])
        for own in grouped(
            runs.sort_values(["seed", "budget_flops"], kind="stable"), "seed"
        ).values()
        if len(own) > 1
    ]
    mean = math.fsum(gains) / len(gains) if gains else math.nan
    return mean if mean > 0 else math.nan


def speed_up(difference: float, worth: float) -> float:
    """Compute that scratch needs for a loss, over what was spent on it.

    Args:
        difference: bpb minus that of scratch at equal compute.
        worth: bpb that scratch gains by a doubling of compute.
    """
    return 2 ** (-difference / worth)


def conventions(frames: Frames, compared: pd.DataFrame) -> pd.DataFrame:
    """A row for every method: its speed-up over scratch by each convention, and as published.

    `restart_only` is among them: what it gains, a convention gives for nothing. None if the suite
    cannot tell what a doubling of compute is worth.
    """
    worth, annealing = worth_of_doubling(frames), crossing_of_nothing(frames)
    shown = compared[(compared.role == "method") | (compared.method == RESTART_ONLY)]
    found = [
        _row(frames, method, own, worth, annealing)
        for method, own in grouped(shown).items()
        if method in set(frames.growths.method) and any(r["control"] == SCRATCH for r in own)
    ]
    return pd.DataFrame(found if worth > 0 else [], columns=_CONVENTIONS)


def crossing_of_nothing(frames: Frames) -> float:
    """What reading scratch before its end gives to scratch itself, annealed at C*/2.

    The compute at which the curve of the run annealed at C* gets as low, over C*/2; geometric mean
    over seeds, infinite if the curve of one seed never got as low.
    """
    halves = frames.runs[(frames.runs.role == "rung") & (frames.runs.status == "done")]
    halves = halves[np.isclose(halves.budget_flops, frames.budget_flops / 2, rtol=0.01)]
    scratch, ratios = frames.by_seed.get(SCRATCH, {}), []
    for half in rows(halves):
        curve: Any = frames.curves.get(scratch.get(half["seed"], {}).get("run_id", ""))
        if curve is not None:
            at = cost_to_target(curve["flops"], curve["bpb"], half["curve_bpb"])
            ratios.append(at / half["flops"])
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def _row(frames: Frames, method: str, compared: list[Row], worth: float, annealing: float) -> Row:
    own = next(row for row in compared if row["control"] == SCRATCH)
    hardest = max(compared, key=lambda row: row["difference"])
    means = frames.results(method)[["flops", "tokens"]].mean()
    scratch = frames.results(SCRATCH).tokens.mean()
    growths = frames.growths[frames.growths.method == method].groupby("run_id")
    paid = 1 - growths.start_flops.first().mean() / frames.budget_flops
    after = means.tokens - growths.tokens.last().mean()
    alone, said = speed_up(own["difference"], worth), PUBLISHED.get(method, (DASH, "", ""))
    ours = {f"ours{end}": speed_up(hardest[key], worth)
            for end, key in (("", "difference"), ("_low", "high"), ("_high", "low"))}  # fmt: skip
    seeds = frames.results(SCRATCH).test_bpb
    return {
        "suite": frames.suite.name,
        "method": method,
        "n": own["n"],
        "source_free": alone / paid,
        "at_target": math.nan if method == RESTART_ONLY else alone * scratch / after,
        "crossing": alone * annealing,
        "equal_tokens": means.tokens / scratch * frames.budget_flops / means.flops,
        "one_seed": speed_up((frames.results(method).test_bpb - seeds).min(), worth),
        "no_control": alone,
        **ours,
        "ours_control": hardest["control"],
        **dict(zip(("published", "convention", "source"), said, strict=True)),
        "run_ids": frames.run_ids(method),
    }
