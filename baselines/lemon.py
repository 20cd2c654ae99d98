"""LEMON, lossless expansion to any size (Wang et al. 2024, arXiv:2310.07999).

Widths expand without loss to any size (lossless.py); in depth, each of the last blocks is followed
by a copy of itself whose residual writes are zero. Compared with the first author's code
(YiteWang/lemon-pytorch, commit a73f0b6).

After growth: published with a fresh optimizer, a warm-up to the rate of a model from scratch and a
decay that is over sooner. Here the optimizer is fresh and the rate warms up; it decays with
everyone's. `lemon_asymmetric` keeps the moments of old entries instead, at an unchanged rate.

Deviations: the random part of a split reader has 0.1 ("comp") or 1 ("projection") times the root
mean square of the grown matrix, uniform differences; the paper's is normal, 0.1 or 1 times a fresh
matrix; under a tied head "comp" leaves the last norm's gain to the first copies, where theirs
divides it among all. `cancelzero` blocks are not here, nor is the faster decay.
"""

from baselines.parts.identity_blocks import DoubleTop
from baselines.parts.lossless import Lossless
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class Lemon(Baseline):
    """Grow every size, keeping the function; depth at most doubles."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(self, split: str = "comp") -> None:
        super().__init__()
        self.operators = (Lossless(split), DoubleTop())
