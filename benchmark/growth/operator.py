"""What a growth operator is: one map on named axes, for weights and the optimizer's state.

Shared code applies it to every tensor of the model and, by the gradient rule, to the moments:
repeat a produced coordinate and each copy receives the share of the gradient that its readers give
it; repeat a contracted coordinate and every copy receives the whole gradient although its weight is
divided (chain rule; proved in tests/test_growth.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchmark.model.size_rule import SizeRule
from benchmark.model.transformer import Axes, Kind, ModelConfig, Transformer

Weights = dict[str, Tensor]
Side = Literal["out", "into"]

ADAM: Mapping[str, int] = {"exp_avg": 1, "exp_avg_sq": 2}
"""Tensors of Adam's state, and the power of the gradient that each follows."""


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

    rule: SizeRule = field(default_factory=SizeRule)
    """What becomes of new weights once they are drawn."""


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
        """Large tensors of the optimizer's state.

        Args:
            small: tensors of the parameters' shapes; may be returned, must not be changed.
            power: of the gradient that they follow; 0 repeats them unscaled.
        """

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
        like = next(iter(small.tensors.values()))
        ages = {n: torch.full_like(m, small.step[n]) for n, m in like.items()}
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
        grown = {n for n in self.grows & large.sizes().keys() if large.size(n) != small.size(n)}
        return not grown or (
            self.preserves_function
            and not any(
                size in grown and getattr(small, choice) == value
                for size, choice, value in self.inexact_for
            )
        )

    @abstractmethod
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        """Make every random or learned choice of one growth.

        Args:
            small: trained model; must not be changed.
            target: sizes to reach, in those that the operator grows.
            resources: randomness, data and the architecture to grow into.

        Raises:
            GrowthError: this operator cannot reach `target`.
        """


def is_residual_write(axes: Axes) -> bool:
    """Whether a linear map adds its output to the residual stream."""
    return axes.kind is Kind.MAP and axes.out == ("d_model",)


@dataclass(frozen=True)
class Moments:
    """State of an optimizer: tensors of the parameters' shapes that follow powers of gradients."""

    tensors: dict[str, Weights]
    """By the optimizer's name for them, such as "exp_avg", then by parameter."""

    step: dict[str, float]
    """By parameter: how many updates its tensors average; 0 where the optimizer does not count."""

    powers: Mapping[str, int] = field(default_factory=lambda: ADAM)
    """By name: the power of the gradient that the tensor follows."""

    @classmethod
    def adam(cls, exp_avg: Weights, exp_avg_sq: Weights, step: dict[str, float]) -> "Moments":
        """Adam's averages of gradients and of their squares."""
        return cls({"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}, step)

    @property
    def exp_avg(self) -> Weights:
        """Adam's averages of gradients."""
        return self.tensors["exp_avg"]

    @property
    def exp_avg_sq(self) -> Weights:
        """Adam's averages of squared gradients."""
        return self.tensors["exp_avg_sq"]

    @classmethod
    def zeros(cls, model: Transformer, powers: Mapping[str, int] = ADAM) -> "Moments":
        """State of a model that was never updated by an optimizer of these `powers`."""
        named = dict(model.named_parameters())
        tensors = {kind: {n: torch.zeros_like(p) for n, p in named.items()} for kind in powers}
        return cls(tensors, dict.fromkeys(named, 0.0), powers)
