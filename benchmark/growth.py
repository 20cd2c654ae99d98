"""How weights and optimizer state of a small model become those of a larger one.

An operator is a map on named axes. Shared code applies it to every tensor of the model and, by the
gradient rule, to both Adam moments: repeat a produced coordinate and each copy receives the share
of the gradient that its readers give it; repeat a contracted coordinate and every copy receives the
whole gradient although its weight is divided (chain rule; proved in tests/test_growth.py).
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal, Self, final

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
    """The only source of randomness; of the CPU, so that growth is the same on every device."""

    batches: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    """Training token ids, each (B, T + 1), for operators that learn their map."""

    model_class: type[Transformer] | None = None
    """Architecture of the large model; None for that of the small one."""

    n_micro: int = 1
    """Equal micro-batches to take a batch in, because memory is short."""


class Transfer(ABC):
    """One growth, with its random choices made: what happens to each tensor."""

    flops: float = 0.0
    """What making the choices cost; the bytes it read are counted by `Resources.batches`."""

    flops_masked: float = 0.0
    """What the masked half of attention would add to that; recorded beside the charge."""

    @abstractmethod
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        """Every large tensor.

        Args:
            small: tensors of the small model; may be returned, must not be changed.
            fresh: those of a freshly initialised large model that `needs_fresh` asks for; theirs
                to change and to return.
        """

    @abstractmethod
    def moments(self, small: Weights, power: int) -> Weights:
        """Large tensors that follow gradients ** `power`; power 0 repeats them unscaled."""

    @abstractmethod
    def is_new(self) -> Weights:
        """For every large parameter, which entries are not the first image of a small entry."""

    def needs_fresh(self, name: str) -> bool:
        """Whether `weights` reads this large tensor from `fresh`; others need not be drawn."""
        return True

    def first_images(self, small: Weights) -> Weights:
        """Large tensors that hold every small entry once; zero where `is_new` is true."""
        new, repeated = self.is_new(), dict(self.moments(small, 0))
        firsts: Weights = {}
        for name in list(repeated):  # one by one, to hold no more than needed
            moment = repeated.pop(name)
            firsts[name] = moment.masked_fill(new[name].to(moment.device), 0.0)
        return firsts

    def steps(self, small: "Moments") -> dict[str, float]:
        """How many updates each large tensor's moments average; of several sources the most."""
        ages = {n: torch.full_like(m, small.step[n]) for n, m in small.exp_avg.items()}
        return {name: float(age.max()) for name, age in self.moments(ages, 0).items()}


class GrowthOperator(ABC):
    """Maps a trained small model onto a larger one.

    Subclasses are frozen dataclasses whose fields are their hyperparameters. Most derive from
    `DepthOperator` or `WidthOperator`; `growbench check` holds them all to one contract.
    """

    grows: ClassVar[frozenset[str]]
    """Sizes this operator may enlarge; it leaves the others to its neighbours."""

    preserves_function: ClassVar[bool] = False
    """Whether large(x) == small(x) right after growth; the contract tests it both ways."""

    inexact_for: ClassVar[tuple[tuple[str, str, object], ...]] = ()
    """Exceptions from that claim: a size that grows, and a choice of the model with its value, such
    as ("d_model", "norm", "layernorm")."""

    def keeps_function(self, small: ModelConfig, large: ModelConfig) -> bool:
        """Whether exactness is claimed for this growth, in the sizes that the operator grows."""
        grown = {size for size in self.grows if getattr(large, size) != getattr(small, size)}
        return not grown or (
            self.preserves_function
            and not any(
                size in grown and getattr(small, choice) == value
                for size, choice, value in self.inexact_for
            )
        )

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
        n_small, n_large = small.config.n_layer, target.n_layer
        for layer in range(n_large):
            if not -1 <= (source := self.source(layer, n_small, n_large)) < n_small:
                raise GrowthError(
                    f"{type(self).__name__}.source starts block {layer} of n_layer={n_large} from "
                    f"block {source}; it must be from -1 to {n_small - 1}"
                )
        return _DepthTransfer(self, n_small, n_large, small.shell(target))


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
            adapted = self.operator.adapt(weight, axes) if is_new else weight
            # what was drawn is overwritten, so that no block is held twice
            grown[name] = weight.copy_(adapted) if origin is None else adapted
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
                grown[name] = small[origin]
        return grown

    @override
    def needs_fresh(self, name: str) -> bool:
        return self._origin(name)[0] is None

    @override
    def steps(self, small: "Moments") -> dict[str, float]:
        origins = {name: self._origin(name)[0] for name, _ in self.shell.named_parameters()}
        return {name: small.step[old] if old else 0.0 for name, old in origins.items()}

    @override
    def is_new(self) -> Weights:
        return {
            name: torch.full(like.shape, self._origin(name)[1], device="cpu")
            for name, like in self.shell.named_parameters()
        }


