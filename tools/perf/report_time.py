"""How long `growbench report` takes, and how that grows with the number of runs."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tools.perf.copied_runs import N_EVALUATIONS, write_copies
from tools.perf.rounds import table, take_turns

SOURCE = Path("results/cpu")
SIZES = (250, 500, 1000)
"""Numbers of runs; each is twice the one before."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def measure(
    n_rounds: int, sizes: Sequence[int] = SIZES, source: Path = SOURCE
) -> dict[int, list[float]]:
    """Seconds of every round, by number of runs; the sizes take turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {size: Path(scratch) / str(size) for size in sizes}
        for size, folder in folders.items():
            write_copies(source, folder, size)
        works = {size: partial(seconds, folder) for size, folder in folders.items()}
        return take_turns(works, n_rounds)


def seconds(folder: Path) -> float:
    """Wall-clock of the command, from nothing to the last file, on one core."""
    command = [sys.executable, "-m", "benchmark", "report", str(folder)]
    with _one_core():
        started = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | _ONE_THREAD, capture_output=True)
        return time.perf_counter() - started


def document(found: dict[int, list[float]]) -> str:
    """Section of the page that `make perf` writes."""
    medians = {size: statistics.median(rounds) for size, rounds in found.items()}
    rows = [
        {
            "runs": f"{size:,}",
            "seconds": f"{median:.2f}",
            "time / half the runs": f"{median / medians[size // 2]:.2f}"
            if size // 2 in medians
            else "",
        }
        for size, median in medians.items()
    ]
    return f"""## Rendering a report

`growbench report` in a new process on one core, from the start of Python to the last file. The
records are copies of the runs of suite `cpu`, with {N_EVALUATIONS} evaluations in a run that has
the whole budget. Medians of {min(map(len, found.values()))} rounds. A time that grows linearly at
most doubles with the runs.

{table(rows)}
"""


@contextmanager
def _one_core() -> Iterator[None]:
    """What starts meanwhile has a single core, on systems that can be told so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
