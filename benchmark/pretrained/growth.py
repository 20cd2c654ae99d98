"""A method's operators, applied to the tensors of a checkpoint one after the other.

Each step is a mapping from names to large tensors that asks the step below for small ones, down to
the files: what a tensor needs is read when it is asked for, and nothing is kept. Random numbers
come from a stream of each tensor's own, so the order of asking does not matter.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig
from benchmark.base.seeding import generator, stream_seed
from benchmark.growth import DepthOperator, GrowthOperator, Resources, Weights, WidthOperator
from benchmark.growth.axis_map import AxisMap
from benchmark.growth.depth import DepthTransfer
from benchmark.growth.grow import check_reach, enlargements
from benchmark.growth.width import WidthTransfer
from benchmark.model.transformer import Kind, ModelConfig, Transformer
from benchmark.plan.config import load_method
from benchmark.plan.guard import build_method
from benchmark.pretrained.architecture import Layout


class Asked(dict[str, Tensor]):
    """Tensors that are made whenever they are asked for.

    Args:
        make: a tensor by its name.
        has: whether there is one.
    """

    def __init__(
        self, make: Callable[[str], Tensor], has: Callable[[str], bool] = lambda _: True
    ) -> None:
        super().__init__()
        self.make, self.has = make, has

    def __missing__(self, name: str) -> Tensor:
        return self.make(name)

    @override
    def __contains__(self, name: object) -> bool:
        return self.has(str(name))


@dataclass(frozen=True)
class Step:
    """One operator on the way, with its random choices made."""

    operator: GrowthOperator
    transfer: WidthTransfer | DepthTransfer
    small: ModelConfig
    large: ModelConfig
    generator: torch.Generator
    seed: int
    init_std: float
    n_extra: int = 0
    """Coordinates along the first axis to leave out of what the operator gives."""

    def weight(self, name: str, below: Weights, dtype: torch.dtype) -> Tensor:
        """A large tensor: at least of precision `dtype` if it is computed, else as it was."""
        transfer = self.transfer
        if name not in transfer.axes:  # a buffer, which has no axes
            return below[self.origin(name)]
        self.generator.manual_seed(stream_seed(self.seed, "noise", name))
        fresh = Asked(lambda wanted: self._fresh(wanted, dtype))
        if isinstance(transfer, DepthTransfer):
            return transfer.weight(name, below, fresh)
        if not transfer.changes(name):
            return below[name]
        if self._only_copies(transfer, name):
            return transfer.weight(name, below, fresh)[self.n_extra :]
        wide = Asked(lambda n: below[n].to(dtype), below.__contains__)
        return transfer.weight(name, wide, fresh)[self.n_extra :]

    def _only_copies(self, transfer: WidthTransfer, name: str) -> bool:
        """Whether every entry of a widened tensor is one of the small tensor's."""
        axes, sides = transfer.axes[name], transfer.sides(name)
        return (
            axes.kind in (Kind.MAP, Kind.TABLE)
            and not axes.shares_eps
            and _by_coordinates(transfer)
            and all(side == "out" and bool((of.source >= 0).all()) for *_, side, of in sides)
        )

    def splits(self, axis: str, *, is_out: bool) -> bool:
        """Whether what has this axis first can be grown some of its coordinates at a time."""
        transfer = self.transfer
        if transfer.shell.by_query and axis == "n_head":  # here another axis has this name
            return False
        if isinstance(transfer, DepthTransfer) or axis not in transfer.maps:
            return True
        is_mean = transfer.operator.fill(axis, "out", self.small) == "mean"
        return is_out and _by_coordinates(transfer) and not is_mean

    def some(self, axis: str, index: Tensor) -> tuple["Step", Tensor]:
        """The step for some coordinates of an axis, and the small ones that these start from."""
        below, n_extra, changed = index, 0, dict[str, Any]()
        if isinstance(self.transfer, WidthTransfer):
            changed["maps"] = maps = dict(self.transfer.maps)
            if axis in maps:
                if not (is_old := maps[axis].source[index] >= 0).any():
                    # operators want at least one coordinate with a source; it is dropped again
                    n_extra, index = 1, torch.cat((maps[axis].sourced[:1], index))
                    is_old = maps[axis].source[index] >= 0
                below = maps[axis].source[index][is_old]
                numbers = torch.where(is_old, is_old.cumsum(0) - 1, -1)
                maps[axis] = AxisMap(numbers, maps[axis].share[index])
            changed["small"] = self.small.resized({axis: len(below)})
        large = self.large.resized({axis: len(index)})
        transfer = replace(self.transfer, shell=self.transfer.shell.shell(large), **changed)
        seed = stream_seed(self.seed, "some", int(index[-1]))
        return replace(self, transfer=transfer, large=large, seed=seed, n_extra=n_extra), below

    def _fresh(self, name: str, dtype: torch.dtype) -> Tensor:
        """A new tensor as transformers draws it: maps and tables normal, gains one, biases zero."""
        axes = self.transfer.axes[name]
        shape = axes.shape(self.large)
        if axes.kind is Kind.GAIN:
            return torch.ones(shape, dtype=dtype)
        if axes.kind is Kind.SHIFT or (axes.kind is Kind.MAP and not axes.into):
            return torch.zeros(shape, dtype=dtype)
        own = generator(self.seed, "fresh", name)
        return torch.empty(shape, dtype=dtype).normal_(std=self.init_std, generator=own)

    def moment(self, name: str, below: Weights, power: int) -> Tensor:
        """A large moment that follows this power of the gradient."""
        if isinstance(self.transfer, WidthTransfer):
            return self.transfer.moment(name, below, power)
        origin = self.transfer.inherited(name)
        return below[self.origin(name)].mul(0) if origin is None else below[origin]

    def origin(self, name: str) -> str:
        """Small tensor that a large one starts from; the first block's if from none."""
        if isinstance(self.transfer, WidthTransfer):
            return name
        origin = self.transfer.origin(name)[0]
        return re.sub(r"^blocks\.\d+", "blocks.0", name) if origin is None else origin

    @property
    def is_exact(self) -> bool:
        """Whether the operator claims that this step keeps the function."""
        return self.operator.keeps_function(self.small, self.large)