@dataclass(frozen=True, eq=False)
class AxisMap:
    """Where the coordinates of one widened axis come from; on the CPU, wherever the model is."""

    source: Tensor
    """int64 (new,): the small coordinate each large one repeats; -1 for one without a source."""

    share: Tensor
    """float64 (new,): how much of the sum over its source's copies a reader takes from this one."""

    @classmethod
    def evenly(cls, source: Tensor) -> "AxisMap":
        """Every copy of a coordinate is read with the same share, 1 / copies."""
        old = source[source >= 0]
        counts = torch.bincount(old, minlength=1).clamp(min=1)
        share = torch.ones(len(source), dtype=torch.float64, device="cpu")
        share[source >= 0] = 1.0 / counts[old].double()
        return cls(source, share)

    @cached_property
    def is_new(self) -> Tensor:
        """Which of the new coordinates, bool (new,), are not the first to repeat their source."""
        position = torch.arange(len(self.source), device="cpu")
        n_old = int(self.source.max()) + 1
        first = torch.full((n_old,), len(self.source), device="cpu").scatter_reduce(
            0, self.source.clamp(min=0), position.where(self.source >= 0, len(position)), "amin"
        )
        return (self.source < 0) | (position != first[self.source.clamp(min=0)])

    @cached_property
    def sourced(self) -> Tensor:
        """Positions of the coordinates that have a source."""
        return (self.source >= 0).nonzero()[:, 0]

    @cached_property
    def firsts(self) -> Tensor:
        """Positions of the first image of every old coordinate."""
        return (~self.is_new).nonzero()[:, 0]

    @property
    def has_copies(self) -> bool:
        """Whether any source is repeated."""
        return len(self.firsts) < len(self.sourced)

    @cached_property
    def is_doubled(self) -> bool:
        """Whether the second half of the coordinates repeats the first, which has no copies."""
        half = len(self.source) // 2
        swapped = torch.arange(len(self.source), device="cpu").roll(half)
        return torch.equal(self.next_copy, swapped) and half > 0

    @cached_property
    def next_copy(self) -> Tensor:
        """For each coordinate the next one with the same source, in a cycle; itself if alone."""
        following = torch.arange(len(self.source), device="cpu")
        order = self.sourced[self.source[self.sourced].argsort(stable=True)]
        _, counts = self.source[order].unique_consecutive(return_counts=True)
        for group in order.split(counts.tolist()):
            following[group] = group.roll(-1)
        return following


MOST_RUNS = 64
"""Beyond so many pieces, copying them one by one is slower than picking coordinates."""

ENTRIES_AT_ONCE = 2**17
"""Noise is made in pieces of this size, which stay in a processor's cache."""

Fill = Literal["zero", "fresh", "mean"]
Pick = Callable[[AxisMap], Tensor]
Factor = Callable[[Side, AxisMap], Tensor | None]


