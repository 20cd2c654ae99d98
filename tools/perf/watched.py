"""Training as every method does it, that also notes when each step ended."""

import time
from typing import ClassVar

from typing_extensions import override

from benchmark.training.baseline import Plain


class Watched(Plain):
    """`Plain` with a stopwatch."""

    turns: ClassVar[list[float]] = []
    """Clock between steps, before the first and after the last, since the list was last emptied."""

    @override
    def on_progress(self, since_growth: float) -> None:
        self.turns.append(time.perf_counter())
