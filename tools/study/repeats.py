"""Continued training as papers draw it: training loss, on text read once or again and again."""

import math

import pandas as pd

from benchmark.report.analysis import Analysis
from benchmark.report.controls import SCRATCH
from benchmark.report.frames import Frames
from benchmark.report.verdicts import paired

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
            "run_ids": frames.run_ids(method),
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
