"""Growth of named axes, tensor by tensor: repeated coordinates, and ones without a source."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.growth.axis_map import AxisMap, address, along, consecutive_runs, place, take
from benchmark.growth.operator import GrowthOperator, Moments, Resources, Side, Transfer, Weights
from benchmark.model.transformer import Axes, Kind, ModelConfig, Transformer

Fill = Literal["zero", "fresh", "mean"]
Pick = Callable[[AxisMap], Tensor]
Factor = Callable[[Side, AxisMap], Tensor | None]


@dataclass(frozen=True)
class WidthTransfer(Transfer):
    """What a `WidthOperator` does, tensor by tensor."""

    operator: "WidthOperator"
    maps: dict[str, AxisMap]
    small: ModelConfig
    shell: Transformer
    """The large model, without memory."""

    generator: torch.Generator

    @classmethod
    def of(
        cls,
        operator: "WidthOperator",
        small: Transformer,
        target: ModelConfig,
        resources: Resources,
    ) -> Self:
        """Make the random choices of growing `small` to `target`."""
        old, source = small.config, resources.generator
        maps = {
            axis: operator.axis_map(axis, old.size(axis), target.size(axis), source)
            for axis in sorted(operator.grows & target.sizes().keys())
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
        """A large tensor.

        Args:
            name: its key in `state_dict`.
            small: tensors of the small model.
            fresh: of a new large model, those that `needs_fresh`.

        Returns:
            Of a dimension for each of its axes; `weights` flattens it.
        """
        kind = self.axes[name].kind
        if kind is Kind.CONSTANT:
            return small[name] * self._gain_scale**2
        weight = self.image(name, small)
        if self._has_scaled_gain(name):
            weight = weight * self._gain_scale
        weight = self._fill(name, weight, fresh)
        if kind is Kind.MAP and (repeated := self.repeated(name)):
            weight = self.operator.perturb(weight, repeated, self.generator)
        return weight

    @cached_property
    def _gain_scale(self) -> float:
        return self.operator.gain_scale(self.small, self.shell.config)

    def _has_scaled_gain(self, name: str) -> bool:
        """Whether a tensor scales as the gains of norms over d_model do, and these change."""
        axes = self.axes[name]
        is_gain = axes.kind is Kind.GAIN and "d_model" in axes.names
        return (is_gain or axes.shares_eps) and self._gain_scale != 1

    def changes(self, name: str) -> bool:
        """Whether a large tensor is another than the small one of its name."""
        return bool(self.sides(name)) or self._has_scaled_gain(name) or self.needs_fresh(name)

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
        if power and self._has_scaled_gain(name):
            image = image / self._gain_scale**power
        return self._among_zeros(name, image, lambda m: m.sourced)

    def _image(self, name: str, tensor: Tensor, pick: Pick, factor: Factor) -> Tensor:
        """The large tensor on the coordinates that `pick` chooses along every growing dimension.

        Contracted dimensions come first: while the tensor is small, scaling is cheap.

        Returns:
            Of a dimension for each axis.
        """
        image = tensor.reshape(self.axes[name].shape(self.small))
        for dim, _, side, axis_map in reversed(self.sides(name)):
            chosen = pick(axis_map)
            taken, by = take(image, dim, axis_map.source[chosen]), factor(side, axis_map)
            if by is not None and bool((by != 1).any()):
                is_view = address(taken) == address(image)
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
            place(image, weight, self._positions(name, lambda m: m.sourced))
        else:
            weight = self._among_zeros(name, image, lambda m: m.sourced)
        for dim, _, _, axis_map in self.sides(name):
            gap = (axis_map.source < 0).nonzero()[:, 0].to(weight.device)
            if gaps.get(dim) == "zero":
                for run in consecutive_runs(gap):
                    weight.narrow(dim, *run).zero_()
            elif gaps.get(dim) == "mean":
                mean = take(weight, dim, axis_map.sourced).mean(dim, keepdim=True)
                weight.index_copy_(dim, gap, mean.repeat_interleave(len(gap), dim))
        return weight

    def _gaps(self, name: str) -> dict[int, Fill]:
        """What fills each dimension that has coordinates without a source."""
        of_norms: dict[Kind, Fill] = {Kind.GAIN: "fresh", Kind.SHIFT: "zero"}
        of_norm = of_norms.get(self.axes[name].kind)
        return {
            dim: of_norm or self.operator.fill(axis, side, self.small)
            for dim, axis, side, axis_map in self.sides(name)
            if len(axis_map.sourced) < len(axis_map.source)
        }

    def _among_zeros(self, name: str, image: Tensor, pick: Pick) -> Tensor:
        shape = self.axes[name].shape(self.shell.config)
        if image.shape == shape:
            return image
        zeros = image.new_zeros(shape)
        place(image, zeros, self._positions(name, pick))
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


class WidthOperator(GrowthOperator):
    """Grows named axes by repeating coordinates, or by adding ones without a source.

    By default a coordinate without a source is zero on one side of each product and freshly
    initialised on the other, so that it changes nothing and can still learn.
    """

    grows = frozenset({"d_model", "n_head", "d_ff"})

    transfer: ClassVar[type[WidthTransfer]] = WidthTransfer
    """What is done tensor by tensor, where a rule is not of coordinates alone."""

    @abstractmethod
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        """Where the coordinates of a larger axis come from.

        Args:
            axis: its name, such as "d_model".
            old: its length in the small model.
            new: its length in the large one.
            generator: source of randomness.

        Raises:
            GrowthError: this operator cannot grow the axis so.
        """

    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        """What a linear map or a table holds along coordinates without a source.

        Args:
            axis: along which they are.
            side: whether the tensor produces the axis ("out") or sums over it ("into").
            small: sizes before growth.

        Returns:
            "zero", "fresh", or "mean": that over all coordinates with a source. Gains are fresh.
        """
        return "zero" if (axis == "d_model") == (side == "out") else "fresh"

    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        """Factor on the gain of every norm over d_model; its square scales that norm's epsilon."""
        return 1.0

    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        """Break the symmetry between copies in a linear map.

        Args:
            weight: grown map, unflattened; may be changed in place.
            repeated: the contracted dimensions along which coordinates are repeated.
            generator: source of randomness.

        Returns:
            The map, of the same shape.
        """
        return weight

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return self.transfer.of(self, small, target, resources)


def _share_of_readers(side: Side, axis_map: AxisMap) -> Tensor | None:
    return axis_map.share if side == "into" else None
