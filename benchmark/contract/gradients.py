"""Gradients and Adam's moments right after growth follow the chain rule.

Let the large weights be W(w), a function of the small ones. If growth keeps the function for all w,
then dL/dw = J' dL/dW with J = dW/dw: a large gradient, pulled back through growth, is the small one
bit for bit up to rounding. Moments that average gradients obey the same identity. A map that only
repeats and splits says more: each entry's gradient is a known multiple of its source's.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.contract.subject import (
    EXACT,
    Subject,
    Verdict,
    describe,
    first_moments,
    gradients_of,
    logits,
)
from benchmark.growth.grow import Grown
from benchmark.growth.operator import (
    GrowthOperator,
    Moments,
    Resources,
    StatePolicy,
    Transfer,
    Weights,
)
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
    return Verdict(worst <= ROUNDING, detail, worst)


def moments(subject: Subject) -> Verdict:
    """Adam's moments under `SCALED` follow gradients, and under `RESET` there are none.

    Grown from a gradient and its square, both must pull back to the small gradient. Where the
    operators say so, every entry with a source must also equal the large model's gradient.
    """
    if leftover := _after_reset(subject):
        return Verdict(False, f"state policy reset leaves moments: {leftover}")
    worst: dict[str, tuple[float, str]] = {}
    for growth in _exact_growths(subject):
        if growth.gradient_error() > ROUNDING:
            continue
        for rule, error in growth.moment_errors().items():
            worst[rule] = max(worst.get(rule, (0.0, growth.label)), (error, growth.label))
    entrywise = all(operator.moments_are_exact for operator in subject.baseline.operators)
    rules = {rule: found for rule, found in worst.items() if entrywise or rule != ENTRYWISE}
    for rule, (error, label) in rules.items():
        if not error <= ROUNDING:
            return Verdict(False, f"{rule} off by {error:.1e}: {label}", error)
    if worst and not entrywise and worst[ENTRYWISE][0] <= ROUNDING:
        return Verdict(False, "moments are exact entry by entry, but not declared so")
    largest = max((error for error, _ in rules.values()), default=0.0)
    detail = f"{', '.join(rules)}: off by at most {largest:.1e}" if rules else NOT_EXACT
    return Verdict(True, detail, largest)


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


class _Taped(GrowthOperator):
    """An operator that does what another does, on tape."""

    def __init__(self, operator: GrowthOperator, tape: _Tape) -> None:
        self.operator, self.tape = operator, tape

    @property
    @override
    def grows(self) -> frozenset[str]:  # type: ignore[override]
        """Sizes that the other operator grows."""
        return self.operator.grows

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _TapedTransfer(self.operator.prepare(small, target, resources), self.tape)


class _TapedTransfer(Transfer):
    def __init__(self, transfer: Transfer, tape: _Tape) -> None:
        self.transfer, self.tape = transfer, tape
        self.flops = transfer.flops

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        with torch.enable_grad():
            self.tape.large = self.transfer.weights({**small, **self.tape.large}, fresh)
        return {name: weight.detach().clone() for name, weight in self.tape.large.items()}

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return self.transfer.moments(small, power)

    @override
    def first_images(self, small: Weights) -> Weights:
        return self.transfer.first_images(small)

    @override
    def is_new(self) -> Weights:
        return self.transfer.is_new()

    @override
    def needs_fresh(self, name: str) -> bool:
        return self.transfer.needs_fresh(name)

    @override
    def steps(self, small: Moments) -> dict[str, float]:
        return self.transfer.steps(small)


ENTRYWISE = "moments entry by entry"


@dataclass(frozen=True)
class _ExactGrowth:
    """A growth that kept the function, with what the rule needs to be judged."""

    label: str
    tape: _Tape
    small_gradient: Weights
    large_gradient: Weights
    grown: Grown
    """Under `SCALED`, from the gradient and its square."""

    has_source: Weights

    def gradient_error(self) -> float:
        """Relative error of the large gradient, pulled back."""
        return _error(self.tape.pull_back(self.large_gradient), self.small_gradient)

    def moment_errors(self) -> dict[str, float]:
        """Largest relative error of every rule."""
        first, second = self.grown.moments.exp_avg, self.grown.moments.exp_avg_sq
        squared = {name: moment.square() for name, moment in first.items()}
        masked = {n: g.where(self.has_source[n], 0.0) for n, g in self.large_gradient.items()}
        inherited = {n: m.where(self.has_source[n], 0.0) for n, m in first.items()}
        # a tensor that growth replaces by another, as factors by their product, leaves no moments
        inheritable = {n: g for n, g in self.small_gradient.items() if n in first}
        return {
            "moments in sum": _error(self.tape.pull_back(first), inheritable),
            ENTRYWISE: _error(inherited, masked),
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
    operators = [_Taped(operator, tape) for operator in subject.baseline.operators]
    scaled = StatePolicy.SCALED
    grown = subject.grow(model, large, policy=scaled, moments=gradient, operators=operators)
    if not (logits(model) - logits(grown.model)).abs().max() <= EXACT:
        return None
    ones = {name: torch.ones_like(moment) for name, moment in gradient.exp_avg.items()}
    traced = subject.grow(model, large, policy=StatePolicy.CARRY,
                          moments=Moments.adam(ones, ones, gradient.step))  # fmt: skip
    return _ExactGrowth(
        label=describe(small, large),
        tape=tape,
        small_gradient=gradient.exp_avg,
        large_gradient=gradients_of(grown.model),
        grown=grown,
        has_source={name: moment != 0 for name, moment in traced.moments.exp_avg.items()},
    )


def _error(found: Weights, expected: Weights) -> float:
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    return max(_distance(found[name], expected[name]) for name in expected) / scale


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b.reshape(a.shape)).abs().nan_to_num(torch.inf).max())
