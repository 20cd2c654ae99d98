"""Stacking: new blocks are copies of trained ones.

G_stack (Du et al. 2024, arXiv:2405.15319; code tongxuluo/prts, commit bf6f774) repeats the whole
stack; interleaving repeats each block in place. Neither keeps the function.

Deviations: the paper drops the optimizer's state; here that is the suite's choice.
"""

from dataclasses import dataclass

from typing_extensions import override

from benchmark.baseline import Baseline
from benchmark.errors import ConfigError
from benchmark.growth import DepthOperator

ORDERS = ("whole", "interleaved")


@dataclass(frozen=True)
class RepeatBlocks(DepthOperator):
    """Whole: 0 1 -> 0 1 0 1. Interleaved: 0 1 -> 0 0 1 1."""

    order: str = "whole"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"order must be one of {list(ORDERS)}, got {self.order!r}")

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer % n_small if self.order == "whole" else layer * n_small // n_large


class Stacking(Baseline):
    """Grow n_layer by copying blocks."""

    def __init__(self, order: str = "whole") -> None:
        super().__init__()
        self.operators = (RepeatBlocks(order),)