class WidthOperator(GrowthOperator):
    """Grows named axes by repeating coordinates, or by adding ones without a source.

    By default a coordinate without a source is zero on one side of each product and freshly
    initialised on the other, so that it changes nothing and can still learn.
    """

    grows = frozenset({"d_model", "n_head", "d_ff"})

    @abstractmethod
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        """Sources and shares of the `new` coordinates of an axis that had `old`."""

    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        """What a linear map or a table holds along coordinates of `axis` without a source.

        "mean" is the mean over all coordinates with one. Gains of such coordinates are fresh.
        """
        return "zero" if (axis == "d_model") == (side == "out") else "fresh"

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

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return WidthTransfer.of(self, small, target, resources)


@dataclass(frozen=True)
class WidthTransfer(Transfer):
    """What a `WidthOperator` does, tensor by tensor."""

    operator: WidthOperator
    maps: dict[str, AxisMap]
    small: ModelConfig
    shell: Transformer
    """The large model, without memory."""

    generator: torch.Generator

    @classmethod
    def of(
        cls, operator: WidthOperator, small: Transformer, target: ModelConfig, resources: Resources
    ) -> Self:
        """Make the random choices of growing `small` to `target`."""
        old, source = small.config, resources.generator
        maps = {
            axis: operator.axis_map(axis, old.size(axis), target.size(axis), source)
            for axis in sorted(operator.grows)
            if target.size(axis) > old.size(axis)
        }
        return cls(operator, maps, old, small.shell(target), source)

    @cached_property
    def axes(self) -> dict[str, Axes]:
        """Axes of every large tensor."""
        return self.shell.axes()

    def sides(self, name: str) -> list[tuple[int, str, Side, AxisMap]]:
        """Of every dimension of a tensor that grows: number, axis, side and map."""
        axes = self.axes[name]
        return [
            (dim, axis, "out" if dim < len(axes.out) else "into", self.maps[axis])
            for dim, axis in enumerate(axes.names)
            if axis in self.maps
        ]

    def repeated(self, name: str) -> dict[int, AxisMap]:
        """The contracted dimensions of a tensor along which coordinates are repeated."""
        return {
            dim: axis_map
            for dim, _, side, axis_map in self.sides(name)
            if side == "into" and axis_map.has_copies
        }

    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        """A large tensor, unflattened."""
        scale, kind = self.operator.gain_scale(self.small, self.shell.config), self.axes[name].kind
        if kind is Kind.CONSTANT:
            return small[name] * scale**2
        weight = self.image(name, small)
        if kind is Kind.GAIN and scale != 1:
            weight = weight * scale
        weight = self._fill(name, weight, fresh)
        if kind is Kind.MAP and (repeated := self.repeated(name)):
            weight = self.operator.perturb(weight, repeated, self.generator)
        return weight

    def image(self, name: str, small: Weights) -> Tensor:
        """A large tensor on the coordinates that have a source, before gains scale and noise."""
        return self._image(name, small[name], lambda m: m.sourced, _share_of_readers)

    def moment(self, name: str, small: Weights, power: int) -> Tensor:
        """A large moment, unflattened."""
        image = self._image(
            name,
            small[name],
            lambda m: m.sourced,
            lambda side, m: m.share**power if power and side == "out" else None,
        )
        if power and self.axes[name].kind is Kind.GAIN:
            image = image / self.operator.gain_scale(self.small, self.shell.config) ** power
        return self._among_zeros(name, image, lambda m: m.sourced)

    def _image(self, name: str, tensor: Tensor, pick: Pick, factor: Factor) -> Tensor:
        """The large tensor on the coordinates that `pick` chooses along every growing dimension.

        Contracted dimensions come first: while the tensor is small, scaling is cheap.
        """
        image = tensor.reshape(self.axes[name].shape(self.small))
        for dim, _, side, axis_map in reversed(self.sides(name)):
            chosen = pick(axis_map)
            taken, by = _take(image, dim, axis_map.source[chosen]), factor(side, axis_map)
            if by is not None and bool((by != 1).any()):
                is_view = _address(taken) == _address(image)
                taken = (taken.clone() if is_view else taken).mul_(along(by[chosen], dim, taken))
            image = taken
        return image

    def _fill(self, name: str, image: Tensor, fresh: Weights) -> Tensor:
        """`image` beside coordinates without a source."""
        gaps = self._gaps(name)
        if not gaps:
            return image
        if "fresh" in gaps.values():
            weight = fresh[name].view(self.axes[name].shape(self.shell.config))
            _place(image, weight, self._positions(name, lambda m: m.sourced))
        else:
            weight = self._among_zeros(name, image, lambda m: m.sourced)
        for dim, _, _, axis_map in self.sides(name):
            gap = (axis_map.source < 0).nonzero()[:, 0].to(weight.device)
            if gaps.get(dim) == "zero":
                for run in _runs(gap):
                    weight.narrow(dim, *run).zero_()
            elif gaps.get(dim) == "mean":
                mean = _take(weight, dim, axis_map.sourced).mean(dim, keepdim=True)
                weight.index_copy_(dim, gap, mean.repeat_interleave(len(gap), dim))
        return weight

    def _gaps(self, name: str) -> dict[int, Fill]:
        """What fills each dimension that has coordinates without a source."""
        is_gain = self.axes[name].kind is Kind.GAIN
        return {
            dim: "fresh" if is_gain else self.operator.fill(axis, side, self.small)
            for dim, axis, side, axis_map in self.sides(name)
            if len(axis_map.sourced) < len(axis_map.source)
        }

    def _among_zeros(self, name: str, image: Tensor, pick: Pick) -> Tensor:
        shape = self.axes[name].shape(self.shell.config)
        if image.shape == shape:
            return image
        zeros = image.new_zeros(shape)
        _place(image, zeros, self._positions(name, pick))
        return zeros

    def _positions(self, name: str, pick: Pick) -> dict[int, Tensor]:
        return {dim: pick(axis_map) for dim, _, _, axis_map in self.sides(name)}

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {
            name: self.weight(name, small, fresh).reshape(like.shape)
            for name, like in self.shell.state_dict().items()
        }

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return {
            name: self.moment(name, small, power).reshape(like.shape)
            for name, like in self.shell.named_parameters()
        }

    @override
    def first_images(self, small: Weights) -> Weights:
        grown: Weights = {}
        for name, like in self.shell.named_parameters():
            image = self._image(name, small[name], lambda m: m.firsts, lambda *_: None)
            grown[name] = self._among_zeros(name, image, lambda m: m.firsts).reshape(like.shape)
        return grown

    @override
    def steps(self, small: "Moments") -> dict[str, float]:
        return small.step

    @override
    def needs_fresh(self, name: str) -> bool:
        return "fresh" in self._gaps(name).values()

    @override
    def is_new(self) -> Weights:
        grown: Weights = {}
        for name, like in self.shell.named_parameters():
            shape = self.axes[name].shape(self.shell.config)
            new = torch.zeros([1] * len(shape), dtype=torch.bool, device="cpu")
            for dim, _, _, axis_map in self.sides(name):
                new = new | along(axis_map.is_new, dim, new)
            grown[name] = new.expand(shape).reshape(like.shape)
        return grown


