"""How learning rates and initial weights follow a model's sizes, tensor by tensor."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from benchmark.model.transformer import Axes, Kind, ModelConfig, Transformer

Scale = Literal["none", "by_size", "mup"]


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Factors on a suite's peak rate and on initial weights, by the axes of each tensor.

    "by_size": all rates fall with a power of d_model. "mup": the maximal update parametrisation for
    Adam (Yang et al. 2022, arXiv:2203.03466, table 3), under which the best rate is to stay where
    it is while widths grow: the rate of a linear map falls with its fan-in, and the head starts
    with a standard deviation of 1 / fan-in, not of its root. Attention needs no factor, as the
    size of a head is fixed.
    """

    scale: Scale = "none"
    base: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the suite's target."""

    width: float = 1.0
    """d_model at which the peak rate holds as it is, over that of `base`."""

    power: float = 0.0
    """Of d_model, for "by_size"."""

    def rate(self, axes: Axes, config: ModelConfig) -> float:
        """Factor on the learning rate of a tensor.

        Args:
            axes: of the tensor.
            config: sizes of its model.

        Returns:
            1 at the width where the peak holds.
        """
        if self.scale == "by_size":
            return (self.width * self.base.d_model / config.d_model) ** self.power
        if self.scale == "mup" and axes.kind is Kind.MAP:
            return self.width * _fan_in(axes, self.base) / _fan_in(axes, config)
        return 1.0

    @torch.no_grad()
    def scale_initial(
        self, model: Transformer, needed: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Bring weights that were just drawn to the size they are to have, in place.

        Args:
            model: whose weights were drawn by `Transformer.init_weights`.
            needed: names of the tensors that were.
        """
        for name, axes in model.axes().items():
            if self.scale == "mup" and is_head(axes) and needed(name):
                model.get_parameter(name).mul_(math.sqrt(self.rate(axes, model.config)))


def is_head(axes: Axes) -> bool:
    """Whether a tensor is the map to logits."""
    return axes.kind is Kind.MAP and "vocab_size" in axes.out


def _fan_in(axes: Axes, config: ModelConfig) -> int:
    return math.prod(config.size(axis) for axis in axes.into)
