"""A difference in bits per byte as a ratio of compute, both ends annealed.

Scratch is annealed at C*/2 and at C*; what it gains between them is what a doubling of compute is
worth, and a method that ends lower by as much is twice as fast. The line is used beyond C*, too.
Loss against log compute bends up, so a gain is understated and a loss looks smaller than it is.
"""

import math

from benchmark.report.controls import SCRATCH
from benchmark.report.frames import Frames, rows


def worth_of_doubling(frames: Frames) -> float:
    """Mean over seeds of the test bpb that scratch gains by a doubling; nan if it shows none.

    Each seed's two largest budgets at which scratch was annealed count.
    """
    of_scratch = (frames.runs.role == "rung") | (frames.runs.method == SCRATCH)
    runs = frames.runs[of_scratch & (frames.runs.status == "done")]
    by_seed = runs.sort_values("budget_flops", kind="stable").groupby("seed")
    gains = [
        (smaller["test_bpb"] - whole["test_bpb"])
        / math.log2(whole["budget_flops"] / smaller["budget_flops"])
        for _, own in by_seed
        if len(own) > 1
        for smaller, whole in [rows(own)[-2:]]
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
