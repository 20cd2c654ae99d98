"""Growth of n_layer: every new block starts from an old one, or from scratch."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.growth.operator import GrowthOperator, Moments, Resources, Transfer, Weights
from benchmark.model.transformer import Axes, ModelConfig, Transformer


class DepthOperator(GrowthOperator):
    """Grows n_layer: every new block starts from an old one, or from scratch."""

    grows = frozenset({"n_layer"})

    copies_moments: ClassVar[bool] = True
    """Whether a new block may inherit moments; false where `adapt` makes it another function."""

    @abstractmethod
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        """Small block that a large one starts from; -1 for a freshly initialised one.

        Args:
            layer: number of the large block, from 0.
            n_small: blocks of the small model.
            n_large: blocks of the large one.
        """

    def is_repeat(self, layer: int, n_small: int, n_large: int) -> bool:
        """Whether an earlier large block already starts from the same small block."""
        source = self.source(layer, n_small, n_large)
        return source < 0 or any(self.source(i, n_small, n_large) == source for i in range(layer))

    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        """Weight of a new block; by default that of the block it starts from.

        Args:
            weight: of that block, as it is stored; must not be changed.
            axes: of the tensor.

        Returns:
            A tensor of the same shape.
        """
        return weight

    @final
    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        n_small, n_large = small.config.n_layer, target.n_layer
        for layer in range(n_large):
            if not -1 <= (source := self.source(layer, n_small, n_large)) < n_small:
                raise GrowthError(
                    f"{type(self).__name__}.source starts block {layer} of n_layer={n_large} from "
                    f"block {source}; it must be from -1 to {n_small - 1}"
                )
        return DepthTransfer(self, n_small, n_large, small.shell(target))


@dataclass(frozen=True)
class DepthTransfer(Transfer):
    """What a `DepthOperator` does, tensor by tensor."""

    operator: DepthOperator
    n_small: int
    n_large: int
    shell: Transformer

    @cached_property
    def axes(self) -> dict[str, Axes]:
        """Axes of every large tensor."""
        return self.shell.axes()

    def origin(self, name: str) -> tuple[str | None, bool]:
        """Small tensor that `name` starts from (None: none), and whether its block is new."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None:
            return name, False
        layer = int(match[1])
        source = self.operator.source(layer, self.n_small, self.n_large)
        is_new = self.operator.is_repeat(layer, self.n_small, self.n_large)
        return (None if source < 0 else f"blocks.{source}.{match[2]}"), is_new

    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        """A large tensor, of the small one's shape; for the arguments see `weights`."""
        origin, is_new = self.origin(name)
        weight = fresh[name] if origin is None else small[origin]
        adapted = self.operator.adapt(weight, self.axes[name]) if is_new else weight
        # what was drawn is overwritten, so that no block is held twice
        return weight.copy_(adapted) if origin is None else adapted

    def inherited(self, name: str) -> str | None:
        """Small tensor whose moments a large one continues; None where they start from zero."""
        origin, is_new = self.origin(name)
        return None if is_new and not self.operator.copies_moments else origin

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {name: self.weight(name, small, fresh) for name in self.axes}

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        grown: Weights = {}
        for name, like in self.shell.named_parameters():
            if (origin := self.inherited(name)) is None:
                some = next(iter(small.values()))
                grown[name] = torch.zeros(like.shape, dtype=some.dtype, device=some.device)
            else:
                grown[name] = small[origin]
        return grown

    @override
    def needs_fresh(self, name: str) -> bool:
        return self.origin(name)[0] is None

    @override
    def steps(self, small: "Moments") -> dict[str, float]:
        origins = {name: self.origin(name)[0] for name, _ in self.shell.named_parameters()}
        return {name: small.step[old] if old else 0.0 for name, old in origins.items()}

    @override
    def is_new(self) -> Weights:
        return {
            name: torch.full(like.shape, self.origin(name)[1], device="cpu")
            for name, like in self.shell.named_parameters()
        }
