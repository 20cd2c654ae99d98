"""Batches as a pure function of (seed, stream, cursor), and the windows of the evaluator.

Text is cut into windows of T = seq_len targets: window k reads tokens k T ... k T + T - 1 and
predicts tokens k T + 1 ... k T + T, so none is a target twice. The cursor counts windows, never
batches: a run that changes its batch size goes on exactly where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from benchmark.base.errors import ConfigError, DataError
from benchmark.base.seeding import generator


def tokens_per_epoch(n_tokens: int, seq_len: int) -> int:
    """Tokens that one epoch of a text of `n_tokens` predicts, in windows of `seq_len`."""
    return (n_tokens - 1) // seq_len * seq_len


@dataclass(frozen=True, eq=False)
class ByteStream:
    """Training text in random order: item `step` is that step's batch, int64 (B, T + 1).

    Each window is read at most once per epoch; every epoch has its own permutation. At most T
    tokens at the end of the text fill no window and are never read. There is no length.
    """

    text: Tensor = field(repr=False)
    """Training split, bytes or tokens (N,); only read, so it may be memory-mapped."""

    seq_len: int
    batch_size: int
    seed: int
    stream: str = "train"

    allow_repeats: bool = False
    """Whether training may go on after one epoch."""

    first_window: int = 0
    """Cursor of item 0: the windows that earlier stages have read."""

    def __post_init__(self) -> None:
        for name, least in {"seq_len": 1, "batch_size": 1, "first_window": 0}.items():
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if len(self.text) <= self.seq_len:
            raise DataError(
                f"the training split has {len(self.text)} tokens; one window of "
                f"seq_len={self.seq_len} needs {self.seq_len + 1}"
            )

    @property
    def n_windows(self) -> int:
        """Windows in one epoch."""
        return len(self._windows)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens that one epoch predicts."""
        return tokens_per_epoch(len(self.text), self.seq_len)

    def rows_at(self, window: int, count: int) -> Tensor:
        """So many rows from cursor `window` on, int64 (count, T + 1).

        Raises:
            DataError: they reach into a second epoch, and repeats are not allowed.
        """
        if window < 0:
            raise IndexError(f"cursor {window} is before the first window")
        wanted, has = (window + count) * self.seq_len, self.tokens_per_epoch
        if wanted > has and not self.allow_repeats:
            raise DataError(
                f"the budget asks for {wanted:,} training tokens, one epoch has {has:,}: take a "
                "larger corpus, a smaller budget, or set protocol.allow_repeats to true"
            )
        return self._windows[self._order(window, count)].long()

    def __getitem__(self, step: int) -> Tensor:
        return self.rows_at(self.first_window + step * self.batch_size, self.batch_size)

    @cached_property
    def _windows(self) -> Tensor:
        return self.text.unfold(0, self.seq_len + 1, self.seq_len)  # a view

    def _order(self, window: int, count: int) -> Tensor:
        """Windows that `count` rows from cursor `window` on show, across epochs if need be."""
        epoch, offset = divmod(window, self.n_windows)
        order = _permutation(self.n_windows, self.seed, self.stream, epoch)
        rows = order[offset : offset + count]
        if missing := count - len(rows):
            return torch.cat([rows, self._order(window + len(rows), missing)])
        return rows


def evaluation_windows(split: Tensor, seq_len: int, batch_size: int) -> Iterator[Tensor]:
    """Consecutive windows of `split` in which every token but the first is a target exactly once.

    The first has no context; the evaluator charges it the logarithm of the vocabulary's size, so
    that the tokens scored are `len(split)` for any T and B. Window k starts at token k T, as in
    `ByteStream`.

    Args:
        split: held-out text, bytes or tokens (N,).
        seq_len: targets per window, T.
        batch_size: windows per batch, B; the sum of the nats must not depend on it.

    Yields:
        int64 (B, T + 1), inputs `[:, :-1]` and targets `[:, 1:]`; then the windows short of a
        whole batch, with fewer rows; then the tail short of a whole window, (1, r + 1).
    """
    n_windows, tail = divmod(len(split) - 1, seq_len)
    if n_windows:
        for rows in split.unfold(0, seq_len + 1, seq_len).split(batch_size):
            yield rows.long()
    if tail:
        yield split[n_windows * seq_len :].long()[None]


@lru_cache(maxsize=2)  # the epochs on both sides of a boundary
def _permutation(n: int, seed: int, stream: str, epoch: int) -> Tensor:
    """Random order of n windows; 8 bytes a window, 28 MB for enwik9 at T = 256."""
    return torch.randperm(n, generator=generator(seed, stream, "epoch", epoch))
