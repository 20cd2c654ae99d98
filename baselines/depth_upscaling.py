"""Depth up-scaling, SOLAR 10.7B (Kim et al. 2023, arXiv:2312.15166): the stack, overlapping itself.

Of two copies of a model of n blocks the lower loses its last m and the upper its first m, and one
stands on the other: from n to 2 (n - m); there 32 to 48, so m = 8. The opening of the paper, its
figure 1 and others' accounts were read, the rest was not; no official code is known.

After growth: published as continued pre-training of a finished model, whose settings could not be
read. Here the optimizer is fresh and the rate warms up again, as where a model is loaded anew.

Deviations: a source in the middle of its own training, at the run's rate; where the depth is odd
the lower copy keeps one block more.
"""

from dataclasses import dataclass

from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.baseline import Baseline
from benchmark.growth import DepthOperator, StatePolicy
from benchmark.training.optim import Rewarm


@dataclass(frozen=True)
class Overlap(DepthOperator):
    """0 1 2 3 -> 0 1 2 1 2 3: the first blocks, then the last ones."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        if n_large > 2 * n_small:
            raise GrowthError(f"n_layer can at most double from {n_small}, got {n_large}")
        is_lower = layer < (n_large + 1) // 2
        return layer if is_lower else n_small - n_large + layer


class DepthUpscaling(Baseline):
    """Grow n_layer, at most twofold."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(self) -> None:
        super().__init__()
        self.operators = (Overlap(),)
