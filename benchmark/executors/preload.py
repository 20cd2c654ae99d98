"""A server process that has imported what workers need; workers are copies of it.

Importing takes seconds, copying milliseconds. The server has one thread and uses no GPU, as what
is copied may have neither. Where there is no such server, workers import for themselves.
"""

import sys
from multiprocessing import forkserver

from benchmark.base.processes import CONTEXT, interrupts_held_back


def start_server() -> None:
    """Let the server begin to import, unless it has; returns at once."""
    if sys.platform == "linux":
        CONTEXT.set_forkserver_preload(["benchmark.executors.worker"])
        with interrupts_held_back():
            forkserver.ensure_running()
