"""How the rank of factors grows, and how they become the matrix that is their product."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import padded
from benchmark.growth import (
    AxisMap,
    Fill,
    Moments,
    Side,
    Weights,
    WidthOperator,
    WidthTransfer,
)
from benchmark.model import ModelConfig


class _RankTransfer(WidthTransfer):
    @cached_property
    def merged(self) -> list[str]:
        """Paths of the maps that become matrices."""
        old = self.shell.shell(self.small).state_dict()
        return [n.removesuffix(".weight") for n in self.shell.state_dict() if n not in old]

    def _completed(self, small: Weights, make: Callable[[Tensor, Tensor], Tensor]) -> Weights:
        """The small tensors, and for each new matrix what is made of its factors."""
        made = {f"{p}.weight": make(small[f"{p}.write"], small[f"{p}.read"]) for p in self.merged}
        return {**small, **made}

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight = super().weight(name, small, fresh)
        if self.axes[name].out[-1:] != ("rank",):
            return weight
        old = small[name].unflatten(0, (-1, self.small.size("rank")))
        return torch.cat((old, self._new_rows(old.detach().double(), weight)), 1)

    def _new_rows(self, old: Tensor, like: Tensor) -> Tensor:
        n_groups, rank, n_in = old.shape
        shape = n_groups, self.shell.config.size("rank") - rank, n_in
        drawn = torch.randn(shape, generator=self.generator, dtype=old.dtype, device="cpu").to(old)
        basis = torch.linalg.qr(torch.cat((old, drawn), 1).mT).Q[..., rank:]
        # the lower median; `Tensor.median` has no deterministic implementation on CUDA
        length = old.norm(dim=2).sort(1).values[:, (rank - 1) // 2]
        return (basis.mT * length.view(-1, 1, 1)).to(like)

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return super().weights(self._completed(small, _product), fresh)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return super().moments(self._completed(small, _nothing), power)

    @override
    def first_images(self, small: Weights) -> Weights:
        return super().first_images(self._completed(small, _nothing))

    @override
    def steps(self, small: Moments) -> dict[str, float]:
        return {**small.step, **{f"{path}.weight": 0.0 for path in self.merged}}

    @override
    def is_new(self) -> Weights:
        new = super().is_new()
        return {n: mask | (n.removesuffix(".weight") in self.merged) for n, mask in new.items()}


@dataclass(frozen=True)
class AddRank(WidthOperator):
    """Rank that changes nothing yet; products instead of factors where those are no cheaper."""

    grows = frozenset({"rank"})
    preserves_function = True
    transfer = _RankTransfer

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(padded(old, new))

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        return "zero"


def _product(write: Tensor, read: Tensor) -> Tensor:
    factors = (
        write.unflatten(0, (len(read) // write.shape[1], -1)),
        read.unflatten(0, (-1, write.shape[1])),
    )
    return (factors[0].double() @ factors[1].double()).flatten(0, 1).to(write)


def _nothing(write: Tensor, read: Tensor) -> Tensor:
    return write.new_zeros(len(write), read.shape[1])
