"""What the contract measures of a method on tiny models of every variant, as cells of a table."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from benchmark.contract.exactness import Change, changes, grown_sizes
from benchmark.contract.learning import distances, movements
from benchmark.contract.subject import EXACT, Subject
from benchmark.model.transformer import CHOICES
from benchmark.report.formats import DASH

LEAST = 1e-6
"""Smaller numbers are rounding, or exactly zero."""

Trait = tuple[str, str]
"""One circumstance of a growth: "grows" and a size, "by" and a factor, or a choice of the model."""


def certificate(subject: Subject) -> dict[str, str]:
    """Measure a method; what a check of the same subject has measured is not measured again."""
    growths = [change for change in changes(subject) if change.large != change.small]
    return {
        "exact": declared(growths) if subject.baseline.grows else DASH,
        "logits change by": ", ".join(_logits(growths)) or DASH,
        "coverage": _coverage(subject),
        "symmetry": _symmetry(subject),
    }


def declared(growths: Sequence[Change]) -> str:
    """Where growth is declared to keep the function: "yes", "no", or "except" and where it is not.

    Circumstances are the fewest pairs of traits, or single ones, that all undeclared growths and
    no declared ones share, found greedily.
    """
    growths = [change for change in growths if change.large != change.small]
    claimed = [_traits(change) for change in growths if change.is_claimed]
    others = [_traits(change) for change in growths if not change.is_claimed]
    if not claimed:
        return "no"
    words = []
    while others:
        candidates = [
            frozenset(found)
            for traits in others
            for n in (1, 2)
            for found in combinations(sorted(traits), n)
            if not any(set(found) <= other for other in claimed)
        ]
        best = min(
            candidates or others,
            key=lambda c: (len(c), -sum(c <= traits for traits in others), sorted(c)),
        )
        words.append(_words(best))
        others = [traits for traits in others if not best <= traits]
    return f"except {', '.join(sorted(words))}" if words else "yes"


def _traits(change: Change) -> frozenset[Trait]:
    small, large = change.small, change.large
    sizes = grown_sizes(small, large)
    factors = {f"{large.size(name) / small.size(name):g}" for name in sizes}
    choices = [(choice, str(getattr(small, choice))) for choice in CHOICES]
    head = "tied" if small.tied else "untied"
    grown = [("grows", name) for name in sizes] + [("by", factor) for factor in factors]
    return frozenset([*grown, *choices, ("head", f"{head} head")])


def _words(traits: frozenset[Trait]) -> str:
    """Such as "d_model by 1.5" or "growth by 2 with layernorm"."""
    order = {"grows": "", "by": "by "}
    ranked = sorted(traits, key=lambda t: (list(order).index(t[0]) if t[0] in order else 2, t))
    text = " ".join(order.get(kind, "with ") + value for kind, value in ranked)
    return f"growth {text}" if text.startswith("by ") else text


def _logits(growths: Sequence[Change]) -> Iterator[str]:
    """Largest change of a float64 logit where exactness is declared, smallest where it is not."""
    if kept := [growth.error for growth in growths if growth.is_claimed]:
        limit = next((limit for limit in (1e-12, EXACT, LEAST) if max(kept) <= limit), None)
        yield _approximate(max(kept)) if limit is None else f"< {limit:.0e}"
    if lost := [growth.error for growth in growths if not growth.is_claimed]:
        yield _approximate(min(lost))


def _coverage(subject: Subject) -> str:
    """Share of new entries that a gradient has moved, and whether it is declared that some rest."""
    moved = movements(subject)
    n_new, n_still = sum(m.n_new for m in moved), sum(m.n_new_still for m in moved)
    if not n_new:
        return DASH
    tenths = math.floor(1000 * (1 - n_still / n_new))  # one entry short of all is not 100 %
    return f"{tenths / 10:g} %" + " (declared)" * subject.baseline.leaves_dead_entries


def _symmetry(subject: Subject) -> str:
    """Smallest distance of two copies, and whether it is declared that some never separate."""
    found = distances(subject).values()
    if not found:
        return DASH
    return _approximate(min(found)) + " (declared)" * subject.baseline.leaves_copies_equal


def _approximate(value: float) -> str:
    return f"~{value:.2g}" if value >= LEAST else f"< {LEAST:.0e}"
