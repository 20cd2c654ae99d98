"""Net2Net (Chen et al. 2016, arXiv:1511.05641), done right on a pre-norm transformer.

Net2Wider: new feed-forward units and whole heads repeat randomly drawn old ones, d_model is tiled,
and every reader divides by the number of copies. Net2Deeper: inserting an identity map does not
exist for GELU, so new blocks are random ones with residual writes of zero.

Deviations: d_model is tiled, not drawn, because a norm's statistics weigh each feature by its
count; the noise that separates copies is centred over them, so that growth stays exact, where the
reference code (Keras mnist_net2net) perturbs the new weights only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from baselines.identity_depth import IdentityBlocks
from benchmark.baseline import Baseline
from benchmark.errors import GrowthError
from benchmark.growth import AxisMap, WidthOperator, add_split_noise


@dataclass(frozen=True)
class Net2Wider(WidthOperator):
    """Repeat old units; divide what reads them by their number of copies.

    Args:
        noise: of the readers, relative to their root mean square.
    """

    preserves_function = True
    noise: float = 0.05

    @property
    @override
    def moments_are_exact(self) -> bool:
        return self.noise == 0

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        is_tiled = axis == "d_model"
        return AxisMap.evenly(tiled(axis, old, new) if is_tiled else drawn(old, new, generator))

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return add_split_noise(weight, repeated, self.noise, generator)


def drawn(old: int, new: int, generator: torch.Generator) -> Tensor:
    """Sources 0 1 2 2 0: every coordinate, then randomly drawn ones."""
    return torch.cat((torch.arange(old), torch.randint(old, (new - old,), generator=generator)))


def tiled(axis: str, old: int, new: int) -> Tensor:
    """Sources 0 1 2 0 1 2: every coordinate repeated equally often.

    Raises:
        GrowthError: `new` is not a multiple of `old`.
    """
    if new % old:
        raise GrowthError(f"{axis} must grow to a multiple of {old} to be tiled, got {new}")
    return torch.arange(new) % old


class Net2Net(Baseline):
    """Grow every size, keeping the function."""

    def __init__(self, noise: float = 0.05) -> None:
        super().__init__()
        self.operators = (Net2Wider(noise), IdentityBlocks())
