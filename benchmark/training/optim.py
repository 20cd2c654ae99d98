"""How every model of every method of a suite is optimised, and its learning rate over the budget.

The optimizer is AdamW, or another that the suite names; growth carries the state of either.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from benchmark.base.annotations import Count, In, NotNegative, Positive, Share
from benchmark.base.digest import code
from benchmark.base.errors import ConfigError
from benchmark.base.plugins import failures, import_class
from benchmark.growth.operator import ADAM, Moments, Weights
from benchmark.model.size_rule import Scale, SizeRule, is_head
from benchmark.model.transformer import Axes, FixedAxis, Kind, ModelConfig, Transformer


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) or another; decay applies to matrices only."""

    target: str = ""
    """Another optimizer, a subclass of `Optimizer`, as "package.module:Class"; empty for AdamW."""

    args: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of that class, beside the learning rate and the decay."""

    beta1: Annotated[float, In("[0, 1)")] = 0.9
    beta2: Annotated[float, In("[0, 1)")] = 0.95
    eps: Positive = 1e-8
    """As `beta1` and `beta2`, of AdamW alone."""

    weight_decay: NotNegative = 0.1
    clip: Positive = 1.0


class Optimizer(torch.optim.Optimizer):
    """Base of an optimizer that a suite may name instead of AdamW.

    It is built as `Class(groups, lr=0.0, **args)` from groups of parameters. A group has its
    `weight_decay`, zero for gains; `rate`, the factor between the run's learning rate and its `lr`;
    and `n_maps`: how many linear maps of a block lie stacked in each of its matrices, such as 3 for
    query, key and value; 0 for tables, the head and gains. Before the first step `state[parameter]`
    already holds the tensors that the class declares, zero or carried over, and "step", the number
    of updates, which it may count up.
    """

    gradient_powers: ClassVar[Mapping[str, int]]
    """Tensors of `state[parameter]` that last, each of the parameter's shape, and the power of the
    gradient that it follows: {"momentum_buffer": 1}. Growth and checkpoints carry these."""

    def step_flops(self) -> float:
        """FLOPs of the products of matrices in one step, by the shapes in `param_groups`."""
        return 0.0


def optimizer_class(config: OptimizerConfig) -> type[Optimizer] | None:
    """The class that the configuration names.

    Returns:
        None for AdamW.

    Raises:
        ConfigError: there is none, it refuses its arguments, or it does not declare its state.
    """
    where = "protocol.optimizer"
    if not config.target:
        if config.args:
            raise ConfigError(f"{where}.args are of {where}.target, which is missing")
        return None
    found = import_class(config.target, Optimizer, where)
    for name in ("beta1", "beta2", "eps"):
        if getattr(config, name) != getattr(OptimizerConfig, name):
            raise ConfigError(f"{where}.{name} is AdamW's, and {where}.target is {config.target}")
    powers = getattr(found, "gradient_powers", None)
    if not powers or not all(isinstance(power, int) for power in powers.values()):
        raise ConfigError(
            f"{where}.target: {config.target}.gradient_powers must map at least one tensor of its "
            f"state to a whole number, got {powers!r}"
        )
    with failures(f"{where}: {config.target}"):
        found([torch.zeros(1, requires_grad=True, device="cpu")], lr=0.0, **config.args)  # type: ignore[call-arg]
    return found


def gradient_powers(config: OptimizerConfig) -> Mapping[str, int]:
    """Tensors of the optimizer's state, and the power of the gradient that each follows."""
    found = optimizer_class(config)
    return ADAM if found is None else found.gradient_powers


def optimizer_code(config: OptimizerConfig) -> str:
    """Digest of the code of an optimizer that the suite names; empty for AdamW."""
    found = optimizer_class(config)
    return "" if found is None else code(found)


@dataclass(frozen=True, kw_only=True)
class LearningRateConfig:
    """Warm-up, constant, linear decay to zero (WSD), over the spent fraction of the budget."""

    peak: Positive = 6e-3
    warmup: Annotated[float, In("(0, 1)")] = 0.02
    """Length of the warm-up as a fraction of the suite's C*, the same for shorter runs."""

    decay: Share = 0.2
    """Length of the decay as a fraction of the run's own budget."""

    scale: Scale = "none"
    """How rates follow a model's sizes, a source's too: not at all, "by_size" or "mup"."""

    base_width: Count = 0
    """d_model at which `peak` holds under these two; 0 for the target's."""

    power: NotNegative = 1.0
    """Of 1 / d_model, that rates follow under "by_size"; fitted in ADR 0033."""

    def size_rule(self, target: ModelConfig) -> SizeRule:
        """What becomes of rates and initial weights in models of a suite with this target."""
        if self.scale == "none":
            return SizeRule()
        width = self.base_width / target.d_model if self.base_width else 1.0
        return SizeRule(scale=self.scale, base=target, width=width, power=self.power)


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """The learning rate as a function of the FLOPs spent, in absolute FLOPs.

    A stage that ends before the decay starts has none: runs of different budgets share it.
    """

    peak: float
    warmup_flops: float
    decay: tuple[float, float] | None
    """Where the decay starts and ends."""

    start: float = 0.0
    """Where the warm-up starts."""

    shape: str = "linear"
    """Of the decay: "linear" or "cosine"."""

    floor: float = 0.0
    """What the decay ends with, as a fraction of the peak."""

    def at(self, flops: float) -> float:
        """Learning rate when `flops` are spent."""
        rate = self.peak * min(1.0, max(0.0, flops - self.start) / self.warmup_flops)
        if self.decay is None:
            return rate
        start, end = self.decay
        left = min(1.0, max(0.0, (end - flops) / (end - start)))
        if self.shape == "cosine":
            left = (1.0 - math.cos(math.pi * left)) / 2.0
        return rate * (self.floor + (1.0 - self.floor) * left)


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
    model: Transformer, config: OptimizerConfig, moments: Moments, rule: SizeRule | None = None
) -> torch.optim.Optimizer:
    """The optimizer over the groups that `Optimizer` describes; it continues from `moments`.

    It updates the tensors of `moments` in place, as a copy would take 8 bytes per parameter more.
    Parameters without gradient are in no group, and their moments wait. Each group has its factor
    on the learning rate, `rate`, which leaves rate times decay as it is.

    Args:
        model: whose parameters it updates.
        config: the optimizer and its constants.
        moments: of every parameter, on any device.
        rule: factors on rates, by tensor.

    Returns:
        With rates of zero, which each step sets.
    """
    named = dict(model.named_parameters())
    learning = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    optimizer = _over(_groups(model, learning, config, rule or SizeRule()), config)
    for name, parameter in named.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(moments.step[name], device=parameter.device),
            **{kind: held[name].to(parameter) for kind, held in moments.tensors.items()},
        }
    return optimizer


