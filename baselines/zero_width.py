"""Width growth with new weights zero on exactly one side of each product.

The composable expansions of Gesmundo & Maile 2023 (arXiv:2308.06103), theorems 3.1, 3.2 and 3.5:
new heads and feed-forward units are random and read by zero weights; new features of the residual
stream are written by zero weights and read by random ones, and every norm's gain is rescaled by
sqrt(d / d') because the mean square now runs over more features. No official code is known.

After growth: the paper says nothing of the optimizer. Here old entries keep their moments, new ones
start from zero, and the rate stays.

Deviations: the norms' epsilon is rescaled too, without which growth is not exact; new gains are one
rather than zero, which theorem 3.5 allows and which keeps the new features alive. Exact under
RMSNorm only: LayerNorm's mean and variance see the zeros.
"""

import math
from dataclasses import dataclass

import torch
from typing_extensions import override

from baselines.parts.copies import padded
from benchmark.baseline import Baseline
from benchmark.growth import AxisMap, WidthOperator
from benchmark.model import ModelConfig


@dataclass(frozen=True)
class ZeroPad(WidthOperator):
    """Keep every old coordinate, add coordinates without a source."""

    preserves_function = True
    inexact_for = (("d_model", "norm", "layernorm"),)

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(padded(old, new))

    @override
    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        return math.sqrt(small.d_model / large.d_model)


class ZeroWidth(Baseline):
    """Grow widths to any size, old weights untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (ZeroPad(),)
