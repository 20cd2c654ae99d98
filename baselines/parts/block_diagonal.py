"""k copies of a model side by side: every matrix becomes block-diagonal, [[W, 0], [0, W]]."""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import tiled
from benchmark.growth import (
    AxisMap,
    Weights,
    WidthOperator,
    WidthTransfer,
    add_split_noise,
)
from benchmark.model import Kind


class _BlockDiagonal(WidthTransfer):
    operator: "SideBySide"

    def _separate(self, name: str, tensor: Tensor, *, is_weight: bool) -> Tensor:
        """Leave to each copy, in place, what it reads of its own; of a weight, all shares of it.

        Where one side has more copies than the other, its own are those of equal number modulo gcd.
        """
        copies: dict[str, list[tuple[int, int, int]]] = {"out": [], "into": []}
        for dim, axis, side, axis_map in self.sides(name):
            size = self.small.size(axis)
            copies[side].append((dim, size, len(axis_map.source) // size))
        for (dim, size, n_out), (dim_into, size_into, n_into) in product(*copies.values()):
            n_blocks = math.gcd(n_out, n_into)
            for i, j in product(range(n_out), range(n_into)):
                row = tensor.narrow(dim, i * size, size)
                block = row.narrow(dim_into, j * size_into, size_into)
                block.mul_((n_blocks if is_weight else 1) * ((i - j) % n_blocks == 0))
        return tensor

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight = self._separate(name, super().weight(name, small, fresh), is_weight=True)
        if self.axes[name].kind is Kind.MAP:
            add_split_noise(weight, self.repeated(name), self.operator.noise, self.generator)
        return weight

    @override
    def moment(self, name: str, small: Weights, power: int) -> Tensor:
        moment = super().moment(name, small, power)
        is_released = power > 0 and self.operator.released
        return self._separate(name, moment, is_weight=False) if is_released else moment


@dataclass(frozen=True)
class SideBySide(WidthOperator):
    """Copies that read none but themselves, until training connects them.

    Args:
        noise: of the readers, relative to their root mean square.
        released: whether moments outside the diagonal blocks are zero under `SCALED`.
    """

    preserves_function = True
    transfer = _BlockDiagonal
    noise: float = 0.05
    released: bool = False

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(tiled(axis, old, new))
