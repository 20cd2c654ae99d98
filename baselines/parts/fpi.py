"""FPI, the function-preserving initialisation of bert2BERT (Chen et al. 2022, arXiv:2110.07143).

Net2Wider on a transformer: feed-forward units, whole heads and residual features repeat, and what
reads them divides by the number of copies.

Deviations: all layers share one map per axis; noise that cancels tells copies apart where the paper
had dropout. Drawn residual features change the function, because norms weigh each by its count; a
circular map, which the paper does not have, repeats all equally often if the ratio is whole.
"""

from dataclasses import dataclass

import torch
from typing_extensions import override

from baselines.parts.copies import Copies, drawn
from benchmark.base.errors import ConfigError
from benchmark.growth import AxisMap
from benchmark.model import ModelConfig

MAPS = ("random", "circular")


@dataclass(frozen=True)
class FPI(Copies):
    """Repeat coordinates, drawn at random or all in turn."""

    map: str = "random"

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise ConfigError(f"map must be one of {list(MAPS)}, got {self.map!r}")

    @override
    def keeps_function(self, small: ModelConfig, large: ModelConfig) -> bool:
        ratio, rest = divmod(large.d_model, small.d_model)
        is_balanced = ratio == 1 or self.map == "circular"
        return super().keeps_function(small, large) and is_balanced and not rest

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        is_drawn = self.map == "random"
        circle = torch.arange(new, device="cpu") % old
        return AxisMap.evenly(drawn(old, new, generator) if is_drawn else circle)
