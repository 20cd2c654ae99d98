"""New blocks that start as identities: both residual writes are zero, so they add nothing.

Every weight learns: the writes at once, the others as soon as the writes have moved.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.growth import DepthOperator, is_residual_write
from benchmark.model import Axes


@dataclass(frozen=True)
class IdentityBlocks(DepthOperator):
    """Fresh blocks spread evenly among the old ones: 0 1 2 3 -> 0 . 1 2 . 3."""

    preserves_function = True
    copies_moments = False

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        old = layer * n_small // n_large
        return -1 if layer > 0 and old == (layer - 1) * n_small // n_large else old

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return torch.zeros_like(weight) if is_residual_write(axes) else weight


@dataclass(frozen=True)
class BlockExpansion(IdentityBlocks):
    """0 1 2 3 -> 0 1 1' 2 3 3': copies of the top block of each group."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return ((layer + 1) * n_small - 1) // n_large


@dataclass(frozen=True)
class DoubleTop(IdentityBlocks):
    """0 1 2 3 -> 0 1 2 2' 3 3': after each of the last blocks a copy of it."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        n_single = 2 * n_small - n_large
        if n_single < 0:
            raise GrowthError(f"n_layer can at most double from {n_small}, got {n_large}")
        return layer if layer < n_single else n_single + (layer - n_single) // 2
