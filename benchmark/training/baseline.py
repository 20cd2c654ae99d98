"""The class a growth method subclasses: what to train is shared, how to grow is the method's.

A method states its operators (which know what sizes they grow and whether they keep the function)
and its defaults for the two factors that suites cross with every operator: what becomes of the Adam
moments, and the learning rate after growth. Its hyperparameters are its constructor's keyword
arguments. Training itself is final: identical for everyone.
"""

from abc import ABC
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor, nn
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.growth.grow import grown_sizes
from benchmark.growth.operator import GrowthOperator, Moments, StatePolicy, Weights
from benchmark.model.compiled import compiled
from benchmark.model.kernels import chunked_cross_entropy, cross_entropy
from benchmark.model.size_rule import SizeRule
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.optim import (
    OptimizerConfig,
    RateCurve,
    Rewarm,
    build_optimizer,
    clipped_step,
    scaled_update,
)


def unobserved(loss: Tensor, started: float) -> None:
    """Default callback: does nothing."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What the training of one stage starts from, and its settings."""

    model: Transformer
    moments: Moments
    is_new: Weights = field(default_factory=Weights)
    frozen: Collection[str] = ()
    """Parameters without gradient, update and decay."""

    optimizer: OptimizerConfig
    rate: RateCurve
    rule: SizeRule = field(default_factory=SizeRule)
    """Factors on the rate, by tensor."""

    rewarm: Rewarm | None = None
    """The re-warm-up that began at the latest growth."""

    budget_flops: float
    """The suite's C*."""

    grown_at: float = 0.0
    """FLOPs spent at the latest growth; 0 before the first."""

    start_flops: float = 0.0
    """Spent before the first step of the stage."""

    n_done: int = 0
    """Steps of the stage that were taken before an interruption."""

    step_flops: float
    is_compiled: bool = False
    """Whether steps run through `torch.compile`."""

    on_step: Callable[[Tensor, float], None] = unobserved
    """Called after each step with its loss, and with the time when it started."""


def mean_nats(model: Transformer, batch: Tensor) -> Tensor:
    """Loss of a batch of token ids (B, T + 1): nats per predicted one."""
    ids, targets = batch[:, :-1], batch[:, 1:].flatten()
    if (head := model.large_head) is not None:
        return chunked_cross_entropy(model.features(ids).flatten(0, 1), head, targets)
    return cross_entropy(model(ids).flatten(0, 1), targets)


class Baseline(nn.Module, ABC):
    """One growth method; as a module whose output is the loss it is what Fabric trains."""

    model_class: type[Transformer] = Transformer
    """The architecture the method trains; an argument may choose it."""

    source_class: ClassVar[type[Transformer] | None] = None
    """The architecture before the first growth, if it is another one."""

    state_policy: ClassVar[StatePolicy] = StatePolicy.ASYMMETRIC
    """What becomes of the Adam moments, unless the configuration says otherwise."""

    rewarm: ClassVar[Rewarm] = Rewarm()
    """The learning rate after growth, unless the configuration says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: tuple[GrowthOperator, ...] = ()
        """How weights grow, applied in order."""

    @property
    def own_sizes(self) -> dict[str, int]:
        """Sizes that only the method's architectures have, with values that suit a tiny model."""
        classes = (self.source_class or self.model_class, self.model_class)
        return {name: n for cls in classes for name, n in cls.own_sizes.items()}

    @final
    @property
    def grows(self) -> frozenset[str]:
        """Sizes that the method's operators may enlarge."""
        return grown_sizes(self.operators, self.own_sizes)

    @property
    def preserves_function(self) -> bool:
        """Whether large(x) == small(x) right after growth; the contract tests it both ways."""
        return all(operator.preserves_function for operator in self.operators)

    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        """Whether a parameter learns after a growth, until the next one; by default all do.

        Must depend on nothing but its arguments: the plan asks it for the cost of a step.

        Args:
            name: of the parameter in the large model.
            small: sizes before the latest growth.
            large: sizes after it.

        Returns:
            False for a parameter without gradient, update and decay.
        """
        return True

    @final
    def frozen(self, small: ModelConfig, large: ModelConfig) -> tuple[str, ...]:
        """Parameters that rest after a growth from `small` to `large`.

        Returns:
            Their names in the large model.

        Raises:
            GrowthError: it would be all of them.
        """
        names = [name for name, _ in self.model_class.shell(large).named_parameters()]
        frozen = tuple(name for name in names if not self.trains(name, small, large))
        if len(frozen) == len(names):
            raise GrowthError(f"{type(self).__name__} freezes every parameter; one must learn")
        return frozen

    @property
    def leaves_dead_entries(self) -> bool:
        """Whether some entries of the grown model can never learn, a declared exception."""
        return False

    @property
    def leaves_copies_equal(self) -> bool:
        """Whether some copies of a coordinate never separate, a declared exception."""
        return False

    @final
    def begin(self, fit: Fit) -> None:
        """Prepare to train from `fit` on."""
        self.fit_spec, self.model, self.n_done = fit, fit.model, fit.n_done
        for name in fit.frozen:
            fit.model.get_parameter(name).requires_grad_(False)
        self.optimizer = build_optimizer(fit.model, fit.optimizer, fit.moments, fit.rule)
        # asked once, because asking waits for the device
        self.is_new = {name: mask for name, mask in fit.is_new.items() if bool(mask.any())}
        self.loss_of = compiled(mean_nats) if fit.is_compiled else mean_nats
        self.rate_used = 0.0
        self._follow()

    def on_progress(self, since_growth: float) -> None:
        """Adapt the grown model to the position of the run; by default nothing.

        Called before every step with the position at its start, and after the last; so it is in
        force whenever the model is evaluated or saved. Must depend on nothing but its argument, and
        may rely on the position never going back.

        Args:
            since_growth: fraction of C* spent since the latest growth.
        """

    def _follow(self) -> None:
        fit = self.fit_spec
        position = fit.start_flops + self.n_done * fit.step_flops
        self.on_progress((position - fit.grown_at) / fit.budget_flops)

    @property
    def flops(self) -> float:
        """FLOPs spent in the middle of the coming step, where its learning rate is read."""
        return self.fit_spec.start_flops + (self.n_done + 0.5) * self.fit_spec.step_flops

    @property
    def learning_rate(self) -> float:
        """Rate of the coming step."""
        return self.fit_spec.rate.at(self.flops) * self._rewarm_factor("all")

    def _rewarm_factor(self, which: str) -> float:
        """Factor on the rate of these entries in the coming step."""
        fit = self.fit_spec
        if fit.rewarm is None or fit.rewarm.which != which:
            return 1.0
        return fit.rewarm.factor(self.flops - fit.grown_at, fit.budget_flops)

    @override
    def forward(self, batch: Tensor) -> Tensor:
        """Mean loss of token ids, int64 (B, T + 1), in nats per predicted one."""
        return self.loss_of(self.model, batch)

    @final
    def update(self) -> None:
        """End a step: move the weights by their gradients, drop these, and adapt the model."""
        self.rate_used = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_used * group["rate"]
        clip = self.fit_spec.optimizer.clip
        if (factor := self._rewarm_factor("new")) == 1.0:
            clipped_step(self.optimizer, clip)
        else:
            with scaled_update(self.model, self.is_new, factor):
                clipped_step(self.optimizer, clip)
        self.n_done += 1
        self._follow()


class Plain(Baseline):
    """Training without growth; what every method does before it first grows."""
