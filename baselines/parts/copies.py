"""Coordinates that repeat, and what tells their copies apart."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.growth import AxisMap, WidthOperator, add_split_noise


@dataclass(frozen=True)
class Copies(WidthOperator):
    """Every coordinate repeated equally often; what reads it is divided by the number of copies.

    Args:
        noise: of the readers, relative to their root mean square; it cancels over copies.
    """

    preserves_function = True
    noise: float = 0.05

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(tiled(axis, old, new))

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return add_split_noise(weight, repeated, self.noise, generator) if self.noise else weight


@dataclass(frozen=True)
class DrawnCopies(Copies):
    """Heads and feed-forward units repeat as they are drawn; d_model is tiled."""

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        is_tiled = axis == "d_model"
        return AxisMap.evenly(tiled(axis, old, new) if is_tiled else drawn(old, new, generator))


def drawn(old: int, new: int, generator: torch.Generator) -> Tensor:
    """Sources 0 1 2 2 0: every coordinate, then randomly drawn ones."""
    more = torch.randint(old, (new - old,), generator=generator, device="cpu")
    return torch.cat((torch.arange(old, device="cpu"), more))


def padded(old: int, new: int) -> Tensor:
    """Sources 0 1 2 . .: every coordinate, then some without a source."""
    return torch.cat((torch.arange(old, device="cpu"), torch.full((new - old,), -1, device="cpu")))


def tiled(axis: str, old: int, new: int) -> Tensor:
    """Sources 0 1 2 0 1 2: every coordinate repeated equally often.

    Raises:
        GrowthError: `new` is not a multiple of `old`.
    """
    if new % old:
        raise GrowthError(f"{axis} must grow to a multiple of {old} to be tiled, got {new}")
    return torch.arange(new, device="cpu") % old
