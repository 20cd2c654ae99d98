"""Gradients and Adam's moments right after growth follow the chain rule.

Let the large weights be W(w), a function of the small ones. If growth keeps the function for all w,
then dL/dw = J' dL/dW with J = dW/dw: a large gradient, pulled back through growth, is the small one
bit for bit up to rounding. Moments that average gradients obey the same identity.
"""

from functools import lru_cache
from typing import Any

import torch

from benchmark.contract.subject import (
    EXACT,
    Subject,
    Verdict,
    describe,
    distance,
    first_moments,
    gradients_of,
    logits,
)
from benchmark.growth.operator import Resources, StatePolicy, Weights
from benchmark.model.transformer import ModelConfig, Transformer

ROUNDING = 1e-12
"""Largest error of a float64 gradient, relative to the largest gradient of its model."""

NOT_EXACT = "no exact growth to hold to the rule"
MOMENTS = ("first moments", "second moments")


def gradients(subject: Subject) -> Verdict:
    """The large gradient pulled back through growth is the small gradient."""
    if not (errors := _errors(subject)):
        return Verdict(True, NOT_EXACT)
    worst, where = max((found["gradients"], label) for label, found in errors.items())
    detail = f"pulled back, the large gradient is off by at most {worst:.1e}: {where}"
    return Verdict(worst <= ROUNDING, detail)


def moments(subject: Subject) -> Verdict:
    """Adam's moments under `SCALED` follow gradients.

    Grown from a gradient and its square, the first moments must pull back to the small gradient,
    and the second be the squares of the first.
    """
    errors = {n: found for n, found in _errors(subject).items() if found["gradients"] <= ROUNDING}
    if not errors:
        return Verdict(True, NOT_EXACT)
    worst = {rule: max((found[rule], label) for label, found in errors.items()) for rule in MOMENTS}
    for rule, (error, label) in worst.items():
        if not error <= ROUNDING:
            return Verdict(False, f"{rule} off by {error:.1e}: {label}")
    largest, _ = max(worst.values())
    return Verdict(True, f"{', '.join(MOMENTS)}: off by at most {largest:.1e}")


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


@lru_cache(maxsize=1)  # two checks look at the same growths
def _errors(subject: Subject) -> dict[str, dict[str, float]]:
    """Relative errors of gradients and moments, by each growth of `pairs` that is declared exact.

    One that is not exact all the same is left out: it breaks another check.
    """
    claimed = [pair for pair in subject.pairs if subject.claims(*pair)]
    return {describe(*pair): found for pair in claimed if (found := _measured(subject, *pair))}


def _measured(subject: Subject, small: ModelConfig, large: ModelConfig) -> dict[str, float]:
    model = subject.small(small)
    before, tape = first_moments(model), _Tape(model)
    operators: list[Any] = [_Taped(operator, tape) for operator in subject.baseline.operators]
    scaled = StatePolicy.SCALED
    grown = subject.grow(model, large, policy=scaled, moments=before, operators=operators)
    if not distance(logits(model), logits(grown.model)) <= EXACT:
        return {}
    first, second = grown.moments.exp_avg, grown.moments.exp_avg_sq
    # a tensor that growth replaces by another, as factors by their product, leaves no moments
    inheritable = {name: gradient for name, gradient in before.exp_avg.items() if name in first}
    squared = {name: moment.square() for name, moment in first.items()}
    errors = (_error(tape.pull_back(first), inheritable), _error(second, squared))
    pulled = tape.pull_back(gradients_of(grown.model))
    return {"gradients": _error(pulled, before.exp_avg), **dict(zip(MOMENTS, errors, strict=True))}


def _error(found: Weights, expected: Weights) -> float:
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    return max(distance(found[name], expected[name]) for name in expected) / scale
