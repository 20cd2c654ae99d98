"""How much of a published speed-up is accounting? The same runs, counted as papers count theirs.

A speed-up is the compute that scratch needs for the loss a method ends with, over what the method
spent; `gains` says how it is read. Conventions change what is spent, what is compared, or both.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmark.report.analysis import Analysis
from benchmark.report.controls import SCRATCH
from benchmark.report.formats import DASH
from benchmark.report.frames import Frames, Row, grouped, rows
from benchmark.report.statistics import cost_to_target
from benchmark.report.study.gains import speed_up, worth_of_doubling
from benchmark.report.verdicts import paired


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
    "crossing": "the compute at which scratch's one curve gets as low, however far from its end",
    "equal_tokens": "compute of as many tokens at the target's size, over what was spent; no loss "
    "is compared",
    "one_seed": "the seed that shows the method best",
    "no_control": "all compute counted, both ends annealed, but held against scratch alone",
    "ours": "the same against the hardest control: scratch, the best size that never grows, the "
    "method's own",
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


def conventions(analysis: Analysis) -> pd.DataFrame:
    """A row for every method: its speed-up over scratch by each convention, and as published.

    nan where the suite cannot tell, infinite where scratch never reached the loss.
    """
    worth = worth_of_doubling(analysis.frames)
    table = analysis.tables["comparisons"]
    found = [
        _row(analysis, method, own, worth)
        for method, own in grouped(table[table.role == "method"]).items()
        if any(row["control"] == SCRATCH for row in own)
    ]
    return pd.DataFrame(found, columns=_COLUMNS)


def crossing_of_nothing(frames: Frames) -> float:
    """What reading scratch before its end gives to scratch itself, annealed at C*/2.

    The compute at which the curve of the run annealed at C* gets as low, over C*/2.
    """
    halves = frames.runs[(frames.runs.role == "rung") & (frames.runs.status == "done")]
    halves = halves[np.isclose(halves.budget_flops, frames.budget_flops / 2, rtol=0.01)]
    return _crossing(frames, rows(halves))


def _row(analysis: Analysis, method: str, compared: list[Row], worth: float) -> Row:
    frames = analysis.frames
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
        "at_target": alone * scratch / after,
        "crossing": _crossing(frames, rows(frames.results(method))),
        "equal_tokens": means.tokens / scratch * frames.budget_flops / means.flops,
        "one_seed": speed_up((frames.results(method).test_bpb - seeds).min(), worth),
        "no_control": alone,
        **ours,
        "ours_control": hardest["control"],
        "published": held.claim if held else DASH,
        "convention": held.convention if held else "",
        "source": held.source if held else "",
        "run_ids": " ".join(frames.of(method).run_id),
    }


def _crossing(frames: Frames, runs: Iterable[Row]) -> float:
    """Geometric mean over seeds; infinite if scratch of one seed never got as low."""
    scratch, ratios = frames.rows_of(SCRATCH), []
    for run in runs:
        curve: Any = frames.curves.get(scratch.get(run["seed"], {}).get("run_id", ""))
        if curve is not None:
            at = cost_to_target(curve["flops"].tolist(), curve["bpb"].tolist(), run["curve_bpb"])
            ratios.append(at / run["flops"])
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


CONTINUED = ("continued", "repeated")
"""First words of the methods that go on with another text, read once or again and again."""


def training_loss(frames: Frames) -> pd.DataFrame:
    """Training loss of every run against tokens, bpb: what a paper's curve of it shows."""
    events = [
        {"method": run.method, "seed": run.seed, "tokens": event["tokens"], "stage": event["stage"],
         "bpb": event["loss"] / math.log(2)}
        for run in frames.suite.runs
        for event in run.of("train")
    ]  # fmt: skip
    return pd.DataFrame(events, columns=["method", "seed", "tokens", "stage", "bpb"])


def as_shown(analysis: Analysis) -> pd.DataFrame:
    """What figures of continued training show, beside what held-out text and controls say.

    Each method's training loss at its end (mean of the last records), the same text's held-out
    bpb, and the differences in held-out bpb to the weak baseline of the paper (`net2net_corner`),
    to going on without growth, and to scratch.
    """
    frames, found = analysis.frames, []
    lost = training_loss(frames).groupby("method")
    for method in frames.methods():
        prefix = method.partition("_")[0]
        if prefix not in CONTINUED or method not in frames.validation:
            continue
        per_seed = lost.get_group(method).groupby("seed").bpb
        row = {
            "method": method,
            "n": len(frames.results(method)),
            "epochs": frames.of(method).epochs.max(),
            "train_bpb": float(per_seed.apply(lambda bpb: bpb.tail(3).mean()).mean()),
            "test_bpb": float(frames.results(method).test_bpb.mean()),
            "run_ids": " ".join(frames.of(method).run_id),
        }
        for name, control in (("corner", f"{prefix}_corner"), ("ungrown", f"{prefix}_ungrown"),
                              (SCRATCH, SCRATCH)):  # fmt: skip
            is_known = control != method and control in frames.validation
            gap = paired(frames, method, control).difference if is_known else None
            ends = (gap.value, gap.low, gap.high) if gap else (math.nan,) * 3
            keys = (f"vs_{name}", f"vs_{name}_low", f"vs_{name}_high")
            row |= dict(zip(keys, ends, strict=True))
        found.append(row)
    return pd.DataFrame(found)


def lowest_held_out(frames: Frames) -> float:
    """The lowest test bpb that any run of the suite ends with."""
    return float(frames.runs.test_bpb.min())
