"""The controls: models whose size never changes, and growth that happens too early or not at all.

`Scratch` trains one size from a random start. `RestartOnly` does to a small model all that a
growing method does, except growing. Their configurations give the sizes and the times. No official
code: controls are what others are compared with.

Deviations: none.
"""

from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class Scratch(Baseline):
    """One size from the first step to the last."""


class RestartOnly(Baseline):
    """Stops where others grow, drops the optimizer's state, re-warms the rate, keeps the size."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")
