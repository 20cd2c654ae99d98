"""LEMON, lossless expansion to any size (Wang et al. 2024, arXiv:2310.07999).

The residual stream repeats as often as it fits; the rest is its mean under LayerNorm and zero
under RMSNorm, and norms undo what that does to their statistics: with eta = sqrt(k d / d'), gains
are times eta and epsilons times eta^2. Heads and feed-forward units repeat in a circle. What reads
copies is split at random, entry by entry. In depth, each of the last blocks is followed by a copy
of itself whose residual writes are zero. Compared with the first author's code
(YiteWang/lemon-pytorch, commit a73f0b6).

Deviations: random parts are uniform, not normal, at the standard deviation of a fresh model. Not
here: `cancelzero` blocks, and the optimizer's state and the faster decay, which are the suite's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from baselines.identity_depth import IdentityBlocks
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError, GrowthError
from benchmark.growth import AxisMap, Fill, Side, WidthOperator, add_split_noise
from benchmark.model import ModelConfig

SPLITS = {"comp": 0.1, "projection": 1.0}
"""How readers are split, and the size of the random part relative to the grown matrix.

comp: W - C, C; projection: W / 2 + R, W / 2 - R; and so on for more copies.
"""


@dataclass(frozen=True)
class Lossless(WidthOperator):
    """Average or zero expansion of the residual stream, circular expansion of everything else."""

    preserves_function = True
    moments_are_exact = False
    split: str = "comp"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"split must be one of {list(SPLITS)}, got {self.split!r}")

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        source = torch.arange(new) % old
        if axis == "d_model":
            source[new // old * old :] = -1
        evenly = AxisMap.evenly(source)
        return evenly if self.split != "comp" else AxisMap(source, (~evenly.is_new).double())

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        if side == "into":
            return "fresh"
        return "zero" if small.norm == "rmsnorm" else "mean"

    @override
    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        return math.sqrt(large.d_model // small.d_model * small.d_model / large.d_model)

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return add_split_noise(weight, repeated, SPLITS[self.split], generator)


@dataclass(frozen=True)
class DoubleTop(IdentityBlocks):
    """0 1 2 3 -> 0 1 2 2' 3 3': after each of the last blocks a copy that adds nothing."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        n_single = 2 * n_small - n_large
        if n_single < 0:
            raise GrowthError(f"n_layer can at most double from {n_small}, got {n_large}")
        return layer if layer < n_single else n_single + (layer - n_single) // 2


class Lemon(Baseline):
    """Grow every size, keeping the function; depth at most doubles."""

    def __init__(self, split: str = "comp") -> None:
        super().__init__()
        self.operators = (Lossless(split), DoubleTop())
