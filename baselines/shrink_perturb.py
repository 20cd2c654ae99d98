"""Shrink, zero-pad, perturb (Mallik et al. 2024, arXiv:2411.07340, and 2026, arXiv:2605.13405).

W' = shrink * pad0(W) + noise * init: old weights, made smaller, in the corner of a tensor of
zeros, plus a freshly drawn large model. Nothing is preserved; the authors hold that nothing need
be, and that a factor of two is the one to rely on. Abstracts were read; of the code only the
experiments' wrapper (Neeratyoy/warmstarting_exps, commit 4a94293), which names both factors and has
no rule.

After growth: the wrapper trains the large model with an optimizer and a warm-up of its own; so
here.

Deviations: both factors' values could not be read, so they are ours; initial weights are the
benchmark's, of variance 1 / fan-in, where theirs follow muP, and so are rates; old gains of norms
are kept and new ones are one, for a sum of two gains would only rescale what follows.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import padded
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import (
    AxisMap,
    StatePolicy,
    Weights,
    WidthOperator,
    WidthTransfer,
)
from benchmark.model import Kind
from benchmark.training.optim import Rewarm


class _Sum(WidthTransfer):
    operator: "Perturbed"

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        if self.axes[name].kind not in (Kind.MAP, Kind.TABLE):
            return super().weight(name, small, fresh)
        old = self.image(name, small)
        large = fresh[name].view(self.axes[name].shape(self.shell.config)).mul_(self.operator.noise)
        large[tuple(slice(size) for size in old.shape)].add_(old, alpha=self.operator.shrink)
        return large

    @override
    def needs_fresh(self, name: str) -> bool:
        return True


@dataclass(frozen=True)
class Perturbed(WidthOperator):
    """The small model in a corner, shrunk, plus a fresh large one."""

    transfer = _Sum

    shrink: float = 0.4
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.shrink < math.inf and 0 < self.noise < math.inf):
            raise ConfigError(f"shrink and noise must be above 0 and finite, got {self}")

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(padded(old, new))


class ShrinkPerturb(Baseline):
    """Grow widths to any size, keeping a shadow of the small model."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(self, shrink: float = 0.4, noise: float = 1.0) -> None:
        super().__init__()
        self.operators = (Perturbed(shrink, noise),)
