"""Methods that break one promise each, for the contract to catch, and a few that look suspicious.

Each could have been written in good faith: the fault is a line or two, the rest is sound.
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.block_orders import RepeatBlocks
from baselines.parts.copies import tiled
from baselines.parts.freezing import learns_with_new_blocks
from baselines.parts.identity_blocks import IdentityBlocks
from benchmark.growth.axis_map import AxisMap
from benchmark.growth.depth import DepthOperator
from benchmark.growth.operator import GrowthOperator, Resources, StatePolicy, Transfer, Weights
from benchmark.growth.width import WidthOperator
from benchmark.model.cost import forward_flops_per_token
from benchmark.model.transformer import Axes, Kind, ModelConfig, Part, Transformer
from benchmark.training.baseline import Baseline

FACTOR = torch.tensor(0.5, dtype=torch.float64)


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
    """Gives each copy of a unit its source's whole moments, as if gradients were not shared."""

    leaves_copies_equal = True

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_TileWithWholeMoments(),)


class AdmitsWhatIsNotSo(Baseline):
    """Sound, but declares every exception there is."""

    leaves_dead_entries = True
    leaves_copies_equal = True

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_HumbleIdentityBlocks(),)


class _HumbleIdentityBlocks(IdentityBlocks):
    inexact_for = (("n_layer", "norm", "layernorm"),)


class BuriesBlocksAndSaysSo(BuriesBlocks):
    """Not broken: a control whose new blocks are meant to be dead."""

    leaves_dead_entries = True


class RemembersWeights(Baseline):
    """Exact for the weights it was prepared with, and for no others."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_RememberedIdentityBlocks(),)


class LearnsForFree(Baseline):
    """Looks at data to decide how to grow, and sends no bill."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_CalibratedStacking(),)


class LearnsAndPays(Baseline):
    """Not broken: as `LearnsForFree`, with its bill."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_CalibratedStacking(pays=True),)


class Crashes(Baseline):
    """Fails with an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_Crash(),)


