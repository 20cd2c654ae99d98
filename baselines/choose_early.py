"""Landscape-aware growing (Karp et al. 2024, arXiv:2406.02469): choose the operator a little later.

Of several ways to grow (early_choice.py) the one is taken whose loss is lowest a few steps after
growth, for the loss at growth misleads. The abstract and accounts of the paper were read; no
official code is known.

After growth: the paper's setting could not be read; as for stacking, the optimizer is fresh and the
rate warms up again.

Deviations: the loss is that of training text which no trial has learned from, where the paper has
validation text, for held-out text is no method's to look at; every trial learns from the same
batches with a fresh AdamW at one rate, and is thrown away. Trials are charged: the bytes once, the
compute of each. The candidates are orders of copied blocks; which, and how long a trial is, are
ours.
"""

from collections.abc import Sequence

from baselines.parts.early_choice import EarlyChoice
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class ChooseEarly(Baseline):
    """Grow n_layer in the order of copies whose loss is lowest after a few steps."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(
        self,
        orders: Sequence[str] = ("whole", "interleaved", "last"),
        n_steps: int = 20,
        rate: float = 3e-3,
    ) -> None:
        super().__init__()
        self.operators = (EarlyChoice(orders=tuple(orders), n_steps=n_steps, rate=rate),)
