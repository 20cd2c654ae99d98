"""Growth of pairs by hidden coordinates, after the old ones of each group.

Shape suffixes: N old and M new coordinates of a group, G groups times inputs, O outputs.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from benchmark.growth import GrowthOperator, Resources, Side, Transfer, Weights
from benchmark.model import Kind, ModelConfig, Transformer


class PairOperator(GrowthOperator):
    """Adds hidden coordinates to every pair."""

    axis: ClassVar[str]
    repeats: ClassVar[bool] = False
    """Whether the new coordinates are the old ones again, a whole number of times."""

    @abstractmethod
    def read(self, old: Tensor, fresh: Tensor, generator: torch.Generator) -> Tensor:
        """What makes the N + M coordinates, from (G, N, I) and a new model's (G, M, I)."""

    @abstractmethod
    def write(self, old: Tensor, fresh: Tensor, generator: torch.Generator) -> Tensor:
        """What multiplies the N + M coordinates, from (O, N, 1) and a new model's (O, M, 1)."""

    def temperature(self, old: Tensor, n_old: int, n_new: int) -> Tensor:
        """Squared temperature of a pair that has one; by default it stays."""
        return old

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        shells = small.shell(small.config), small.shell(target)
        return PairTransfer(self, *shells, resources.generator)


@dataclass(frozen=True)
class PairTransfer(Transfer):
    """One growth of every pair."""

    operator: PairOperator
    small: Transformer
    large: Transformer
    generator: torch.Generator

    def sizes(self) -> tuple[int, int]:
        """Coordinates of a group before and after."""
        axis = self.operator.axis
        return self.small.config.size(axis), self.large.config.size(axis)

    def _map(self, small: Weights, grow: Callable[[str, Side, Tensor], Tensor]) -> Weights:
        large, axis = dict[str, Tensor](), self.operator.axis
        for name, axes in self.large.axes().items():
            if name not in small:
                continue
            large[name] = small[name]
            if axis in axes.names:
                side: Side = "out" if axis in axes.out else "into"
                width = small[name].shape[1] if side == "out" else 1
                grown = grow(name, side, small[name].view(-1, self.sizes()[0], width))
                large[name] = grown.view(self.large.get_parameter(name).shape)
        return large

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        n, total = self.sizes()

        def grow(name: str, side: Side, old: Tensor) -> Tensor:
            rule = self.operator.read if side == "out" else self.operator.write
            return rule(old, fresh[name].view(len(old), total, -1)[:, n:], self.generator)

        grown = self._map(small, grow)
        for name, axes in self.large.axes().items():
            if axes.kind is Kind.TEMPERATURE:
                grown[name] = self.operator.temperature(small[name], n, total)
        return grown

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        n, total = self.sizes()

        def grow(_: str, side: Side, old: Tensor) -> Tensor:
            if not self.operator.repeats:
                return F.pad(old, (0, 0, 0, total - n))
            share = n / total if side == "out" else 1.0
            return old.repeat(1, total // n, 1) * share**power

        return self._map(small, grow)

    @override
    def is_new(self) -> Weights:
        n, total = self.sizes()
        named = self.small.named_parameters()
        old = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in named}
        return self._map(old, lambda _, __, mask: F.pad(mask, (0, 0, 0, total - n), value=True))
