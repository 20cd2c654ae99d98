"""Growth keeps the function where that is declared, and only there."""

import torch

from benchmark.contract.subject import EXACT, FACTORS, Subject, Verdict, describe, logits
from benchmark.errors import GrowthError
from benchmark.model import ModelConfig, Transformer

DIFFERENT = 1e-6
"""Least change of a logit that cannot be rounding."""


def exactness(subject: Subject) -> Verdict:
    """Logits before and after every growth that the method allows, of every variant.

    Where exactness is declared it must hold whichever sizes grow; where it is not, growing all of
    them must change the function. Growth by a factor of one never changes anything.
    """
    kept: dict[str, float] = {}
    changed: dict[str, float] = {}
    for config in subject.variants:
        small = subject.small(config)
        before, claimed = logits(small), subject.claims(config)
        for target in _targets(subject, config):
            error = _change(subject, small, target, before)
            if error is None:
                continue
            if claimed or target == config:
                kept[describe(config, target)] = error
            elif set(_grown(config, target)) == subject.baseline.grows:
                changed[describe(config, target)] = error
    return _verdict(kept, changed)


def _targets(subject: Subject, config: ModelConfig) -> list[ModelConfig]:
    alone = [[name] for name in sorted(subject.baseline.grows)]
    targets = [subject.target(config, factor, names) for factor in FACTORS for names in [[], *alone]]
    return list(dict.fromkeys([config, *targets]))


def _grown(small: ModelConfig, large: ModelConfig) -> list[str]:
    return [name for name, old in small.sizes().items() if large.size(name) != old]


def _change(
    subject: Subject, small: Transformer, target: ModelConfig, before: torch.Tensor
) -> float | None:
    try:
        large = subject.grow(small, target).model
    except GrowthError:
        return None
    return float((logits(large) - before).abs().max())


def _verdict(kept: dict[str, float], changed: dict[str, float]) -> Verdict:
    worst = max(kept, key=lambda name: _rank(kept[name]))
    if not kept[worst] <= EXACT:
        detail = f"declared exact, but logits change by {kept[worst]:.1e}: {worst}"
        return Verdict(False, detail, kept[worst])
    if not changed:
        detail = f"logits change by at most {kept[worst]:.1e} in {len(kept)} growths"
        return Verdict(True, detail, kept[worst])
    least = min(changed, key=lambda name: changed[name])
    passed = changed[least] > DIFFERENT
    what = "declared inexact: " if passed else "exact to rounding, but not declared so: "
    return Verdict(passed, f"{what}logits change by {changed[least]:.1e}: {least}", changed[least])


def _rank(error: float) -> float:
    return error if error == error else float("inf")  # noqa: PLR0124 - not a number is worst
