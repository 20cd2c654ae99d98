"""How key-value tokens are added to a TokenFormer, by coordinates of the axis n_token.

What new keys and values hold, what becomes of old ones, and under which activations and which
temperature the function is kept; that it is, or by how much not, is shown in
tests/test_tokenformer.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import Copies, padded
from benchmark.base.errors import GrowthError
from benchmark.growth import (
    AxisMap,
    Fill,
    Side,
    Weights,
    WidthOperator,
    WidthTransfer,
)
from benchmark.model import ModelConfig


@dataclass(frozen=True)
class _TokenTransfer(WidthTransfer):
    operator: "RandomTokens"

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight, axes = super().weight(name, small, fresh), self.axes[name]
        if "n_token" not in axes.names:
            return weight
        n_old, n_new = self.small.size("n_token"), self.shell.config.size("n_token")
        if axes.out[-1:] == ("n_token",):
            keys = weight.reshape(
                -1, n_new, math.prod(axes.shape(self.shell.config)[len(axes.out) :])
            )
            return self.operator.adapt(keys, n_old, "out", self.generator).view_as(weight)
        values = weight.reshape(-1, n_new, 1)
        return self.operator.adapt(values, n_old, "into", self.generator).view_as(weight)


@dataclass(frozen=True)
class RandomTokens(WidthOperator):
    """Random keys and values behind the old ones, as a fresh model of the new size has them.

    Args:
        theta: activation of the model.
        keeps_tau: whether the model's temperature stays; else it rises with the tokens.
    """

    grows = frozenset({"n_token"})
    transfer = _TokenTransfer
    fills: ClassVar[Mapping[Side, Fill]] = {"out": "fresh", "into": "fresh"}
    """What new keys ("out") and values ("into") hold."""

    suits_kept_tau: ClassVar[bool] = False
    """Whether the rule was made for a temperature that stays."""

    exact_under: ClassVar[frozenset[str]] = frozenset()
    """Activations under which growth keeps the function, at the temperature it was made for."""

    theta: str = "l2_norm_gelu"
    keeps_tau: bool = False

    @property
    @override
    def preserves_function(self) -> bool:  # type: ignore[override]
        """Whether the model's activation and temperature are among those."""
        return self.theta in self.exact_under and self.keeps_tau is self.suits_kept_tau

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(padded(old, new))

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        return self.fills[side]

    def adapt(self, tokens_GNI: Tensor, n_old: int, side: Side, random: torch.Generator) -> Tensor:
        """Last change to keys ("out") or values ("into"); by default none.

        Args:
            tokens_GNI: groups of tokens, of which the first `n_old` are old; may be changed.
            n_old: tokens of a group that there were.
            side: which of the two.
            random: source of randomness.
        """
        return tokens_GNI


@dataclass(frozen=True)
class NoisyTokens(RandomTokens):
    """Random tokens, and noise on the old ones, which the authors suggest for an annealed source.

    Args:
        noise: its standard deviation, relative to the root mean square of the old keys or values.
    """

    noise: float = 0.1

    @override
    def adapt(self, tokens_GNI: Tensor, n_old: int, side: Side, random: torch.Generator) -> Tensor:
        old = tokens_GNI[:, :n_old]
        drawn = torch.randn(old.shape, generator=random, dtype=torch.float64, device="cpu")
        old.add_(drawn.to(old) * self.noise * old.square().mean().sqrt())
        return tokens_GNI


class ZeroKeys(RandomTokens):
    """Keys of zero, random values."""

    fills: ClassVar[Mapping[Side, Fill]] = {"out": "zero", "into": "fresh"}
    suits_kept_tau = True
    exact_under = frozenset({"l2_norm_gelu", "gelu_l2_norm"})


class DeadTokens(ZeroKeys):
    """Keys and values of zero, which have no gradient; but under softmax, which zeros change."""

    fills: ClassVar[Mapping[Side, Fill]] = {"out": "zero", "into": "zero"}


class RotatedKeys(RandomTokens):
    """Keys Q K sqrt(m / n) for a random Q (m, n) with orthonormal columns, values of zero.

    They add m / n times the squared norm of the old scores, which tau makes up for.
    """

    fills: ClassVar[Mapping[Side, Fill]] = {"out": "zero", "into": "zero"}
    exact_under = frozenset({"l2_norm_gelu"})

    @override
    def adapt(self, tokens_GNI: Tensor, n_old: int, side: Side, random: torch.Generator) -> Tensor:
        if side == "into":
            return tokens_GNI
        old, n_extra = tokens_GNI[:, :n_old], tokens_GNI.shape[1] - n_old
        if n_extra < n_old:
            raise GrowthError(f"n_token must at least double to {2 * n_old}, got {n_old + n_extra}")
        shape = len(old), n_extra, n_old
        drawn = torch.randn(shape, generator=random, dtype=torch.float64, device="cpu")
        rotation = torch.linalg.qr(drawn).Q.to(old)
        return torch.cat((old, math.sqrt(n_extra / n_old) * rotation @ old), dim=1)


@dataclass(frozen=True)
class CopiedTokens(Copies, RandomTokens):
    """Every token repeated equally often, its value shared among the copies, with noise.

    Args:
        noise: of the values, relative to their root mean square; it cancels over copies.
    """

    exact_under = frozenset({"l2_norm_gelu", "gelu_l2_norm", "softmax"})
    noise: float = 0.01
