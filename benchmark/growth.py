"""How weights and optimizer state of a small model become those of a larger one.

An operator is a map on named axes. Shared code applies it to every tensor of the model and, by the
gradient rule, to both Adam moments: repeat a produced coordinate and each copy receives the share
of the gradient that its readers give it; repeat a contracted coordinate and every copy receives the
whole gradient although its weight is divided (chain rule; proved in tests/test_growth.py).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.errors import GrowthError
from benchmark.model import Axes, Kind, ModelConfig, Transformer

Weights = dict[str, Tensor]
Side = Literal["out", "into"]


class StatePolicy(Enum):
    """What becomes of the Adam moments when weights grow."""

    RESET = "reset"
    """All moments zero, bias correction restarts."""

    CARRY = "carry"
    """Every entry takes its source's moments as they are; new entries start from zero."""

    SCALED = "scaled"
    """As `CARRY`, times the factor by which growth scaled the entry's gradient."""

    ASYMMETRIC = "asymmetric"
    """Old entries keep their moments; copies and new entries start from zero (2602.02472)."""


@dataclass(frozen=True)
class Resources:
    """What an operator may use besides the model; whatever it consumes is charged to its run."""

    generator: torch.Generator
    """The only source of randomness."""

    batches: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    """Training token ids, each (B, T + 1), for operators that learn their map."""

    model_class: type[Transformer] | None = None
    """Architecture of the large model; None for that of the small one."""


class Transfer(ABC):
    """One growth, with its random choices made: what happens to each tensor."""

    flops: float = 0.0
    """What making the choices cost; the bytes it read are counted by `Resources.batches`."""

    @abstractmethod
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        """Large tensors from the small ones and a freshly initialised large model."""

    @abstractmethod
    def moments(self, small: Weights, power: int) -> Weights:
        """Large tensors that follow gradients ** `power`; power 0 repeats them unscaled."""

    @abstractmethod
    def is_new(self) -> Weights:
        """For every large parameter, which entries are not the first image of a small entry."""


class GrowthOperator(ABC):
    """Maps a trained small model onto a larger one.

    Subclasses are frozen dataclasses whose fields are their hyperparameters. Most derive from
    `DepthOperator` or `WidthOperator`; `growbench check` holds them all to one contract.
    """

    grows: ClassVar[frozenset[str]]
    """Sizes this operator may enlarge; it leaves the others to its neighbours."""

    preserves_function: ClassVar[bool] = False
    """Whether large(x) == small(x) right after growth; the contract tests it both ways."""

    inexact_for: ClassVar[tuple[tuple[str, object], ...]] = ()
    """Choices of the model for which that is not claimed, such as (("norm", "layernorm"),)."""

    @property
    def moments_are_exact(self) -> bool:
        """Whether moments under `SCALED` equal the large gradient in every entry with a source.

        Noise or uneven shares leave them right only in sum over the copies of an entry.
        """
        return True

    @abstractmethod
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        """Make every random or learned choice of growing `small` to `target`.

        Raises:
            GrowthError: this operator cannot reach `target`.
        """


def is_residual_write(axes: Axes) -> bool:
    """Whether a linear map adds its output to the residual stream."""
    return axes.kind is Kind.MAP and axes.out == ("d_model",)


class DepthOperator(GrowthOperator):
    """Grows n_layer: every new block starts from an old one, or from scratch."""

    grows = frozenset({"n_layer"})

    copies_moments: ClassVar[bool] = True
    """Whether a new block may inherit moments; false where `adapt` makes it another function."""

    @abstractmethod
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        """Small block that large block `layer` starts from; -1 for a freshly initialised one."""

    def is_repeat(self, layer: int, n_small: int, n_large: int) -> bool:
        """Whether an earlier large block already starts from the same small block."""
        source = self.source(layer, n_small, n_large)
        return source < 0 or any(self.source(i, n_small, n_large) == source for i in range(layer))

    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        """Weight of a new block, given the one it starts from; by default the same."""
        return weight

    @final
    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _DepthTransfer(self, small.config.n_layer, target.n_layer, small.shell(target))


