"""Deep models from one layer, late (Bu 2025, arXiv:2511.04981): expand once, near the decay.

A model of one layer or none is trained for most of the run and then expanded to full depth in one
step. New layers are random and on top, or copies of the old one. The function is lost in either
case; the paper finds that zeroing them to keep it hurts. Its mixing time runs until the loss meets
that of full depth from scratch; the report's table of growths gives the compute until the loss is
back where growth has lifted it from, which is less.

After growth: published at an unchanged rate; what becomes of the optimizer's state is not known to
us. Here old layers keep it, new ones start from zero, and the rate stays.

Deviations: the source has one layer, the least that our models can have; AdamW and not Muon. To a
target of four layers the published 0.8 of the steps are about 0.55 of the compute, where growth is
in `late_depth`; `late_depth_80` takes 0.8 of the compute, within the decay. No official code is
known.
"""

from dataclasses import dataclass

from typing_extensions import override

from baselines.parts.block_orders import RepeatBlocks
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import DepthOperator


@dataclass(frozen=True)
class RandomBlocks(DepthOperator):
    """0 1 -> 0 1 . . .: fresh blocks on top of the old ones, as they come."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer if layer < n_small else -1


NEW_BLOCKS = {"random": RandomBlocks, "copies": RepeatBlocks}


class LateDepth(Baseline):
    """Grow n_layer by random blocks or by copies."""

    def __init__(self, new: str = "random") -> None:
        super().__init__()
        if new not in NEW_BLOCKS:
            raise ConfigError(f"new must be one of {list(NEW_BLOCKS)}, got {new!r}")
        self.operators = (NEW_BLOCKS[new](),)
