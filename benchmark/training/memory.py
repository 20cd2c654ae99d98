"""Memory of a process: kept between steps, and the peak of a stage whatever came before it."""

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

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
