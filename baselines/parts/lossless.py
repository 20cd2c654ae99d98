"""Lossless expansion to any width (LEMON: Wang et al. 2024, arXiv:2310.07999).

The residual stream repeats as often as it fits; the rest is its mean under LayerNorm and zero
under RMSNorm, and norms undo what that does to their statistics: with eta = sqrt(k d / d'), gains
are times eta and epsilons times eta^2. Heads and feed-forward units repeat in a circle. What reads
copies is split at random, entry by entry.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.growth import AxisMap, Fill, Side, WidthOperator, add_split_noise
from benchmark.model import ModelConfig

SPLITS = {"comp": 0.1, "projection": 1.0}
"""How readers are split, and the root mean square of the random part in that of the grown matrix.

comp: W - C, C; projection: W / 2 + R, W / 2 - R; and so on for more copies.
"""


@dataclass(frozen=True)
class Lossless(WidthOperator):
    """Average or zero expansion of the residual stream, circular expansion of everything else."""

    preserves_function = True
    split: str = "comp"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"split must be one of {list(SPLITS)}, got {self.split!r}")

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        source = torch.arange(new, device="cpu") % old
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
