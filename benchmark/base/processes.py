"""What a process and those that it starts have to know of each other's end."""

import multiprocessing
import os
import signal


def follow_parent() -> None:
    """End this process when the one that started it is gone, however it went; for a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def death(code: int | None) -> str:
    """How a process ended that said nothing of it.

    Args:
        code: its exit code, negative for a signal.
    """
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        often = ", as systems do that run out of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{often}"
    return f"its process ended with exit code {code}"
