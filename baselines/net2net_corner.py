"""What TokenFormer calls Net2Net (Wang et al. 2025, arXiv:2410.23168, equation 13).

Old weights stay in the corner of every matrix, and everything around them is new and random, on
both sides of every product: [[W, A], [B, C]]. The old function is lost, as their figure 6 shows.
No official code: their repository (Haiyang-W/TokenFormer) has none of it.

After growth: as published for that figure, a fresh optimizer at an unchanged rate. The paper's
figure 7 and table 8 give this baseline TokenFormer's own schedule, a new one after each growth.

Deviations: no source is annealed; new entries are drawn like those of any fresh model of the
target's size, for the paper does not say how.
"""

from dataclasses import dataclass

from typing_extensions import override

from baselines.zero_width import ZeroPad
from benchmark.baseline import Baseline
from benchmark.growth import Fill, Side, StatePolicy
from benchmark.model import ModelConfig


@dataclass(frozen=True)
class Corner(ZeroPad):
    """Keep every old coordinate, add random ones that write and read."""

    preserves_function = False

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        return "fresh"

    @override
    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        return 1.0


class Net2NetCorner(Baseline):
    """Grow widths to any size, the new weights random."""

    state_policy = StatePolicy.RESET

    def __init__(self) -> None:
        super().__init__()
        self.operators = (Corner(),)
