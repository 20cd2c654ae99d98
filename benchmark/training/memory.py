"""Memory: what a training step needs, what a process keeps between steps, and a stage's peak."""

import ctypes
import math
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.model.kernels import N_CHUNKS
from benchmark.model.transformer import Kind, Transformer

STAGE, PROCESS = "stage", "process"
_SLACK = 2**24
"""By how much a mark may exceed what is in use right after it was lowered; bytes."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # see mallopt(3)
_LARGEST = 2**25
"""The largest block that glibc can be told to keep; bytes."""


def keep_freed_memory() -> None:
    """Keep the memory that this process frees, up to blocks of 32 MiB, for its next use.

    Otherwise glibc gives part of it back after every training step, and asking for it anew costs a
    page fault for each 4 KiB. Does nothing where the C library is another one.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)


def device_bytes(device: str) -> float:
    """Memory of the GPU that this process uses, whoever else uses it; infinite for a CPU."""
    if device != "cuda":
        return math.inf
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


class PeakMemory:
    """The peak since this was made; one at a time per process.

    On a GPU it counts what tensors take; on a CPU what the process holds, interpreter and libraries
    included. Where the system cannot lower the high-water mark of a process, the peak is that of
    all stages it ran so far, and `scope` says so.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.scope = STAGE if self._lower() else PROCESS

    @property
    def n_bytes(self) -> int:
        """The most that was in use at once."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.scope == STAGE:
            return _status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT

    def _lower(self) -> bool:
        """Reset the peak; returns whether the system can do that."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        if (trim := _glibc("malloc_trim")) is not None:
            trim(0)  # or what earlier stages freed would count
        try:
            Path("/proc/self/clear_refs").write_text("5")  # see proc_pid_clear_refs(5)
            return _status("VmHWM") <= _status("VmRSS") + _SLACK
        except (OSError, KeyError):
            return False


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _status(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {name: value for name, _, value in (line.partition(":") for line in lines)}[field]
    return 1024 * int(kilobytes.removesuffix("kB"))


def step_bytes(model: Transformer, n_tokens: int, *, is_half: bool) -> int:
    """Estimate of what a training step takes on a GPU at its peak.

    A parameter takes 16 bytes: weight, gradient and two moments; 2 more for the copy that products
    of bfloat16 are given. A token takes what the backward pass reads: of each linear map its input
    and its output (a residual write's is only added), of each norm its input in float32, a quarter
    more for copies such as queries and keys that were turned, and 16 bytes for each logit, where
    these are not made in parts.

    Args:
        model: may be a shell without memory.
        n_tokens: of one micro-batch.
        is_half: whether products are of bfloat16.
    """
    width, per_token = 2 if is_half else 4, 0.0
    for _, part in model.parts():
        for axes in part.axes.values():
            n_out, n_in = (
                math.prod(map(model.config.size, ends)) for ends in (axes.out, axes.into)
            )
            if axes.kind is Kind.MAP:
                per_token += width * (n_in + (n_out if axes.out != ("d_model",) else 0))
            elif axes.kind is Kind.GAIN:
                per_token += 4 * n_in * n_out
    n_params = sum(parameter.numel() for parameter in model.parameters())
    n_parts = 1 if model.large_head is None else N_CHUNKS
    logits = 16 * model.config.vocab_size / n_parts
    return int(n_params * (18 if is_half else 16) + n_tokens * (1.25 * per_token + logits))
