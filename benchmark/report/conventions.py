"""How much of a published speed-up is accounting? The same runs, counted as papers count theirs.

A speed-up is the compute that scratch needs for the loss a method ends with, over what the method
spent; `gains` says how it is read. Conventions change what is spent, what is compared, or both.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.formats import DASH
from benchmark.report.frames import Frames, Row, grouped, rows
from benchmark.report.gains import speed_up, worth_of_doubling
from benchmark.report.statistics import cost_to_target


@dataclass(frozen=True)
class Published:
    """What a paper says of its method, as far as it was looked up."""

    claim: str
    convention: str
    source: str


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

_TOKENFORMER = Published(
    "above 2x",
    "tokens at the target's size only; one seed",
    "TokenFormer's README: perplexity 10.9 after 60 k steps at 757 M, scratch 11.3 after 120 k",
)
PUBLISHED = {
    "tokenformer": _TOKENFORMER,
    "tokenformer_chain": _TOKENFORMER,
    "stacking": Published(
        "1.55x", "scratch read before it is annealed; training loss; one seed", "G_stack: +54.6 %"
    ),
    "staged_training": Published("1.28x", "up to 22 % saved", "Shen et al. 2022, abstract"),
    "msg": Published("1.4x", "wall-clock", "MSG, abstract, GPT-2"),
    "hypercloning": Published("2.2x to 4x", "source free", "HyperCloning"),
    "ligo": Published("1.81x", "source free", "LiGO: 44.7 % saved, BERT"),
    "flm101b": Published("3.56x", "equal tokens, any loss", "FLM-101B: no run from scratch"),
}
"""By method. Only numbers that were read in the paper, its abstract or its code's page."""

_COLUMNS = ["suite", "method", "n", *CONVENTIONS, "ours_low", "ours_high", "ours_control",
            "published", "convention", "source", "run_ids"]  # fmt: skip


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
    return pd.DataFrame(found if worth > 0 else [], columns=_COLUMNS)


def crossing_of_nothing(frames: Frames) -> float:
    """What reading scratch before its end gives to scratch itself, annealed at C*/2.

    The compute at which the curve of the run annealed at C* gets as low, over C*/2; geometric mean
    over seeds, infinite if the curve of one seed never got as low.
    """
    halves = frames.runs[(frames.runs.role == "rung") & (frames.runs.status == "done")]
    halves = halves[np.isclose(halves.budget_flops, frames.budget_flops / 2, rtol=0.01)]
    scratch, ratios = frames.rows_of(SCRATCH), []
    for half in rows(halves):
        curve: Any = frames.curves.get(scratch.get(half["seed"], {}).get("run_id", ""))
        if curve is not None:
            at = cost_to_target(curve["flops"].tolist(), curve["bpb"].tolist(), half["curve_bpb"])
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
    alone, held = speed_up(own["difference"], worth), PUBLISHED.get(method)
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
        "published": held.claim if held else DASH,
        "convention": held.convention if held else "",
        "source": held.source if held else "",
        "run_ids": frames.run_ids(method),
    }
