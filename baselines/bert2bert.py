"""bert2BERT (Chen et al. 2022, arXiv:2110.07143): widen by FPI or AKI, then stack.

FPI (fpi.py) repeats coordinates; AKI (aki.py), in either of two readings, takes what is new from
the layer above. No official code is known.

After growth: published with a fresh optimizer and a schedule from scratch, its warm-up included; so
here. `bert2bert_asymmetric` keeps the moments of old entries instead, at an unchanged rate.

Two stages: the paper first trains prefixes of the stack, drawn anew for every step, and of each
only its top blocks. Steps of varying cost cannot be planned to end at a budget, so the first of two
stages here trains only the blocks that stacking has put on top, below the whole model's loss; the
second trains all. A ladder that is done in its first of two growths (`at_once`) makes them.

Deviations: those of FPI; the first stage; FPI by default, where the paper's best is AKI in two
stages, which no file here combines (`reading` and `two_stage` of the class do).
"""

from typing_extensions import override

from baselines.parts.aki import AKI
from baselines.parts.block_orders import RepeatBlocks
from baselines.parts.fpi import FPI
from baselines.parts.freezing import learns_with_new_blocks
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.model import ModelConfig
from benchmark.training.optim import Rewarm


class Bert2Bert(Baseline):
    """Grow widths by FPI, or by AKI if a reading of it is given, and depth by stacking."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(
        self, reading: str | None = None, map: str = "random", *, two_stage: bool = False
    ) -> None:
        super().__init__()
        widen = FPI(map=map) if reading is None else AKI(map=map, reading=reading)
        self.stack, self.is_two_stage = RepeatBlocks(), two_stage
        self.operators = (widen, self.stack)

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return not self.is_two_stage or learns_with_new_blocks(name, self.stack, small, large)


def at_once(progress: float) -> float:
    """A path that is all done after its first step; a further growth changes no size."""
    return 1.0 if progress > 0 else 0.0
