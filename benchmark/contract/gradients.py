"""Gradients and Adam's moments right after growth follow the chain rule.

Let the large weights be W(w), a function of the small ones. If growth keeps the function for all w,
then dL/dw = J' dL/dW with J = dW/dw: a large gradient, pulled back through growth, is the small one
bit for bit up to rounding. Moments that average gradients obey the same identity.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmark.contract.subject import (
    EXACT,
    Subject,
    Verdict,
    first_moments,
    gradients_of,
    logits,
)
from benchmark.growth.operator import Moments, Resources, StatePolicy, Weights
from benchmark.model.transformer import ModelConfig, Transformer

ROUNDING = 1e-12
"""Largest error of a float64 gradient, relative to the largest gradient of its model."""

NOT_EXACT = "no exact growth to hold to the rule"


def gradients(subject: Subject) -> Verdict:
    """The large gradient pulled back through growth is the small gradient."""
    growths = _exact_growths(subject)
    if not growths:
        return Verdict(True, NOT_EXACT)
    worst, where = max((growth.gradient_error(), growth.label) for growth in growths)
    detail = f"pulled back, the large gradient is off by at most {worst:.1e}: {where}"
    return Verdict(worst <= ROUNDING, detail)


def moments(subject: Subject) -> Verdict:
    """Adam's moments under `SCALED` follow gradients, and under `RESET` there are none.

    Grown from a gradient and its square, the first moments must pull back to the small gradient,
    and the second be the squares of the first.
    """
    if leftover := _after_reset(subject):
        return Verdict(False, f"state policy reset leaves moments: {leftover}")
    worst: dict[str, tuple[float, str]] = {}
    for growth in _exact_growths(subject):
        if growth.gradient_error() > ROUNDING:
            continue
        for rule, error in growth.moment_errors().items():
            worst[rule] = max(worst.get(rule, (0.0, growth.label)), (error, growth.label))
    for rule, (error, label) in worst.items():
        if not error <= ROUNDING:
            return Verdict(False, f"{rule} off by {error:.1e}: {label}")
    largest = max((error for error, _ in worst.values()), default=0.0)
    detail = f"{', '.join(worst)}: off by at most {largest:.1e}" if worst else NOT_EXACT
    return Verdict(True, detail)


def _after_reset(subject: Subject) -> str | None:
    if subject.baseline.state_policy is not StatePolicy.RESET:
        return None
    small, large = subject.pairs[0]
    kept = subject.grow(subject.small(small), large).moments
    named = [*kept.exp_avg.items(), *kept.exp_avg_sq.items()]
    left = [name for name, moment in named if moment.any()]
    return next((name for name in [*left, *(n for n, step in kept.step.items() if step)]), None)


class _Tape:
    """Records a growth so that it can be differentiated."""

    def __init__(self, small: Transformer) -> None:
        self.small = {
            name: weight.detach().clone().requires_grad_()
            for name, weight in small.named_parameters()
        }
        self.large: Weights = dict(self.small)

    def pull_back(self, gradient: Weights) -> Weights:
        """J' times a large gradient."""
        outputs = {n: w for n, w in self.large.items() if n in gradient and w.requires_grad}
        pulled = torch.autograd.grad(
            list(outputs.values()),
            list(self.small.values()),
            [gradient[name].reshape(weight.shape) for name, weight in outputs.items()],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(self.small, pulled, strict=True))


class _Taped:
    """An operator, or the transfer that it prepares, which does what another does, on tape."""

    def __init__(self, inner: Any, tape: _Tape) -> None:  # noqa: ANN401 - either
        self.inner, self.tape = inner, tape

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the other has
        """What the other has."""
        return getattr(self.inner, name)

    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> "_Taped":
        """The other's transfer, on tape."""
        return _Taped(self.inner.prepare(small, target, resources), self.tape)

    def weights(self, small: Weights, fresh: Weights) -> Weights:
        """The other's weights, of which the tape keeps how they came about."""
        with torch.enable_grad():
            self.tape.large = self.inner.weights({**small, **self.tape.large}, fresh)
        return {name: weight.detach().clone() for name, weight in self.tape.large.items()}


@dataclass(frozen=True)
class _ExactGrowth:
    """A growth that kept the function, with what the rule needs to be judged."""

    label: str
    tape: _Tape
    small_gradient: Weights
    large_gradient: Weights
    moments: Moments
    """Under `SCALED`, from the gradient and its square."""

    def gradient_error(self) -> float:
        """Relative error of the large gradient, pulled back."""
        return _error(self.tape.pull_back(self.large_gradient), self.small_gradient)

    def moment_errors(self) -> dict[str, float]:
        """Largest relative error of every rule."""
        first, second = self.moments.exp_avg, self.moments.exp_avg_sq
        squared = {name: moment.square() for name, moment in first.items()}
        # a tensor that growth replaces by another, as factors by their product, leaves no moments
        inheritable = {n: g for n, g in self.small_gradient.items() if n in first}
        return {
            "first moments": _error(self.tape.pull_back(first), inheritable),
            "second moments": _error(second, squared),
        }


@lru_cache(maxsize=1)  # two checks look at the same growths
def _exact_growths(subject: Subject) -> list[_ExactGrowth]:
    """Every growth of `pairs` that is declared exact and is; the others break another check."""
    claimed = [pair for pair in subject.pairs if subject.claims(*pair)]
    return [growth for pair in claimed if (growth := _exact_growth(subject, *pair))]


def _exact_growth(subject: Subject, small: ModelConfig, large: ModelConfig) -> _ExactGrowth | None:
    model = subject.small(small)
    gradient = first_moments(model)
    tape = _Tape(model)
    operators: list[Any] = [_Taped(operator, tape) for operator in subject.baseline.operators]
    scaled = StatePolicy.SCALED
    grown = subject.grow(model, large, policy=scaled, moments=gradient, operators=operators)
    if not (logits(model) - logits(grown.model)).abs().max() <= EXACT:
        return None
    return _ExactGrowth(
        label=grown.label,
        tape=tape,
        small_gradient=gradient.exp_avg,
        large_gradient=gradients_of(grown.model),
        moments=grown.moments,
    )


def _error(found: Weights, expected: Weights) -> float:
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    return max(_distance(found[name], expected[name]) for name in expected) / scale


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b.reshape(a.shape)).abs().nan_to_num(torch.inf).max())
