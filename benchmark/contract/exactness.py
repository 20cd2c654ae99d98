"""Some growth is possible, and it keeps the function where that is declared, and only there."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from benchmark.base.errors import GrowthError
from benchmark.contract.subject import EXACT, Subject, Verdict, describe, distance, logits
from benchmark.model.transformer import ModelConfig, Transformer

DIFFERENT = 1e-6
"""Least change of a logit that cannot be rounding."""

NOTHING_TO_CHECK = (
    "{} has no operators and grows nothing, which is for a control: set self.operators, or check "
    "a YAML with another role than method"
)


@dataclass(frozen=True)
class Change:
    """What one growth did to the logits."""

    small: ModelConfig
    large: ModelConfig
    is_claimed: bool
    """Whether this growth is declared to keep the function; growing by nothing must."""

    error: float
    """Largest change of a logit."""


def declarations(subject: Subject) -> Verdict:
    """Operators say what they grow, and some growth works."""
    try:
        grows = sorted(subject.baseline.grows)
        if not grows and subject.role == "method":
            return Verdict(False, NOTHING_TO_CHECK.format(type(subject.baseline).__name__))
        for small, large in subject.pairs:
            subject.baseline.frozen(small, large)
    except GrowthError as error:
        return Verdict(False, str(error))
    return Verdict(True, f"grows {', '.join(grows)}" if grows else "grows nothing")


def exactness(subject: Subject) -> Verdict:
    """Logits before and after growth, for every variant of the model.

    Where exactness is declared it must hold for all sizes by every allowed factor, and for each
    size alone; where it is not, growing all sizes must change the function. Growing by nothing
    changes nothing.
    """
    kept: dict[str, float] = {}
    changed: dict[str, float] = {}
    for change in changes(subject):
        found = describe(change.small, change.large)
        if change.is_claimed:
            kept[found] = change.error
        elif grown_sizes(change.small, change.large) == subject.baseline.grows:
            changed[found] = change.error
    return _verdict(kept, changed, subject.baseline.preserves_function)


@lru_cache(maxsize=1)
def changes(subject: Subject) -> tuple[Change, ...]:
    """What every growth does to the logits of every variant; measured once per subject."""
    found: list[Change] = []
    for config in subject.variants:
        before = logits(subject.small(config))
        for large in _growths(subject, config):
            error = distance(logits(large), before)
            is_claimed = large.config == config or subject.claims(config, large.config)
            found.append(Change(config, large.config, is_claimed, error))
    return tuple(found)


def _growths(subject: Subject, config: ModelConfig) -> Iterator[Transformer]:
    baseline = subject.baseline
    yield subject.grow(subject.small(config), config).model
    n_factors = None if baseline.preserves_function else 1
    yield from (grown.model for grown in islice(subject.growths(config), n_factors))
    is_partly_exact = any(operator.preserves_function for operator in baseline.operators)
    if is_partly_exact and len(baseline.grows) > 1:
        for name in sorted(baseline.grows):
            yield from (grown.model for grown in islice(subject.growths(config, [name]), 1))


def grown_sizes(small: ModelConfig, large: ModelConfig) -> frozenset[str]:
    """Names of the sizes that differ."""
    return frozenset(name for name, old in small.sizes().items() if large.size(name) != old)


def _verdict(kept: dict[str, float], changed: dict[str, float], is_claimed: bool) -> Verdict:
    worst = max(kept, key=lambda name: kept[name])
    if kept[worst] > EXACT:
        detail = f"declared exact, but logits change by {kept[worst]:.1e}: {worst}"
        return Verdict(False, detail)
    least = min(changed, key=lambda name: changed[name], default=None)
    if least is not None and changed[least] < DIFFERENT:
        detail = f"not declared exact, but logits change by only {changed[least]:.1e}: {least}"
        return Verdict(False, detail)
    if least is not None and not is_claimed:
        return Verdict(True, f"logits change by {changed[least]:.1e} or more")
    detail = f"logits change by at most {kept[worst]:.1e} in {len(kept)} growths"
    limits = f", and by {changed[least]:.1e} or more where not declared exact" if least else ""
    return Verdict(True, detail + limits)
