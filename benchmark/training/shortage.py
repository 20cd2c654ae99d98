"""What to do when memory runs out: the same again, in smaller pieces."""

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
_ALLOCATOR_ERRORS = ("can't allocate memory", "not enough memory")
_CUDA_ERRORS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Messages about memory that PyTorch does not allocate: contexts, work spaces of libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the machine."""
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_known or any(words in str(error) for words in (*_ALLOCATOR_ERRORS, *_CUDA_ERRORS))


def first_that_fits(sizes: Iterable[int], attempt: Callable[[int], T]) -> T:
    """The result of `attempt` for the first of the sizes for which there is enough memory.

    Args:
        sizes: in the order to try them, each taking less memory than the one before.
        attempt: leaves nothing behind if it fails.

    Raises:
        MemoryError: none of them fits; with the message of the last attempt.
    """
    message = ""
    for size in sizes:
        try:
            return attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = " ".join(f"{type(error).__name__}: {error}".split())
        gc.collect()  # the error kept alive what the attempt had in memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MemoryError(f"even one window at a time is too much: {message}")


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
