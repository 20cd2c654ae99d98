"""Methods that break one promise each; the contract must catch every one, by the check meant for it.

Each is what an author might well write: the fault is a line, the rest is sound.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from baselines.identity_depth import IdentityBlocks
from baselines.net2net import tiled
from baselines.stacking import RepeatBlocks
from benchmark.baseline import Baseline
from benchmark.growth import (
    AxisMap,
    GrowthOperator,
    Resources,
    StatePolicy,
    Transfer,
    Weights,
    WidthOperator,
)
from benchmark.model import Axes, Block, Kind, ModelConfig, Transformer

EPSILON = torch.tensor(1e-5, dtype=torch.float64)


class _Deeper(Baseline):
    """A sound method, for faults of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (IdentityBlocks(),)


class ClaimsTooMuch(Baseline):
    """Stacking, sold as exact."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_StackingSoldAsExact(),)


class _StackingSoldAsExact(RepeatBlocks):
    preserves_function = True


class ClaimsTooLittle(Baseline):
    """Identity blocks, of which nobody said that they are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_ModestIdentityBlocks(),)


class _ModestIdentityBlocks(IdentityBlocks):
    preserves_function = False


class TouchesTheSmallModel(Baseline):
    """Perturbs a copy in place, and with it the original."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_PerturbInPlace(),)


class _PerturbInPlace(RepeatBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return weight.mul_(1.01)


class SeedsTheWorld(Baseline):
    """Makes its noise reproducible by seeding everyone."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_SeedGlobally(),)


class _SeedGlobally(RepeatBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        torch.manual_seed(0)
        return weight + 0.01 * torch.randn_like(weight)


class DrawsItsOwnSeed(Baseline):
    """Leaves the global generator alone, and is different every time."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_DrawUnseeded(),)


class _DrawUnseeded(RepeatBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        own = torch.Generator()
        own.seed()
        return weight + 0.01 * torch.randn(weight.shape, generator=own, dtype=weight.dtype)


class BuriesBlocks(Baseline):
    """New blocks are zero on both sides of each product."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_ZeroBlocks(),)


class _ZeroBlocks(IdentityBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return torch.zeros_like(weight) if axes.kind is Kind.MAP else weight


class LocksCopies(Baseline):
    """Copies of units with copies of their moments, and nothing that tells them apart."""

    state_policy = StatePolicy.CARRY

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_Tile(),)


class _Tile(WidthOperator):
    grows = frozenset({"d_ff"})
    preserves_function = True

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(tiled(axis, old, new))


class CopiesMomentsLikeWeights(Baseline):
    """Gives copies of a unit the whole moments of their source, as if gradients were not shared."""

    leaves_copies_equal = True

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_Wrapped(_Undivided),)


class RemembersWeights(Baseline):
    """Exact for the weights it was prepared with, and for no others."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_Wrapped(_Remembered, IdentityBlocks()),)


class LearnsForFree(Baseline):
    """Looks at data to decide how to grow, and sends no bill."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_Wrapped(_Calibrated, RepeatBlocks()),)


@dataclass
class _Inner(Transfer):
    inner: Transfer
    small: Transformer
    resources: Resources

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return self.inner.weights(small, fresh)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return self.inner.moments(small, power)

    @override
    def is_new(self) -> Weights:
        return self.inner.is_new()


class _Undivided(_Inner):
    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return self.inner.moments(small, 0)


class _Remembered(_Inner):
    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return self.inner.weights(self.small.state_dict(), fresh)


class _Calibrated(_Inner):
    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        ids = next(self.resources.batches)[:, :-1]
        scale = float(self.small(ids).std())
        grown = self.inner.weights(small, fresh)
        return {**grown, "norm_head.weight": grown["norm_head.weight"] / scale}


@dataclass(frozen=True)
class _Wrapped(GrowthOperator):
    transfer: type[_Inner]
    operator: GrowthOperator = field(default_factory=_Tile)

    def __post_init__(self) -> None:
        vars(self)["grows"] = self.operator.grows
        vars(self)["preserves_function"] = self.operator.preserves_function

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return self.transfer(self.operator.prepare(small, target, resources), small, resources)


class SharesAnEpsilon(_Deeper):
    """All models have one epsilon between them."""

    class model_class(Transformer):  # noqa: N801 - the name that Baseline gives it
        """Its last norm's epsilon is a module-level tensor."""

        def __init__(
            self, config: ModelConfig, *, generator: torch.Generator | None = None
        ) -> None:
            super().__init__(config, generator=generator)
            self.norm_head.register_buffer("eps", EPSILON)
