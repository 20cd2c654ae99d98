"""A source of text whose entropy rate is known: no model can predict it better, on average.

A Markov chain of order k over A symbols. Each context favours a few symbols drawn at random and
keeps every other possible, so all transition probabilities are positive: the chain is ergodic and
its stationary distribution, hence its entropy rate, unique. Probabilities are ratios of integers
and sampling compares integers, so a seed gives the same bytes on every platform.

Shape suffixes: C contexts (n_symbols ** order), A symbols.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import Annotated

import torch
from torch import Tensor

from benchmark.base.annotations import Count, In, Size
from benchmark.base.errors import ConfigError
from benchmark.base.seeding import generator

_FIRST = ord("a")  # symbols are consecutive byte values from here
_MAX_CONTEXTS = 1 << 12
_BURN_IN = 1000  # symbols thrown away before the text starts


@dataclass(frozen=True, kw_only=True)
class MarkovSource:
    """The chain; by default 1.88 bits per byte, against 3.97 for a predictor without context."""

    order: Size = 2
    """Bytes of context the next byte depends on."""

    n_symbols: Annotated[int, In("[2, 159]")] = 16
    """Different bytes that occur, from "a" upwards."""

    n_favoured: Size = 3
    """Symbols each context favours, drawn with replacement."""

    weight: Count = 80
    """Odds of one favoured draw against one count for every symbol."""

    seed: int = 0
    """Of the transition table and of the text."""

    def __post_init__(self) -> None:
        if (contexts := self.n_symbols**self.order) > _MAX_CONTEXTS:
            raise ConfigError(
                f"corpus.markov: n_symbols ** order must be at most {_MAX_CONTEXTS}, got {contexts}"
            )

    @cached_property
    def probabilities(self) -> Tensor:
        """p(next symbol | context), float64 (C, A)."""
        counts_CA = torch.ones(self.n_symbols**self.order, self.n_symbols, dtype=torch.float64)
        added = torch.full(self._favoured.shape, float(self.weight), dtype=torch.float64)
        counts_CA.scatter_add_(1, self._favoured, added)
        return counts_CA / counts_CA.sum(1, keepdim=True)

    def stationary(self) -> Tensor:
        """Long-run probability of each context, float64 (C,)."""
        # a context is its symbols read as a number in base A, oldest first: the next symbol
        # shifts them left and drops the oldest
        n_contexts = len(self.probabilities)
        index_CA = torch.arange(n_contexts * self.n_symbols).view_as(self.probabilities)
        balance_CC = -torch.eye(n_contexts, dtype=torch.float64)
        balance_CC.index_put_(
            (index_CA % n_contexts, index_CA // self.n_symbols), self.probabilities, accumulate=True
        )
        balance_CC[-1] = 1.0  # the equations are dependent: one gives way to "they sum to 1"
        total_C = torch.zeros(n_contexts, dtype=torch.float64)
        total_C[-1] = 1.0
        return torch.linalg.solve(balance_CC, total_C)

    def entropy_rate_bits(self) -> float:
        """Bits per byte of a perfect predictor: sum over contexts of pi(c) H(next | c)."""
        entropy_C = torch.special.entr(self.probabilities).sum(1) / math.log(2)
        return float(self.stationary() @ entropy_C)

    def sample(self, size: int) -> bytes:
        """The first `size` bytes of the text; a longer text begins with the shorter one."""
        n_symbols, n_contexts = self.n_symbols, self.n_symbols**self.order
        n_slots = n_symbols + self.n_favoured * self.weight
        slots = torch.randint(
            n_slots, (_BURN_IN + size,), generator=generator(self.seed, "markov", "text")
        )
        favoured = n_symbols + (slots - n_symbols) // max(self.weight, 1)
        choices = torch.where(slots < n_symbols, slots, favoured).tolist()
        table = [[*range(n_symbols), *row] for row in self._favoured.tolist()]
        contexts = accumulate(
            choices,
            lambda context, choice: (context * n_symbols + table[context][choice]) % n_contexts,
            initial=0,
        )
        return bytes(_FIRST + c % n_symbols for c in islice(contexts, _BURN_IN + 1, None))

    @cached_property
    def _favoured(self) -> Tensor:
        """Favoured symbols of each context, int64 (C, n_favoured)."""
        shape = (self.n_symbols**self.order, self.n_favoured)
        return torch.randint(
            self.n_symbols, shape, generator=generator(self.seed, "markov", "table")
        )
