"""Where growth is declared to keep the function, in words."""

from collections.abc import Sequence
from itertools import combinations

from benchmark.contract.exactness import Change, grown_sizes
from benchmark.model.transformer import CHOICES, ModelConfig

Trait = tuple[str, str]
"""One circumstance of a growth: "grows" and a size, "by" and a factor, or a choice of the model."""


def declared(changes: Sequence[Change]) -> str:
    """The answer: "yes", "no", or "except" and the circumstances where exactness is not declared.

    Circumstances are the fewest pairs of traits, or single ones, that all undeclared growths and
    no declared ones share, found greedily.
    """
    growths = [change for change in changes if change.large != change.small]
    claimed = [_traits(change.small, change.large) for change in growths if change.is_claimed]
    others = [_traits(change.small, change.large) for change in growths if not change.is_claimed]
    if not claimed:
        return "no"
    exceptions: list[frozenset[Trait]] = []
    while others:
        candidates = {
            frozenset(found)
            for traits in others
            for n in (1, 2)
            for found in combinations(sorted(traits), n)
            if not any(set(found) <= other for other in claimed)
        }
        best = min(
            candidates,
            key=lambda c: (len(c), -sum(c <= traits for traits in others), sorted(c)),
            default=frozenset(others[0]),
        )
        exceptions.append(best)
        others = [traits for traits in others if not best <= traits]
    words = sorted(" ".join(map(_word, sorted(e, key=_rank))) for e in exceptions)
    words = [f"growth {word}" if word.startswith("by") else word for word in words]
    return f"except {', '.join(words)}" if exceptions else "yes"


def _traits(small: ModelConfig, large: ModelConfig) -> frozenset[Trait]:
    sizes = grown_sizes(small, large)
    factors = {f"{large.size(name) / small.size(name):g}" for name in sizes}
    choices = [(choice, str(getattr(small, choice))) for choice in CHOICES]
    head = "tied" if small.tied else "untied"
    return frozenset(
        [("grows", name) for name in sizes]
        + [("by", factor) for factor in factors]
        + [*choices, ("head", f"{head} head")]
    )


def _rank(trait: Trait) -> int:
    return {"grows": 0, "by": 1}.get(trait[0], 2)


def _word(trait: Trait) -> str:
    kind, value = trait
    return {"grows": value, "by": f"by {value}"}.get(kind, f"with {value}")