@dataclass(frozen=True)
class _DepthTransfer(Transfer):
    operator: DepthOperator
    n_small: int
    n_large: int
    shell: Transformer

    def _origin(self, name: str) -> tuple[str | None, bool]:
        """Small tensor that `name` starts from (None: none), and whether its block is new."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None:
            return name, False
        layer = int(match[1])
        source = self.operator.source(layer, self.n_small, self.n_large)
        is_new = self.operator.is_repeat(layer, self.n_small, self.n_large)
        return (None if source < 0 else f"blocks.{source}.{match[2]}"), is_new

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        grown: Weights = {}
        for name, axes in self.shell.axes().items():
            origin, is_new = self._origin(name)
            weight = fresh[name] if origin is None else small[origin]
            grown[name] = self.operator.adapt(weight, axes) if is_new else weight
        return grown

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        grown: Weights = {}
        for name, like in self.shell.named_parameters():
            origin, is_new = self._origin(name)
            if origin is None or (is_new and not self.operator.copies_moments):
                some = next(iter(small.values()))
                grown[name] = torch.zeros(like.shape, dtype=some.dtype, device=some.device)
            else:
                grown[name] = small[origin].clone()
        return grown

    @override
    def is_new(self) -> Weights:
        return {
            name: torch.full(like.shape, self._origin(name)[1])
            for name, like in self.shell.named_parameters()
        }


@dataclass(frozen=True, eq=False)
class AxisMap:
    """Where the coordinates of one widened axis come from."""

    source: Tensor
    """int64 (new,): the small coordinate each large one repeats; -1 for one without a source."""

    share: Tensor
    """float64 (new,): how much of the sum over its source's copies a reader takes from this one."""

    @classmethod
    def evenly(cls, source: Tensor) -> "AxisMap":
        """Every copy of a coordinate is read with the same share, 1 / copies."""
        old = source[source >= 0]
        counts = torch.bincount(old, minlength=1).clamp(min=1)
        share = torch.ones(len(source), dtype=torch.float64)
        share[source >= 0] = 1.0 / counts[old].double()
        return cls(source, share)

    @property
    def is_new(self) -> Tensor:
        """Which of the new coordinates, bool (new,), are not the first to repeat their source."""
        position = torch.arange(len(self.source))
        n_old = int(self.source.max()) + 1
        first = torch.full((n_old,), len(self.source)).scatter_reduce(
            0, self.source.clamp(min=0), position.where(self.source >= 0, len(position)), "amin"
        )
        return (self.source < 0) | (position != first[self.source.clamp(min=0)])


class WidthOperator(GrowthOperator):
    """Grows named axes by repeating coordinates, or by adding ones without a source.

    A coordinate without a source is zero on one side of each product (`zeroed`) and freshly
    initialised on the other, so that it changes nothing and can still learn.
    """

    grows = frozenset({"d_model", "n_head", "d_ff"})

    zeroed: ClassVar[Mapping[str, Side]] = {"d_model": "out", "n_head": "into", "d_ff": "into"}
    """Which side of a product is zero along coordinates without a source."""

    @abstractmethod
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        """Sources and shares of the `new` coordinates of an axis that had `old`."""

    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        """Factor on every norm's gain; its square scales the norm's epsilon."""
        return 1.0

    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        """Break the symmetry between copies in a linear map.

        Args:
            weight: grown map, unflattened; may be changed in place.
            repeated: the contracted dimensions along which coordinates are repeated.
            generator: source of randomness.
        """
        return weight

    @final
    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        maps = {
            axis: self.axis_map(
                axis, small.config.size(axis), target.size(axis), resources.generator
            )
            for axis in sorted(self.grows)
            if target.size(axis) > small.config.size(axis)
        }
        return _WidthTransfer(self, maps, small.config, small.shell(target), resources.generator)


