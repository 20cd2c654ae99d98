"""How commands that tests start take Ctrl-C."""

import signal


def heed_interrupts() -> None:
    """Undo what a shell that runs the tests in the background tells its children: ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
