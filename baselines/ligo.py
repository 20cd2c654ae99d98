"""LiGO, learned linear growth (Wang et al. 2023, arXiv:2303.00980).

A factorised map from small to large weights (kronecker.py) learns for 100 steps from the large
model's loss, on batches of the run whose bytes and FLOPs are charged. The function is not
preserved.

After growth: as published, the optimizer is fresh, and the rate is not warmed up.

Deviations from the released code (VITA-Group/LiGO, commit 68e657d): a matrix is shared by all
layers and learned as a whole, as in the paper; the code has one per large layer and fixes the part
that repeats old coordinates. Adam has no weight decay, which would shrink that part, and a rate
tuned on suite `cpu` (1e-3 to 1e-2, seeds 100 to 102; 2e-4 there), warmed up in 10 steps; the
released command warms up for 10,000 of its 100 steps and hardly moves the map. Products of weights
are charged per step; the authors' counter charges them per sample.
"""

from baselines.parts.factors import InitialFactors
from baselines.parts.learned_map import LearnedMap
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy


class LiGO(Baseline):
    """Grow every size by a map that is learned first."""

    state_policy = StatePolicy.RESET

    def __init__(
        self, n_steps: int = 100, rate: float = 3e-3, rows: str = "random", order: str = "whole"
    ) -> None:
        super().__init__()
        initial = InitialFactors(rows=rows, order=order)
        self.operators = (LearnedMap(n_steps=n_steps, rate=rate, initial=initial),)
