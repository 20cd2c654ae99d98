"""Where the coordinates of a widened axis come from, and how tensors are laid out along them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AxisMap:
    """Where the coordinates of one widened axis come from; on the CPU, wherever the model is."""

    source: Tensor
    """int64 (new,): the small coordinate each large one repeats; -1 for one without a source."""

    share: Tensor
    """float64 (new,): how much of the sum over its source's copies a reader takes from this one."""

    @classmethod
    def evenly(cls, source: Tensor) -> "AxisMap":
        """Every copy of a coordinate is read with the same share, 1 / copies."""
        old = source[source >= 0]
        counts = torch.bincount(old, minlength=1).clamp(min=1)
        share = torch.ones(len(source), dtype=torch.float64, device="cpu")
        share[source >= 0] = 1.0 / counts[old].double()
        return cls(source, share)

    @cached_property
    def is_new(self) -> Tensor:
        """Which of the new coordinates, bool (new,), are not the first to repeat their source."""
        position = torch.arange(len(self.source), device="cpu")
        n_old = int(self.source.max()) + 1
        first = torch.full((n_old,), len(self.source), device="cpu").scatter_reduce(
            0, self.source.clamp(min=0), position.where(self.source >= 0, len(position)), "amin"
        )
        return (self.source < 0) | (position != first[self.source.clamp(min=0)])

    @cached_property
    def sourced(self) -> Tensor:
        """Positions of the coordinates that have a source."""
        return (self.source >= 0).nonzero()[:, 0]

    @cached_property
    def firsts(self) -> Tensor:
        """Positions of the first image of every old coordinate."""
        return (~self.is_new).nonzero()[:, 0]

    @property
    def has_copies(self) -> bool:
        """Whether any source is repeated."""
        return len(self.firsts) < len(self.sourced)

    @cached_property
    def is_doubled(self) -> bool:
        """Whether the second half of the coordinates repeats the first, which has no copies."""
        half = len(self.source) // 2
        swapped = torch.arange(len(self.source), device="cpu").roll(half)
        return torch.equal(self.next_copy, swapped) and half > 0

    @cached_property
    def next_copy(self) -> Tensor:
        """For each coordinate the next one with the same source, in a cycle; itself if alone."""
        following = torch.arange(len(self.source), device="cpu")
        order = self.sourced[self.source[self.sourced].argsort(stable=True)]
        _, counts = self.source[order].unique_consecutive(return_counts=True)
        for group in order.split(counts.tolist()):
            following[group] = group.roll(-1)
        return following


MOST_RUNS = 64
"""Beyond so many pieces, copying them one by one is slower than picking coordinates."""

ENTRIES_AT_ONCE = 2**17


def place(block: Tensor, into: Tensor, positions: Mapping[int, Tensor]) -> None:
    """Write `block` at the given coordinates of `into`, in place."""
    if not positions:
        into.copy_(block)
        return
    (dim, index), *rest = positions.items()
    if torch.equal(index, torch.arange(len(index), device="cpu")):
        place(block, into.narrow(dim, 0, len(index)), dict(rest))
    else:
        part = take(into, dim, index)
        place(block, part, dict(rest))
        into.index_copy_(dim, index.to(into.device), part)


def take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select`, or a view or a few large copies where the index is made of long runs."""
    if int((index.diff() != 1).sum()) < MOST_RUNS:
        pieces = [tensor.narrow(dim, *run) for run in consecutive_runs(index)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    index = index.to(tensor.device)
    if dim == 0:
        return tensor.index_select(0, index)
    shape = [*tensor.shape[:dim], len(index), *tensor.shape[dim + 1 :]]
    taken, rows = tensor.new_empty(shape), tensor.flatten(0, dim - 1)
    n_rows = max(1, ENTRIES_AT_ONCE * len(rows) // taken.numel())
    for part, into in zip(rows.split(n_rows), taken.flatten(0, dim - 1).split(n_rows), strict=True):
        torch.index_select(part, 1, index, out=into)
    return taken


def consecutive_runs(index: Tensor) -> list[tuple[int, int]]:
    """First number and length of every piece of `index` that counts upwards by one."""
    starts = [0, *((index.diff() != 1).nonzero()[:, 0] + 1).tolist()]
    lengths = [end - start for start, end in pairwise([*starts, len(index)])]
    return list(zip(index[starts].tolist(), lengths, strict=True))


def along(vector: Tensor, dim: int, like: Tensor) -> Tensor:
    """`vector` shaped to multiply dimension `dim` of `like`; floats take its dtype."""
    shape = [-1 if d == dim else 1 for d in range(like.ndim)]
    return vector.view(shape).to(like.device, like.dtype)


def address(tensor: Tensor) -> int:
    """Where the memory of a tensor starts, which views share."""
    return tensor.untyped_storage().data_ptr()
