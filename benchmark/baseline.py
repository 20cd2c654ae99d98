"""The class a growth method subclasses: what to train is shared, how to grow is the method's.

A method states its operators (which know what sizes they grow and whether they keep the function)
and its defaults for the two factors that suites cross with every operator: what becomes of the Adam
moments, and the learning rate after growth. Its hyperparameters are its constructor's keyword
arguments. Training itself is final: identical for everyone.
"""

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from benchmark.growth import GrowthOperator, Moments, StatePolicy, Weights
from benchmark.model import Transformer
from benchmark.optim import (
    OptimizerConfig,
    RateCurve,
    Rewarm,
    build_optimizer,
    scaled_update,
)


@dataclass(frozen=True, kw_only=True)
class ActiveRewarm:
    """A re-warm-up that began at a growth."""

    rewarm: Rewarm
    since: float
    """FLOPs spent when the model grew."""

    budget_flops: float

    def factor(self, flops: float) -> float:
        """Factor on the learning rate when `flops` are spent."""
        return self.rewarm.factor(flops - self.since, self.budget_flops)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one Lightning fit trains, and from where."""

    model: Transformer
    moments: Moments
    is_new: Weights
    optimizer: OptimizerConfig
    rate: RateCurve
    rewarm: ActiveRewarm | None
    start_flops: float
    """Spent before the first step of the stage."""

    n_done: int
    """Steps of the stage that were taken before an interruption."""

    step_flops: float


class Baseline(pl.LightningModule, ABC):
    """One growth method, wrapped for Lightning."""

    model_class: ClassVar[type[Transformer]] = Transformer
    """The architecture the method trains."""

    state_policy: ClassVar[StatePolicy] = StatePolicy.ASYMMETRIC
    """What becomes of the Adam moments, unless the configuration says otherwise."""

    rewarm: ClassVar[Rewarm] = Rewarm()
    """The learning rate after growth, unless the configuration says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: tuple[GrowthOperator, ...] = ()
        """How weights grow, applied in order."""

    @property
    def grows(self) -> frozenset[str]:
        """Config sizes the method may enlarge."""
        return frozenset[str]().union(*(operator.grows for operator in self.operators))

    @property
    def preserves_function(self) -> bool:
        """Whether large(x) == small(x) right after growth; the contract tests it both ways."""
        return all(operator.preserves_function for operator in self.operators)

    @final
    def begin(self, fit: Fit) -> None:
        """Take up training at `fit`."""
        self.fit_spec, self.model, self.n_done = fit, fit.model, fit.n_done
        self.optimizer = build_optimizer(fit.model, fit.optimizer, fit.moments)
        self.rate_used = 0.0

    @property
    def flops(self) -> float:
        """FLOPs spent in the middle of the coming step, where its learning rate is read."""
        return self.fit_spec.start_flops + (self.n_done + 0.5) * self.fit_spec.step_flops

    @property
    def learning_rate(self) -> float:
        """Rate of the coming step."""
        rate, rewarm = self.fit_spec.rate.at(self.flops), self.fit_spec.rewarm
        is_for_all = rewarm is not None and rewarm.rewarm.which == "all"
        return rate * rewarm.factor(self.flops) if rewarm and is_for_all else rate

    @final
    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        logits = self.model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    @final
    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    @final
    @override
    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        self.rate_used = self.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = self.rate_used
        rewarm = self.fit_spec.rewarm
        factor = rewarm.factor(self.flops) if rewarm and rewarm.rewarm.which == "new" else 1.0
        if factor == 1.0:
            optimizer.step(closure=optimizer_closure)
        else:
            with scaled_update(self.model, self.fit_spec.is_new, factor):
                optimizer.step(closure=optimizer_closure)
        self.n_done += 1


class Plain(Baseline):
    """Training without growth; what every method does before it first grows."""
