"""Batches of a stage: for training, cut as memory allows; for growth, counted."""

from collections.abc import Iterator

from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.data.stream import ByteStream


class Batches:
    """The next `n_steps` batches of a stream: int64 (M, B, T + 1), M micro-batches of B rows."""

    def __init__(self, stream: ByteStream, n_steps: int, n_micro: int = 1) -> None:
        self.stream, self.n_steps, self.n_micro = stream, n_steps, n_micro

    def __iter__(self) -> Iterator[Tensor]:
        batches = (self.stream[step] for step in range(self.n_steps))
        return (batch.unflatten(0, (self.n_micro, -1)) for batch in batches)


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
        start = self.stream.first_window + self.n_windows
        batch = self.stream.rows_at(start, self.stream.batch_size)
        self.n_windows += len(batch)
        return batch
