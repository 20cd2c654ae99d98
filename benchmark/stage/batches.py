"""Batches of a stage: for training, cut for each process and for memory; for growth, counted."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.data.stream import ByteStream


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that a process takes, and in how many pieces."""

    rank: int = 0
    n_ranks: int = 1
    """Processes, each with a device of its own, that take equal parts of a batch."""

    n_micro: int = 1
    """Micro-batches that such a part is cut into, as memory allows; their gradients add up."""

    @property
    def n_pieces(self) -> int:
        """Micro-batches of a whole batch."""
        return self.n_ranks * self.n_micro


class Batches:
    """The next `n_steps` batches of a stream, of each the share of one process.

    A function of the seed, the cursor and the rank. Items are int64 (M, B, T + 1): M micro-batches
    of B rows.
    """

    def __init__(self, stream: ByteStream, n_steps: int, share: Share = Share()) -> None:
        self.stream, self.n_steps, self.share = stream, n_steps, share

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._of_step, range(self.n_steps))

    def _of_step(self, step: int) -> Tensor:
        size, n_micro = self.stream.batch_size, self.share.n_micro
        n_rows = size // self.share.n_pieces
        window = self.stream.first_window + step * size + self.share.rank * n_micro * n_rows
        return self.stream.rows_at(window, n_micro * n_rows).unflatten(0, (n_micro, n_rows))


class GrowthBatches(Iterator[Tensor]):
    """Batches for an operator that learns, counted as they are read, until growth is over."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self.n_windows, self.is_closed = stream, 0, False

    def close(self) -> None:
        """Refuse further reads, which growth would not be charged for."""
        self.is_closed = True

    @override
    def __next__(self) -> Tensor:
        if self.is_closed:
            raise GrowthError("batches for growth are read after it; only growth is charged them")
        batch = self.stream.batch_at(self.stream.first_window + self.n_windows)
        self.n_windows += len(batch)
        return batch