@dataclass(frozen=True)
class Growth:
    """What becomes of each tensor between two sizes."""

    layout: Layout
    large: ModelConfig
    operators: tuple[GrowthOperator, ...]
    seed: int

    @cached_property
    def steps(self) -> list[Step]:
        """The steps of the growth; queries within their groups grow last.

        Raises:
            GrowthError: the operators cannot reach the size.
        """
        small = self.layout.config
        middle = replace(self.large, n_query=small.n_query)
        steps = list(self._steps(small, middle, by_query=False))
        # the same sizes with what operators call heads and queries exchanged
        exchanged = (replace(c, n_head=c.n_query, n_query=c.n_head) for c in (middle, self.large))
        return [*steps, *self._steps(*exchanged, by_query=True)]

    def _steps(self, small: ModelConfig, large: ModelConfig, *, by_query: bool) -> Iterator[Step]:
        check_reach(small, large, self.operators)
        for i, (operator, middle) in enumerate(enlargements(small, large, self.operators)):
            source = generator(self.seed, "maps", i, int(by_query))
            outline = self.layout.outline(small, by_query=by_query)
            transfer = operator.prepare(outline, middle, Resources(source))
            assert isinstance(transfer, WidthTransfer | DepthTransfer)
            std = self.layout.value("initializer_range") or 0.02
            seed = stream_seed(self.seed, "tensors", i, int(by_query))
            yield Step(operator, transfer, small, middle, source, seed, float(std))
            small = middle

    def some(self, axis: str, start: int, end: int) -> tuple[list[Step], Tensor]:
        """The steps for some coordinates of an axis, and the small ones that these start from."""
        steps, index = list[Step](), torch.arange(start, end)
        for step in reversed(self.steps):
            restricted, index = step.some(axis, index)
            steps.insert(0, restricted)
        return steps, index

    def moments(self, small: Weights, power: int) -> Weights:
        """Every large moment, when it is asked for."""
        return through(self.steps, small, lambda step, below, name: step.moment(name, below, power))

    def origin(self, name: str) -> str:
        """The tensor of the checkpoint that a large one starts from."""
        for step in reversed(self.steps):
            name = step.origin(name)
        return name

    @property
    def eps_scale(self) -> float:
        """Factor on the epsilon of norms over d_model."""
        scale = 1.0
        for step in self.steps:
            if isinstance(step.operator, WidthOperator):
                scale *= step.operator.gain_scale(step.small, step.large) ** 2
        return scale

    def sources(self) -> list[int]:
        """Number of the small block that each large one starts from."""
        names = [self.origin(f"blocks.{layer}.any") for layer in range(self.large.n_layer)]
        return [int(name.split(".")[1]) for name in names]


def through(
    steps: list[Step], small: Weights, grow: Callable[[Step, Weights, str], Tensor]
) -> Weights:
    """Every large tensor, when it is asked for, from small ones by what `grow` does at a step."""
    for step in steps:
        small = Asked(partial(grow, step, small), step.transfer.axes.__contains__)
    return small


def _by_coordinates(transfer: WidthTransfer) -> bool:
    """Whether tensors have no rule of the operator's own."""
    own, usual = type(transfer), WidthTransfer
    return (own.weight, own.image) == (usual.weight, usual.image)


def closed_form(method: str, arguments: dict[str, object]) -> tuple[GrowthOperator, ...]:
    """The operators of a method that computes each large tensor from the small ones.

    Args:
        method: a name in configs/method, a YAML file, or "package.module:Class".
        arguments: of its class, over those of the file.

    Raises:
        ConfigError: there is no such method, or it learns, masks or needs an architecture.
    """
    if ":" in method and not method.endswith((".yaml", ".yml")):
        plugin = PluginConfig(target=method, args=dict(arguments))
    else:
        config = load_method(method)
        plugin = PluginConfig(target=config.target, args={**config.args, **arguments})
    baseline = build_method(plugin, "method")
    if baseline.model_class is not Transformer or baseline.source_class is not None:
        named = baseline.model_class.__name__
        raise ConfigError(f"method {method} grows a {named}, an architecture of its own")
    for operator in baseline.operators:
        if not isinstance(operator, WidthOperator | DepthOperator):
            raise ConfigError(
                f"method {method}: {type(operator).__name__} learns or chooses by training; what "
                "grows a checkpoint computes each tensor from those that are there"
            )
    if not baseline.operators:
        raise ConfigError(f"method {method} grows nothing")
    return baseline.operators
