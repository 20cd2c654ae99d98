"""Everything that is compared takes one turn in each round, so that a busy machine slows all alike.

Ratios are taken within a round, then their median.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tabulate import tabulate

Name = TypeVar("Name")
Value = TypeVar("Value")


def take_turns(
    works: Mapping[Name, Callable[[], Value]], n_rounds: int, *, n_warm: int = 0
) -> dict[Name, list[Value]]:
    """What each work returns in `n_rounds` rounds, in an order that rotates.

    Args:
        works: what takes turns.
        n_rounds: that count.
        n_warm: rounds before these, which warm up allocators, kernels and the files' cache.
    """
    found: dict[Name, list[Value]] = {name: [] for name in works}
    names = list(works)
    for i in range(n_warm + n_rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            value = works[name]()
            if i >= n_warm:
                found[name].append(value)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of the time of one as a multiple of that of the other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A markdown table of texts."""
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