class _Crash(RepeatBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        raise KeyError("no such thing")


class Exits(Baseline):
    """Ends the process as if all were well, when it grows or when it trains."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when
        self.operators = (_Exit() if when == "growing" else RepeatBlocks(),)

    @override
    def on_progress(self, since_growth: float) -> None:
        if self.when == "training":
            sys.exit(0)


class _Exit(RepeatBlocks):
    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        sys.exit(0)


@dataclass(frozen=True)
class _Delegating(Transfer):
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


class _WholeMoments(_Delegating):
    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return self.inner.moments(small, 0)


class _Remembered(_Delegating):
    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return self.inner.weights(self.small.state_dict(), fresh)


class _Calibrated(_Delegating):
    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        ids = next(self.resources.batches)[:, :-1]
        spread = self.small(ids).std()
        grown = self.inner.weights(small, fresh)
        return {**grown, "norm_head.weight": grown["norm_head.weight"] / spread}


class _TileWithWholeMoments(GrowthOperator):
    grows = frozenset({"d_ff"})
    preserves_function = True

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _WholeMoments(_Tile().prepare(small, target, resources), small, resources)


class _RememberedIdentityBlocks(GrowthOperator):
    grows = frozenset({"n_layer"})
    preserves_function = True

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _Remembered(IdentityBlocks().prepare(small, target, resources), small, resources)


class _CalibratedAndPaid(_Calibrated):
    @property
    @override
    def flops(self) -> float:  # type: ignore[override]
        return forward_flops_per_token(self.small) * 4 * self.small.config.seq_len


@dataclass(frozen=True)
class _CalibratedStacking(GrowthOperator):
    grows = frozenset({"n_layer"})
    pays: bool = False

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        transfer = _CalibratedAndPaid if self.pays else _Calibrated
        return transfer(RepeatBlocks().prepare(small, target, resources), small, resources)


class SaysNotWhatItGrows(Baseline):
    """Its operator forgets to name a size."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_OfNothing(),)


class _OfNothing(GrowthOperator):
    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return RepeatBlocks().prepare(small, target, resources)


class StartsFromNowhere(Baseline):
    """Copies a block that the small model does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_OneTooFar(),)


class _OneTooFar(DepthOperator):
    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return min(layer, n_small)


class _TrainsNewBlocks(Baseline):
    """A sound method, for faults about what rests."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = IdentityBlocks()
        self.operators = (self.blocks,)

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return learns_with_new_blocks(name, self.blocks, small, large)


class ClipsWhatItFroze(_TrainsNewBlocks):
    """Freezes the embeddings, and keeps them in bounds while it trains."""

    @override
    def on_progress(self, since_growth: float) -> None:
        self.model.embed.weight.detach().clamp_(-0.3, 0.3)


class FreezesEverything(_TrainsNewBlocks):
    """Leaves nothing to train."""

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return False


class _Backwards(Transformer):
    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        self.blocks, blocks = self.blocks[::-1], self.blocks
        logits_BTV = super().forward(ids_BT)
        self.blocks = blocks
        return logits_BTV


class RunsBackwards(_TrainsNewBlocks):
    """Applies its blocks from the last to the first: what rests has other gradients to pass on."""

    model_class = _Backwards


class _Scale(Part):
    macs = 0

    def __init__(self) -> None:
        super().__init__()
        self.axes = {"factor": Axes(kind=Kind.CONSTANT)}
        self.register_buffer("factor", FACTOR)

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """Nothing is random."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("factor")


class _OneScale(Transformer):
    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)
        self.scale = _Scale()

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.scale(super().forward(ids_BT))


class SharesAScale(_Deeper):
    """The factor on the logits is one tensor for all models."""

    model_class = _OneScale


class _LooksAhead(Transformer):
    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_BTV = super().forward(ids_BT)
        return logits_BTV - logits_BTV.mean(1, keepdim=True)


class LooksAhead(_Deeper):
    """Centres the logits over the whole text, the part to be predicted included."""

    model_class = _LooksAhead


class _HalfPrice(Transformer):
    @property
    @override
    def linear_macs(self) -> int:
        return super().linear_macs // 2


class TellsHalfItsCost(_Deeper):
    """States half of its multiply-accumulates."""

    model_class = _HalfPrice


class _Hoarder(Transformer):
    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)
        self.hoard = [torch.zeros(config.vocab_size, requires_grad=True)]

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        return super().forward(ids_BT) + self.hoard[0]


class HoardsAWeight(_Deeper):
    """Keeps a weight where no optimizer finds it."""

    model_class = _Hoarder


class _Ageing(Transformer):
    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)
        self.register_buffer("age", torch.zeros(()), persistent=False)

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        age = self.get_buffer("age")
        if self.training:
            age += 1
        return super().forward(ids_BT) / (1 + 0.1 * age)


class ForgetsABuffer(_Deeper):
    """Its logits cool as it ages, and no checkpoint holds its age."""

    model_class = _Ageing


class LowersItsDecay(_Deeper):
    """Switches weight decay off once it has grown."""

    @override
    def on_progress(self, since_growth: float) -> None:
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0


class _Replaying(Transformer):
    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)
        self.last: list[Tensor] = []

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_BTV = super().forward(ids_BT)
        if self.training:
            if self.last:
                logits_BTV = logits_BTV + 0 * super().forward(self.last.pop())
            self.last.append(ids_BT)
        return logits_BTV


class ReplaysBatches(_Deeper):
    """Reads each batch a second time, with the next one, and sends no bill."""

    model_class = _Replaying


class _Remembering(Transformer):
    seen: ClassVar[list[Tensor]] = []

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_BTV = super().forward(ids_BT)
        if not self.training:
            self.seen[:] = [ids_BT]
        elif self.seen:
            counts = torch.bincount(self.seen[0].flatten(), minlength=self.config.vocab_size)
            logits_BTV = logits_BTV - counts / counts.sum()
        return logits_BTV


class RemembersWhatItIsScoredOn(_Deeper):
    """Keeps the text it was last evaluated on, and learns with what it knows of it."""

    model_class = _Remembering
