"""SPARKLING (2026, arXiv:2602.02472): copy, keep activations' size, break the symmetry.

Coordinates repeat in a circle, and every reader is scaled to keep the root mean square of what it
computes: by 1 / sqrt(1 + 3 c) when a fraction c of its inputs is there twice, which at c = 1 is one
half and exact.

After growth: as published, new entries start with moments of zero while old ones keep theirs, and
from then on learn up to 1.3 times as fast.

Deviations: at most twice as wide, because two new copies of one coordinate would never separate;
with a tied head the last norm is scaled, not the logits. No official code is known.
"""

import math
from dataclasses import dataclass

import torch
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.baseline import Baseline
from benchmark.growth import AxisMap, StatePolicy, WidthOperator
from benchmark.model import ModelConfig
from benchmark.training.optim import Rewarm


@dataclass(frozen=True)
class ScaledCopies(WidthOperator):
    """Repeat coordinates, each at most once more; scale all readers alike."""

    preserves_function = True

    @override
    def keeps_function(self, small: ModelConfig, large: ModelConfig) -> bool:
        factors = {large.size(axis) / small.size(axis) for axis in self.grows}
        return super().keeps_function(small, large) and factors <= {1, 2}

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        if new > 2 * old:
            raise GrowthError(f"{axis} can at most double from {old}, got {new}")
        share = 1 / math.sqrt(1 + 3 * (new - old) / old)
        shares = torch.full((new,), share, dtype=torch.float64, device="cpu")
        return AxisMap(torch.arange(new, device="cpu") % old, shares)


class Sparkling(Baseline):
    """Grow widths up to twofold; exact at exactly two."""

    state_policy = StatePolicy.ASYMMETRIC
    rewarm = Rewarm(which="new", start=1.0, ratio=1.3, length=0.005)

    def __init__(self) -> None:
        super().__init__()
        self.operators = (ScaledCopies(),)
