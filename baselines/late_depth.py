"""Deep models from one layer, late (Bu 2025, arXiv:2511.04981): expand once, near the decay.

A model of one layer or none is trained for most of the run and then expanded to full depth in one
step, at an unchanged learning rate. New layers are random, or copies of the old one. The function
is lost in either case; the paper finds that zeroing them to keep it hurts.

Deviations: the source has one layer, the least that our models can have; AdamW and not Muon; growth
comes before 0.8 of the run where the protocol's decay does. No official code is known.
"""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from baselines.identity_depth import IdentityBlocks
from baselines.stacking import RepeatBlocks
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError
from benchmark.growth import DepthOperator
from benchmark.model import Axes

NEW_BLOCKS = ("random", "copies")


@dataclass(frozen=True)
class RandomBlocks(IdentityBlocks):
    """Fresh blocks among the old ones, as they come."""

    preserves_function = False

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return weight


class LateDepth(Baseline):
    """Grow n_layer by random blocks or by copies."""

    def __init__(self, new: str = "random") -> None:
        super().__init__()
        if new not in NEW_BLOCKS:
            raise ConfigError(f"new must be one of {list(NEW_BLOCKS)}, got {new!r}")
        operator: DepthOperator = RandomBlocks() if new == "random" else RepeatBlocks()
        self.operators = (operator,)
