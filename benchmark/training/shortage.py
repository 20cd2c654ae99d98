"""What to do when memory runs out: the same again, in smaller pieces."""

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
_ALLOCATOR_SAYS = ("can't allocate memory", "not enough memory")
_CUDA_SAYS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of what is not PyTorch's to allocate on a GPU: contexts, work spaces of libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, on a GPU or on the machine."""
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_known or any(words in str(error) for words in (*_ALLOCATOR_SAYS, *_CUDA_SAYS))


def first_that_fits(sizes: Iterable[int], attempt: Callable[[int], T]) -> T:
    """What `attempt` returns for the first of the sizes for which there is memory enough.

    Args:
        sizes: in the order to try them, such that each takes less memory than the one before.
        attempt: leaves nothing behind if it fails.

    Raises:
        MemoryError: none of them fits; what the last attempt was told.
    """
    said = ""
    for size in sizes:
        try:
            return attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
        gc.collect()  # the error has kept what the attempt had in memory until here
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MemoryError(f"even one window at a time is too much: {said}")


def halvings(size: int) -> Iterator[int]:
    """The size, half of it and so on down to 1, rounded down."""
    while size:
        yield size
        size //= 2


def micro_batches(n_windows: int, least: int = 1) -> Iterator[int]:
    """Into how many equal micro-batches a batch is cut, until each holds one window.

    Args:
        n_windows: of the batch.
        least: number of micro-batches to begin with.

    Yields:
        divisors of `n_windows`, each at least twice the one before.
    """
    for n in range(1, n_windows + 1):
        if n >= least and n_windows % n == 0:
            yield n
            least = 2 * n