def _share_of_readers(side: Side, axis_map: AxisMap) -> Tensor | None:
    return axis_map.share if side == "into" else None


def _place(block: Tensor, into: Tensor, positions: Mapping[int, Tensor]) -> None:
    """Write `block` at the given coordinates of `into`, in place."""
    if not positions:
        into.copy_(block)
        return
    (dim, index), *rest = positions.items()
    if torch.equal(index, torch.arange(len(index), device="cpu")):
        _place(block, into.narrow(dim, 0, len(index)), dict(rest))
    else:
        part = _take(into, dim, index)
        _place(block, part, dict(rest))
        into.index_copy_(dim, index.to(into.device), part)


def _take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select`, or a view or a few large copies where the index is made of long runs."""
    if int((index.diff() != 1).sum()) < MOST_RUNS:
        pieces = [tensor.narrow(dim, *run) for run in _runs(index)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    index = index.to(tensor.device)
    if dim == 0:
        return tensor.index_select(0, index)
    shape = [*tensor.shape[:dim], len(index), *tensor.shape[dim + 1 :]]
    taken, rows = tensor.new_empty(shape), tensor.flatten(0, dim - 1)
    n_rows = max(1, ENTRIES_AT_ONCE * len(rows) // taken.numel())
    for part, into in zip(rows.split(n_rows), taken.flatten(0, dim - 1).split(n_rows), strict=True):
        torch.index_select(part, 1, index, out=into)
    return taken


def _runs(index: Tensor) -> list[tuple[int, int]]:
    """First number and length of every piece of `index` that counts upwards by one."""
    starts = [0, *((index.diff() != 1).nonzero()[:, 0] + 1).tolist()]
    lengths = [end - start for start, end in pairwise([*starts, len(index)])]
    return list(zip(index[starts].tolist(), lengths, strict=True))


BYTE_STD = math.sqrt((256**2 - 1) / 12)


def _random_bytes(like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers from -127.5 to 127.5 in steps of one; random bits are what growing waits for most."""
    n_words = -(-like.numel() // 8)
    words = torch.empty(n_words, dtype=torch.int64, device="cpu")
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int8)[: like.numel()].view(like.shape).to(like).add_(0.5)


def add_split_noise(
    weight: Tensor, repeated: Mapping[int, AxisMap], ratio: float, generator: torch.Generator
) -> Tensor:
    """Noise that tells copies apart and cancels in every sum over them, added in place.

    Along each repeated dimension a reader of equal copies is unchanged; the noise's root mean
    square is `ratio` times the weight's. Of two copies one gains the random number that the other
    loses; each of more gets the difference of its own and the next one's, one without copies none.

    Args:
        weight: contiguous, unflattened; changed and returned.
        repeated: contracted dimensions along which coordinates are repeated.
        ratio: size of the noise.
        generator: source of randomness.
    """
    for dim, axis_map in repeated.items():
        scale = ratio * float(weight.detach().norm()) / math.sqrt(weight.numel()) / BYTE_STD
        rows = weight.view(-1, *weight.shape[dim:])
        n_rows, half = max(1, ENTRIES_AT_ONCE * len(rows) // weight.numel()), rows.shape[1] // 2
        for start in range(0, len(rows), n_rows):
            part = rows.narrow(0, start, min(n_rows, len(rows) - start))
            if axis_map.is_doubled:
                gains, loses = part.narrow(1, 0, half), part.narrow(1, half, half)
                number = _random_bytes(gains, generator)
                gains.add_(number, alpha=scale)
                loses.sub_(number, alpha=scale)
            else:
                number = _random_bytes(part, generator)
                number -= _take(number, 1, axis_map.next_copy)
                part.add_(number, alpha=scale / math.sqrt(2))
    return weight


def along(vector: Tensor, dim: int, like: Tensor) -> Tensor:
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

    flops_masked: float = 0.0
    """What the masked half of attention would add to that."""


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
    state = Grown(small, moments, {})
    for operator, middle in enlargements(small.config, target, operators):
        transfer = operator.prepare(state.model, middle, resources)
        state = _apply(state, transfer, middle, policy, resources)
    if state.model is small:
        state = _apply(state, _Nothing(small), small.config, policy, resources)
    return state


def enlargements(
    small: ModelConfig, target: ModelConfig, operators: Iterable[GrowthOperator]
) -> Iterator[tuple[GrowthOperator, ModelConfig]]:
    """The operators that enlarge something on the way to `target`, each with what it reaches."""
    for operator in operators:
        sizes = {name: target.size(name) for name in operator.grows if name in target.sizes()}
        if (middle := small.resized(sizes)) != small:
            yield operator, middle
            small = middle


@torch.no_grad()
def _apply(
    state: Grown,
    transfer: Transfer,
    target: ModelConfig,
    policy: StatePolicy,
    resources: Resources,
) -> Grown:
    small, moments = state.model.state_dict(), state.moments
    large = grown_model(state.model, transfer, target, resources)
    taken = _addresses(small, large.state_dict(), moments.exp_avg, moments.exp_avg_sq)
    if policy is StatePolicy.RESET:
        grown_moments = Moments.zeros(large)
    else:
        first, second = (1, 2) if policy is StatePolicy.SCALED else (0, 0)
        if policy is StatePolicy.ASYMMETRIC:
            exp_avg = transfer.first_images(moments.exp_avg)
            exp_avg_sq = transfer.first_images(moments.exp_avg_sq)
        else:
            exp_avg = transfer.moments(moments.exp_avg, first)
            exp_avg_sq = transfer.moments(moments.exp_avg_sq, second)
        exp_avg, exp_avg_sq = _own(exp_avg, taken), _own(exp_avg_sq, taken)
        steps = transfer.steps(moments)
        step = {n: steps[n] if bool(v.any()) else 0.0 for n, v in exp_avg_sq.items()}
        grown_moments = Moments(exp_avg, exp_avg_sq, step)
    is_new = {name: mask.to(large.device) for name, mask in transfer.is_new().items()}
    if any(bool(mask.any()) for mask in state.is_new.values()):
        was_new = transfer.moments({n: mask.float() for n, mask in state.is_new.items()}, 0)
        is_new = {name: mask | was_new[name].bool() for name, mask in is_new.items()}
    flops, masked = state.flops + transfer.flops, state.flops_masked + transfer.flops_masked
    return Grown(large, grown_moments, is_new, flops, masked)


@torch.no_grad()
def grown_model(
    small: Transformer, transfer: Transfer, target: ModelConfig, resources: Resources
) -> Transformer:
    """The large model: what it needs is drawn, and every parameter is moved into it uncopied."""
    large = (resources.model_class or type(small))(target)
    large.init_weights(resources.generator, transfer.needs_fresh)
    like, parameters = small.embed.weight, dict(large.named_parameters())
    for name, parameter in parameters.items():
        if not transfer.needs_fresh(name):  # free its memory, growth brings other
            parameter.data = parameter.new_empty(()).expand_as(parameter)
    state = large.state_dict()
    fresh = {
        name: tensor.to(like.device, like.dtype if name in parameters else tensor.dtype)
        for name, tensor in state.items()
        if transfer.needs_fresh(name)
    }
    old = small.state_dict()
    weights = _own(transfer.weights(old, fresh), _addresses(old))
    for name in state.keys() & weights.keys():
        if name not in parameters:
            weights[name] = state[name].copy_(weights[name])
    large.load_state_dict(weights, assign=True)
    return large.to(like.device)


def _own(tensors: Weights, taken: set[int]) -> Weights:
    """The tensors, copied where they are memory that is `taken`; takes what they occupy."""
    owned: Weights = {}
    for name, tensor in tensors.items():
        is_whole = tensor.is_contiguous() and _address(tensor) not in taken
        owned[name] = tensor if is_whole else tensor.clone(memory_format=torch.contiguous_format)
        taken.add(_address(owned[name]))
    return owned


def _addresses(*groups: Weights) -> set[int]:
    return {_address(tensor) for group in groups for tensor in group.values()}


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def grown_sizes(operators: Iterable[GrowthOperator]) -> frozenset[str]:
    """Sizes that some of the operators may enlarge.

    Raises:
        GrowthError: an operator does not say what it grows, or names no size of a model.
    """
    known, grows = ModelConfig.size_names(), frozenset[str]()
    for operator in operators:
        stated: frozenset[str] = getattr(operator, "grows", frozenset())
        if not stated or not known.issuperset(stated):
            raise GrowthError(
                f"{type(operator).__name__}.grows must name some of {sorted(known)}, "
                f"got {sorted(stated) or 'nothing'}"
            )
        grows |= stated
    return grows


def check_reach(
    small: ModelConfig, target: ModelConfig, operators: Sequence[GrowthOperator]
) -> None:
    """Refuse a target that shrinks a size, enlarges one nobody grows, or is another variant.

    Raises:
        GrowthError: naming the size, both values and what the operators grow.
    """
    grows = sorted(grown_sizes(operators))
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
