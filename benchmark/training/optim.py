"""How every model of every method is optimised: one AdamW, one learning rate over the budget."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from benchmark.base.annotations import In, NotNegative, Positive, Share
from benchmark.base.errors import ConfigError
from benchmark.growth.operator import Moments, Weights
from benchmark.model.transformer import Kind, Transformer


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019); decay applies to matrices only."""

    beta1: Annotated[float, In("[0, 1)")] = 0.9
    beta2: Annotated[float, In("[0, 1)")] = 0.95
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.1
    clip: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class LearningRateConfig:
    """Warm-up, constant, linear decay to zero (WSD), over the spent fraction of the budget."""

    peak: Positive = 6e-3
    warmup: Annotated[float, In("(0, 1)")] = 0.02
    """Length of the warm-up as a fraction of the suite's C*, the same for shorter runs."""

    decay: Share = 0.2
    """Length of the decay as a fraction of the run's own budget."""


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """The learning rate as a function of the FLOPs spent, in absolute FLOPs.

    A stage that ends before the decay starts has none: runs of different budgets share it.
    """

    peak: float
    warmup_flops: float
    decay: tuple[float, float] | None
    """Where the decay to zero starts and ends."""

    def at(self, flops: float) -> float:
        """Learning rate when `flops` are spent."""
        rate = self.peak * min(1.0, flops / self.warmup_flops)
        if self.decay is None:
            return rate
        start, end = self.decay
        return rate * min(1.0, max(0.0, (end - flops) / (end - start)))


@dataclass(frozen=True, kw_only=True)
class Rewarm:
    """The learning rate after growth: a factor that ramps from `start` to `ratio`, then stays."""

    which: str = "none"
    """Whose rate: "none", "all" or "new" (only entries that are not the first image of an old one;
    SPARKLING, arXiv:2602.02472)."""

    start: float = 0.0
    ratio: float = 1.0
    length: float = 0.02
    """Of the ramp, as a fraction of the suite's C*."""

    ratios: list[float] = field(default_factory=list[float])
    """`ratio` after the first, the second, ... growth, where they differ; further ones keep the
    last."""

    def __post_init__(self) -> None:
        if self.which not in ("none", "all", "new"):
            raise ConfigError(f"rewarm.which must be none, all or new, got {self.which!r}")
        positive = (self.ratio, self.length, *self.ratios)
        if not (0 <= self.start < math.inf and all(0 < x < math.inf for x in positive)):
            raise ConfigError(
                f"rewarm needs start >= 0, ratios > 0 and length > 0, all finite, got {self}"
            )

    def after(self, n_growths: int) -> "Rewarm":
        """What the last of this many growths begins."""
        if not self.ratios:
            return self
        return replace(self, ratio=self.ratios[: max(1, n_growths)][-1], ratios=[])

    def factor(self, flops_since: float, budget_flops: float) -> float:
        """Factor on the rate `flops_since` growth."""
        done = min(1.0, flops_since / (self.length * budget_flops))
        return self.start + (self.ratio - self.start) * done


def build_optimizer(
    model: Transformer, config: OptimizerConfig, moments: Moments
) -> torch.optim.AdamW:
    """Fused AdamW over two groups, matrices and gains, that continues from `moments`.

    It updates the tensors of `moments` in place, as a copy would take 8 bytes per parameter more.
    Parameters without gradient are in neither, and their moments wait.
    """
    kinds = {name: axes.kind for name, axes in model.axes().items()}
    named = dict(model.named_parameters())
    learning = [name for name, parameter in named.items() if parameter.requires_grad]
    gains = [name for name in learning if kinds[name] is Kind.GAIN]
    matrices = [name for name in learning if kinds[name] is not Kind.GAIN]
    optimizer = torch.optim.AdamW(
        [
            {"params": [named[name] for name in matrices], "weight_decay": config.weight_decay},
            {"params": [named[name] for name in gains], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    for name, parameter in named.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(moments.step[name], device=parameter.device),
            "exp_avg": moments.exp_avg[name].to(parameter),
            "exp_avg_sq": moments.exp_avg_sq[name].to(parameter),
        }
    return optimizer


@torch.no_grad()
def clipped_step(optimizer: torch.optim.AdamW, clip: float) -> None:
    """Clip the norm of all gradients, take a step with them, drop them.

    What `clip_grad_norm_`, a fused AdamW's `step` and `zero_grad` do, without what they look up
    anew at every step (ADR 0018).
    """
    groups = [
        (group, parameters)
        for group in optimizer.param_groups
        if (parameters := [p for p in group["params"] if p.grad is not None])
    ]
    _clip([p.grad for _, parameters in groups for p in parameters], clip)
    for group, parameters in groups:
        states = [optimizer.state[parameter] for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None


def _clip(gradients: list[Tensor], clip: float) -> None:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp_(max=1.0))


def moments_of(model: Transformer, optimizer: torch.optim.Optimizer) -> Moments:
    """Adam's state by parameter name."""
    state = {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}
    return Moments(
        exp_avg={name: entry["exp_avg"] for name, entry in state.items()},
        exp_avg_sq={name: entry["exp_avg_sq"] for name, entry in state.items()},
        step={name: float(entry["step"]) for name, entry in state.items()},
    )


@contextmanager
def scaled_update(model: Transformer, is_new: Weights, factor: float) -> Iterator[None]:
    """Multiply what happens to new entries inside the block by `factor`; old ones are untouched."""
    before: dict[str, Tensor] = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if name in is_new
    }
    yield
    with torch.no_grad():
        for name, old in before.items():
            parameter = model.get_parameter(name)
            scaled = torch.lerp(old, parameter, factor)
            parameter.copy_(torch.where(is_new[name], scaled, parameter))