@dataclass(frozen=True)
class _WidthTransfer(Transfer):
    operator: WidthOperator
    maps: dict[str, AxisMap]
    small: ModelConfig
    shell: Transformer
    generator: torch.Generator

    def _sides(self, axes: Axes) -> list[tuple[int, AxisMap, str, Side]]:
        return [
            (dim, self.maps[axis], axis, "out" if dim < len(axes.out) else "into")
            for dim, axis in enumerate(axes.names)
            if axis in self.maps
        ]

    def _gather(self, tensor: Tensor, axes: Axes) -> Tensor:
        tensor = tensor.reshape(axes.shape(self.small))
        for dim, axis_map, _, _ in self._sides(axes):
            index = axis_map.source.clamp(min=0).to(tensor.device)
            tensor = tensor.index_select(dim, index)
        return tensor

    def _grow(self, name: str, axes: Axes, small: Weights, fresh: Weights) -> Tensor:
        scale = self.operator.gain_scale(self.small, self.shell.config)
        if axes.kind is Kind.CONSTANT:
            return small[name] * scale**2
        weight = self._gather(small[name], axes)
        new = fresh[name].view(weight.shape)
        repeated: dict[int, AxisMap] = {}
        sides = self._sides(axes)
        for dim, axis_map, _, side in sides:
            if side == "into":
                weight = weight * _along(axis_map.share, dim, weight)
                if axis_map.is_new[axis_map.source >= 0].any():
                    repeated[dim] = axis_map
        if axes.kind is Kind.GAIN:
            weight = weight * scale
        for dim, axis_map, _, _ in sides:
            brand_new = (axis_map.source < 0).nonzero()[:, 0].to(weight.device)
            weight = weight.index_copy(dim, brand_new, new.index_select(dim, brand_new))
        for dim, axis_map, axis, side in sides:
            if self.operator.zeroed[axis] == side and axes.kind is not Kind.GAIN:
                brand_new = (axis_map.source < 0).nonzero()[:, 0].to(weight.device)
                weight = weight.index_fill(dim, brand_new, 0.0)
        if axes.kind is Kind.MAP and repeated:
            weight = self.operator.perturb(weight, repeated, self.generator)
        return weight

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {
            name: self._grow(name, axes, small, fresh).reshape(fresh[name].shape)
            for name, axes in self.shell.axes().items()
        }

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        scale = self.operator.gain_scale(self.small, self.shell.config)
        axes_of, grown = self.shell.axes(), dict[str, Tensor]()
        for name, like in self.shell.named_parameters():
            axes = axes_of[name]
            moment = self._gather(small[name], axes)
            for dim, axis_map, _, side in self._sides(axes):
                factor = axis_map.share**power if side == "out" else torch.ones(())
                factor = factor.expand_as(axis_map.source) * (axis_map.source >= 0)
                moment = moment * _along(factor, dim, moment)
            if axes.kind is Kind.GAIN:
                moment = moment / scale**power
            grown[name] = moment.reshape(like.shape)
        return grown

    @override
    def is_new(self) -> Weights:
        axes_of, grown = self.shell.axes(), dict[str, Tensor]()
        for name, like in self.shell.named_parameters():
            new = torch.zeros(axes_of[name].shape(self.shell.config), dtype=torch.bool)
            for dim, axis_map, _, _ in self._sides(axes_of[name]):
                new |= _along(axis_map.is_new, dim, new)
            grown[name] = new.reshape(like.shape)
        return grown


def add_split_noise(
    weight: Tensor, repeated: Mapping[int, AxisMap], ratio: float, generator: torch.Generator
) -> Tensor:
    """Noise that tells copies apart and cancels in every sum over them.

    Along each repeated dimension it is centred over the copies of a coordinate, so that a reader of
    equal copies is unchanged; its root mean square is `ratio` times the weight's.
    """
    for dim, axis_map in repeated.items():
        source = axis_map.source.to(weight.device)
        counts = torch.bincount(source[source >= 0])
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        noise = noise * _along(source >= 0, dim, weight)
        total = torch.zeros_like(noise).index_add(dim, source.clamp(min=0), noise)
        mean = total.index_select(dim, source.clamp(min=0))
        copies = counts[source.clamp(min=0)] * (source >= 0)
        is_copied = _along((copies > 1).double(), dim, weight)
        spread = _along((copies / (copies - 1).clamp(min=1)).sqrt(), dim, weight)
        centred = (noise - mean / _along(copies.clamp(min=1).double(), dim, weight)) * spread
        weight = weight + centred * is_copied * (ratio * weight.square().mean().sqrt())
    return weight


def _along(vector: Tensor, dim: int, like: Tensor) -> Tensor:
    """`vector` shaped to multiply dimension `dim` of `like`; floats take its dtype."""
    shape = [-1 if d == dim else 1 for d in range(like.ndim)]
    return vector.view(shape).to(like.device, like.dtype)


@dataclass(frozen=True)
class _Nothing(Transfer):
    """No growth at all: what a control does where others grow."""

    model: Transformer

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {**fresh, **small}

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return small

    @override
    def is_new(self) -> Weights:
        named = self.model.named_parameters()
        return {name: torch.zeros_like(p, dtype=torch.bool) for name, p in named}


@dataclass(frozen=True)
class Moments:
    """Adam's state by parameter name; `step` counts the updates that the moments average."""

    exp_avg: Weights
    exp_avg_sq: Weights
    step: dict[str, float]

    @classmethod
    def zeros(cls, model: Transformer) -> "Moments":
        """State of a model that was never updated."""
        named = dict(model.named_parameters())
        return cls(
            exp_avg={name: torch.zeros_like(p) for name, p in named.items()},
            exp_avg_sq={name: torch.zeros_like(p) for name, p in named.items()},
            step=dict.fromkeys(named, 0.0),
        )


