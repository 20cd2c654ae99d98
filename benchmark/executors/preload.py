"""A server process that has imported what workers need; workers are copies of it.

Importing takes seconds, copying milliseconds. The server has one thread and uses no GPU, as what
is copied may have neither. Where there is no such server, workers import for themselves.
"""

import sys
from multiprocessing import forkserver

from benchmark.base.processes import CONTEXT, interrupts_held_back

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
