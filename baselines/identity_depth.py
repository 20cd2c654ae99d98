"""Depth growth by new random blocks that start as identities.

Both residual writes of a new block are zero, so the block adds nothing, and every weight learns:
the writes at once, the others as soon as the writes have moved. The layer addition of Gesmundo &
Maile 2023 (arXiv:2308.06103), theorem 3.6; Shen et al. 2022 (arXiv:2203.06211) zero the norms
instead, which without biases leaves a SwiGLU block dead for ever.

Deviations: none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.baseline import Baseline
from benchmark.growth import DepthOperator, is_residual_write
from benchmark.model import Axes


@dataclass(frozen=True)
class IdentityBlocks(DepthOperator):
    """Fresh blocks spread evenly among the old ones, with residual writes of zero."""

    preserves_function = True
    copies_moments = False

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return -1 if self.is_extra(layer, n_small, n_large) else layer * n_small // n_large

    @staticmethod
    def is_extra(layer: int, n_small: int, n_large: int) -> bool:
        """Whether the large block has no small block of its own."""
        return layer > 0 and layer * n_small // n_large == (layer - 1) * n_small // n_large

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return torch.zeros_like(weight) if is_residual_write(axes) else weight


class IdentityDepth(Baseline):
    """Grow n_layer by random blocks that start as identities."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (IdentityBlocks(),)
