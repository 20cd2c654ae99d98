"""Pairs of linear maps with something in between: y = write f(read x).

With f a normalised activation a pair is attention to token-parameters, `read` the keys and `write`
the values; with f the identity it is a linear map in factors.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmark.model import Axes, FixedAxis, ModelConfig, Part
from benchmark.model.kernels import grouped_linear, linear


class Pair(Part):
    """Two linear maps, and what happens to the hidden coordinates between them.

    A map that is fused along an axis of fixed length (query, key, value; gate, up) is as many
    independent pairs, in groups; their reads are one product.
    """

    read: Tensor
    write: Tensor

    def __init__(self, config: ModelConfig, ends: Axes, hidden: tuple[str, ...]) -> None:
        super().__init__()
        groups = tuple(axis for axis in ends.out if isinstance(axis, FixedAxis))
        self.n_group = math.prod(map(config.size, groups))
        self.axes = {"read": Axes(groups + hidden, ends.into), "write": Axes(ends.out, hidden)}
        for name, axes in self.axes.items():
            n_out, n_in = (math.prod(map(config.size, side)) for side in (axes.out, axes.into))
            self.register_parameter(name, nn.Parameter(torch.empty(n_out, n_in)))

    @abstractmethod
    def between(self, hidden: Tensor) -> Tensor:
        """The function f, over the last dimension."""

    @property
    @override
    def macs(self) -> int:
        return self.read.numel() + self.write.numel()

    @override
    def forward(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.read)
        if self.n_group == 1:
            return linear(self.between(hidden), self.write)
        return grouped_linear(self.between(hidden.unflatten(-1, (self.n_group, -1))), self.write)