def optimizer_flops(shell: Transformer, config: OptimizerConfig, frozen: Collection[str]) -> float:
    """What a step costs beside gradients: the products of matrices in an optimizer's update.

    Args:
        shell: of the model.
        config: the optimizer and its constants.
        frozen: names of parameters that rest.

    Returns:
        FLOPs, by what the optimizer declares; zero for AdamW, all of whose work is element-wise.
    """
    if not config.target:
        return 0.0
    return _optimizer_flops(shell, json.dumps(asdict(config)), frozenset(frozen))


@cache
def _optimizer_flops(shell: Transformer, config: str, frozen: frozenset[str]) -> float:
    """Known from then on, as a plan asks thousands of times."""
    idle = tuple(f"blocks.{i}." for i in range(shell.n_running, shell.config.n_layer))
    learning = {name: parameter for name, parameter in shell.named_parameters()
                if name not in frozen and not name.startswith(idle)}  # fmt: skip
    found = OptimizerConfig(**json.loads(config))
    optimizer = _over(_groups(shell, learning, found, SizeRule()), found)
    return optimizer.step_flops() if isinstance(optimizer, Optimizer) else 0.0


def _groups(
    model: Transformer, learning: Mapping[str, Tensor], config: OptimizerConfig, rule: SizeRule
) -> list[dict[str, Any]]:
    """The parameters that learn, in the groups that `Optimizer` describes."""
    axes = model.axes()
    groups = dict[tuple[float, float, int], list[Tensor]]()
    for name, parameter in learning.items():
        rate = rule.rate(axes[name], model.config)
        decay = 0.0 if axes[name].kind is Kind.GAIN else config.weight_decay / rate
        groups.setdefault((rate, decay, _n_maps(axes[name])), []).append(parameter)
    keys = ("rate", "weight_decay", "n_maps")
    return [{"params": held, **dict(zip(keys, key, strict=True))} for key, held in groups.items()]


def _n_maps(axes: Axes) -> int:
    """How many linear maps of a block lie stacked in a matrix; 0 if it is none."""
    if axes.kind is not Kind.MAP or is_head(axes):
        return 0
    return math.prod(axis.n_maps for axis in axes.out if isinstance(axis, FixedAxis))


def _over(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    found = optimizer_class(config)
    if found is not None:
        return found(groups, lr=0.0, **config.args)  # type: ignore[call-arg]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)


@torch.no_grad()
def clipped_step(optimizer: torch.optim.Optimizer, clip: float) -> None:
    """Clip the norm of all gradients, take a step with them, drop them.

    For AdamW: what `clip_grad_norm_`, a fused AdamW's `step` and `zero_grad` do, without what they
    look up anew at every step (ADR 0018).
    """
    groups = [
        (group, parameters)
        for group in optimizer.param_groups
        if (parameters := [p for p in group["params"] if p.grad is not None])
    ]
    _clip([p.grad for _, parameters in groups for p in parameters if p.grad is not None], clip)
    if type(optimizer) is not torch.optim.AdamW:
        optimizer.step()
        optimizer.zero_grad()
        return
    for group, parameters in groups:
        fused_adamw(group, parameters, optimizer.state)
        for parameter in parameters:
            parameter.grad = None


def fused_adamw(
    group: Mapping[str, Any], parameters: list[Tensor], state: Mapping[Tensor, dict[str, Tensor]]
) -> None:
    """A step of AdamW (Loshchilov & Hutter 2019) for parameters that have a gradient.

    Args:
        group: their `lr`, `betas`, `eps` and `weight_decay`.
        parameters: changed in place.
        state: their moments and counts, changed in place.
    """
    if not parameters:
        return
    states = [state[parameter] for parameter in parameters]
    steps = [entry["step"] for entry in states]
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        parameters,
        [parameter.grad for parameter in parameters if parameter.grad is not None],
        [entry["exp_avg"] for entry in states],
        [entry["exp_avg_sq"] for entry in states],
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


def _clip(gradients: list[Tensor], clip: float) -> None:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp_(max=1.0))


def moments_of(model: Transformer, optimizer: torch.optim.Optimizer) -> Moments:
    """The optimizer's state by parameter name."""
    powers = optimizer.gradient_powers if isinstance(optimizer, Optimizer) else ADAM
    state = {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}
    return Moments(
        {kind: {name: entry[kind] for name, entry in state.items()} for kind in powers},
        {name: float(entry["step"]) for name, entry in state.items()},
        powers,
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
