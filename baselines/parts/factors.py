"""The factors of a map from small to large weights: what they are called and where they start.

Initial values are those of LiGO's released code (VITA-Group/LiGO, commit 68e657d): a matrix keeps
old coordinates and adds new ones, a blend of layers is close to a copy of one.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.model import FixedAxis, Kind, ModelConfig, Transformer

CHOICES = {"rows": ("random", "selected"), "order": ("whole", "interleaved")}
NOISE = 0.03


@dataclass(frozen=True, kw_only=True)
class InitialFactors:
    """How to draw the factors.

    Args:
        rows: a new coordinate starts as a "random" mean of all old ones, or as a "selected" one.
        order: large layers start close to repeating the "whole" stack, or each layer "interleaved".
    """

    rows: str = "random"
    order: str = "whole"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")

    def draw(
        self, small: Transformer, target: ModelConfig, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Factors of what grows, float64 on the CPU, named as `FactorisedMap` wants them."""
        factors: dict[str, Tensor] = {}
        for axis, count in {"d_model": 1, "d_ff": 1, "n_head": target.qkv.length}.items():
            old, new = flat_size(axis, small.config), flat_size(axis, target)
            if new > old:
                drawn = [self._matrix(old, new, generator) for _ in range(count)]
                factors[axis] = torch.stack(drawn) if count > 1 else drawn[0]
        old, new = small.config.n_layer, target.n_layer
        for name, axes in small.axes().items():
            if new > old and name.startswith("blocks.0.") and axes.kind is not Kind.CONSTANT:
                parts = [axis.length for axis in axes.out if isinstance(axis, FixedAxis)]
                factors[kind_of(name)] = self._blend(parts, old, new, generator)
        return factors

    def _matrix(self, old: int, new: int, generator: torch.Generator) -> Tensor:
        identity = torch.eye(old, dtype=torch.float64, device="cpu")
        if self.rows == "selected":
            drawn = identity[torch.randint(old, (new - old,), generator=generator, device="cpu")]
        else:
            drawn = _random(new - old, old, generator=generator)
        return torch.cat((identity, drawn / drawn.sum(1, keepdim=True)))

    def _blend(self, parts: list[int], old: int, new: int, generator: torch.Generator) -> Tensor:
        layer = torch.arange(new, device="cpu")
        source = layer % old if self.order == "whole" else layer * old // new
        noise = _random(*parts, new, old, generator=generator)
        blend = torch.eye(old, dtype=torch.float64, device="cpu")[source] + NOISE * noise
        return blend / blend.sum(-1, keepdim=True)


def _random(*shape: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers from 0 to 1."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")


def kind_of(name: str) -> str:
    """Name of a tensor with the number of its block, if it is in one, replaced by a star."""
    return re.sub(r"^blocks\.\d+\.", "blocks.*.", name)


def flat_size(axis: str, config: ModelConfig) -> int:
    """Length of an axis where n_head stands for all coordinates of all heads."""
    return config.n_head * config.d_head if axis == "n_head" else config.size(axis)
