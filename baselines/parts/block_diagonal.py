"""k copies of a model side by side: every matrix becomes block-diagonal, [[W, 0], [0, W]]."""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from typing_extensions import override

from baselines.net2net import tiled
from benchmark.growth import (
    AxisMap,
    Resources,
    Transfer,
    Weights,
    WidthOperator,
    WidthTransfer,
    add_split_noise,
    along,
)
from benchmark.model import Kind, ModelConfig, Transformer


@dataclass(frozen=True)
class SideBySide(WidthOperator):
    """Copies that read none but themselves, until training connects them.

    Args:
        noise: of the readers, relative to their root mean square.
        released: whether moments outside the diagonal blocks are zero under `SCALED`.
    """

    preserves_function = True
    noise: float = 0.05
    released: bool = False

    @property
    @override
    def moments_are_exact(self) -> bool:
        return self.noise == 0 and not self.released

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(tiled(axis, old, new))

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _BlockDiagonal.of(self, small, target, resources)


class _BlockDiagonal(WidthTransfer):
    operator: SideBySide

    def _blocks(self, name: str) -> Tensor:
        """Factor on even shares: copies of equal number have it all, others nothing.

        Where one side has more copies than the other, numbers are equal modulo their gcd.
        """
        blocks = torch.ones([1] * len(self.axes[name].names))
        copies: dict[str, list[tuple[int, Tensor]]] = {"out": [], "into": []}
        for dim, axis, side, axis_map in self.sides(name):
            n_old, n_new = self.small.size(axis), len(axis_map.source)
            copies[side].append((n_new // n_old, along(torch.arange(n_new) // n_old, dim, blocks)))
        for (n_out, out), (n_into, into) in product(*copies.values()):
            n_blocks = math.gcd(n_out, n_into)
            blocks = blocks * n_blocks * ((out - into) % n_blocks == 0)
        return blocks

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight = super().weight(name, small, fresh)
        weight = weight * self._blocks(name).to(weight)
        if self.axes[name].kind is Kind.MAP:
            add_split_noise(weight, self.repeated(name), self.operator.noise, self.generator)
        return weight

    @override
    def moment(self, name: str, small: Weights, power: int) -> Tensor:
        moment = super().moment(name, small, power)
        is_masked = power > 0 and self.operator.released
        return moment * (self._blocks(name) > 0).to(moment) if is_masked else moment
