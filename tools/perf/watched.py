"""Training as every method does it, that also notes when each step ended."""

import time
from typing import Any, ClassVar

from typing_extensions import override

from benchmark.baseline import Plain


class Watched(Plain):
    """`Plain` with a stopwatch; the hook runs after the harness has done its own work."""

    ends: ClassVar[list[float]] = []
    """Clock at the end of every step since the list was last emptied."""

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ends.append(time.perf_counter())
