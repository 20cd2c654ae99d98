"""How processes are started, and what they have to know of each other's end.

On Linux they are copies of a server that has imported what they need: importing takes seconds,
copying milliseconds. It has one thread and uses no GPU, as what is copied may have neither.
Elsewhere processes import for themselves: one with threads of the system's own cannot be copied.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

if sys.platform == "linux":
    CONTEXT = multiprocessing.get_context("forkserver")
else:
    CONTEXT = multiprocessing.get_context("spawn")

MODULES = [
    "benchmark.executors.worker",
    "benchmark.executors.preloaded",
    "benchmark.training.lightning",
    "lightning_fabric",
    "torch._inductor.config",
]
"""What workers are made of, and what they import for their first step."""


def start_server() -> None:
    """Let the server begin to import, unless it has; returns at once."""
    if sys.platform == "linux":
        CONTEXT.set_forkserver_preload(MODULES)
        with interrupts_held_back():
            forkserver.ensure_running()


def follow_parent() -> None:
    """End this process when the one that started it is gone, however it went; for a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let SIGINT wait; processes that start meanwhile never get it: the parent decides."""
    resource_tracker.ensure_running()  # whose start lets SIGINT through, so it comes before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def death(code: int | None) -> str:
    """How a process ended that said nothing of it, by its exit code; a signal's is negative."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        often = ", as systems do that run out of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{often}"
    return f"its process ended with exit code {code}"