@dataclass(frozen=True)
class Grown:
    """What growth hands to the next stage."""

    model: Transformer
    moments: Moments
    is_new: Weights
    """bool per parameter entry: not the first image of a small entry."""

    flops: float = 0.0
    """What growing cost."""


def grow(
    small: Transformer,
    moments: Moments,
    target: ModelConfig,
    operators: Sequence[GrowthOperator],
    policy: StatePolicy,
    resources: Resources,
) -> Grown:
    """Apply `operators` in order; each enlarges the sizes it grows.

    Args:
        small: trained model; left untouched, and no storage is shared with it.
        moments: its Adam state; left untouched.
        target: config of the model to return.
        operators: maps that together reach `target`.
        policy: what becomes of the moments.
        resources: randomness and data.

    Raises:
        GrowthError: `target` shrinks a size, or enlarges one that no operator grows.
    """
    check_reach(small.config, target, operators)
    state = Grown(
        small,
        moments,
        {n: torch.zeros_like(p, dtype=torch.bool) for n, p in small.named_parameters()},
    )
    for operator in operators:
        sizes = {name: target.size(name) for name in operator.grows if name in target.sizes()}
        middle = state.model.config.resized(sizes)
        if middle != state.model.config:
            state = _apply(
                state, operator.prepare(state.model, middle, resources), middle, policy, resources
            )
    if state.model is small:
        state = _apply(state, _Nothing(small), small.config, policy, resources)
    return state


def _apply(
    state: Grown,
    transfer: Transfer,
    target: ModelConfig,
    policy: StatePolicy,
    resources: Resources,
) -> Grown:
    model_class = resources.model_class or type(state.model)
    large = model_class(target, generator=resources.generator)
    large = large.to(device=state.model.device, dtype=state.model.embed.weight.dtype)
    with torch.no_grad():
        large.load_state_dict(transfer.weights(state.model.state_dict(), large.state_dict()))
    new = {name: mask.to(large.device) for name, mask in transfer.is_new().items()}
    first, second = {
        StatePolicy.RESET: (0, 0),
        StatePolicy.CARRY: (0, 0),
        StatePolicy.SCALED: (1, 2),
        StatePolicy.ASYMMETRIC: (0, 0),
    }[policy]

    def keep(name: str, moment: Tensor) -> Tensor:
        if policy is StatePolicy.RESET:
            return torch.zeros_like(moment)
        return moment.masked_fill(new[name] & (policy is StatePolicy.ASYMMETRIC), 0.0)

    exp_avg = transfer.moments(state.moments.exp_avg, first)
    exp_avg_sq = transfer.moments(state.moments.exp_avg_sq, second)
    exp_avg = {name: keep(name, moment) for name, moment in exp_avg.items()}
    exp_avg_sq = {name: keep(name, moment) for name, moment in exp_avg_sq.items()}
    like = dict(state.model.named_parameters())
    ages = {n: torch.full(like[n].shape, age) for n, age in state.moments.step.items()}
    aged = transfer.moments(ages, 0)
    step = {n: float(aged[n].max()) if bool(v.any()) else 0.0 for n, v in exp_avg_sq.items()}
    was_new = transfer.moments({n: mask.float() for n, mask in state.is_new.items()}, 0)
    is_new = {name: mask | was_new[name].bool() for name, mask in new.items()}
    return Grown(large, Moments(exp_avg, exp_avg_sq, step), is_new, state.flops + transfer.flops)


def check_reach(
    small: ModelConfig, target: ModelConfig, operators: Sequence[GrowthOperator]
) -> None:
    """Refuse a target that shrinks a size, enlarges one nobody grows, or is another variant.

    Raises:
        GrowthError: naming the size, both values and what the operators grow.
    """
    grows = sorted(frozenset[str]().union(*(operator.grows for operator in operators)))
    for name, new in vars(target).items():
        old = getattr(small, name)
        if new == old:
            continue
        if name not in target.sizes() or old is None:
            raise GrowthError(f"growth cannot change {name} from {old!r} to {new!r}")
        if new < old:
            raise GrowthError(f"cannot shrink {name} from {old} to {new}")
        if name not in grows:
            raise GrowthError(f"cannot grow {name} from {old} to {new}: this grows {grows}")
