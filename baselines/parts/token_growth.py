"""How key-value tokens are added to a TokenFormer, by coordinates of the axis n_token.

What new keys and values hold, whether the temperature follows the number of tokens, and under which
activations the function is kept; that it is, or by how much not, is shown in
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
    Resources,
    Side,
    Transfer,
    Weights,
    WidthOperator,
    WidthTransfer,
)
from benchmark.model import ModelConfig, Transformer


@dataclass(frozen=True)
class RandomTokens(WidthOperator):
    """Random keys and values behind the old ones; tau follows their number.

    Args:
        theta: activation of the model.
    """

    grows = frozenset({"n_token"})
    fills: ClassVar[Mapping[Side, Fill]] = {"out": "fresh", "into": "fresh"}
    """What new keys ("out") and values ("into") hold."""

    scales_tau2: ClassVar[bool] = True
    exact_under: ClassVar[frozenset[str]] = frozenset()
    """Activations under which growth keeps the function."""

    theta: str = "l2_norm_gelu"

    @property
    @override
    def preserves_function(self) -> bool:  # type: ignore[override]
        """Whether the model's activation is among those."""
        return self.theta in self.exact_under

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(padded(old, new))

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        return self.fills[side]

    def turn(self, keys_GNI: Tensor, n_old: int, generator: torch.Generator) -> Tensor:
        """Last change to the keys; by default none."""
        return keys_GNI

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _TokenTransfer.of(self, small, target, resources)


@dataclass(frozen=True)
class _TokenTransfer(WidthTransfer):
    operator: RandomTokens

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        n_old, n_new = self.small.size("n_token"), self.shell.config.size("n_token")
        if name.endswith(".tau2"):
            return small[name] * n_new // n_old if self.operator.scales_tau2 else small[name]
        weight = super().weight(name, small, fresh)
        if self.axes[name].out[-1:] != ("n_token",):
            return weight
        keys_GNI = weight.reshape(-1, n_new, self.shell.get_parameter(name).shape[1])
        return self.operator.turn(keys_GNI, n_old, self.generator).view_as(weight)


class ZeroKeys(RandomTokens):
    """Keys of zero, random values; tau stays."""

    fills: ClassVar[Mapping[Side, Fill]] = {"out": "zero", "into": "fresh"}
    scales_tau2 = False
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

    @property
    @override
    def moments_are_exact(self) -> bool:
        """No: the part of a gradient along the scores is divided by tau squared."""
        return False

    @override
    def turn(self, keys_GNI: Tensor, n_old: int, generator: torch.Generator) -> Tensor:
        old, n_extra = keys_GNI[:, :n_old], keys_GNI.shape[1] - n_old
        if n_extra < n_old:
            raise GrowthError(f"n_token must at least double to {2 * n_old}, got {n_old + n_extra}")
        shape = len(old), n_extra, n_old
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
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
