"""What a second worker gains: real stages of suite `cpu`, from nothing, by one worker and by two.

Both start their processes within the time, both write every record and checkpoint, and both are
measured in turn, so that a machine that slows down slows both.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer
from tabulate import tabulate

from benchmark.config import load_suite
from benchmark.executors.local import LocalExecutor
from benchmark.runner import Context
from benchmark.session import Session

METHODS = ("scratch", "stacking", "net2net")
BUDGET_FLOPS = 4.8e11
"""A fifth of the suite's: about nine seconds a run."""

WORKERS = (1, 2)


@dataclass
class Times:
    """Seconds of each turn, by number of workers."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in WORKERS})

    @property
    def gain(self) -> float:
        """Median over the rounds of one worker's time over two workers'."""
        one, two = (self.seconds[n] for n in WORKERS)
        return statistics.median(a / b for a, b in zip(one, two, strict=True))


def turn(workers: int, budget: float) -> float:
    """Seconds to train every stage of the runs from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            "workload.corpus=synthetic", f"methods=[{','.join(METHODS)}]", "run.device=cpu",
            f"protocol.budget_flops={budget!r}", f"run.cache={folder}", f"run.results={folder}",
        ]  # fmt: skip
        session = Session(load_suite("cpu", settings))
        context = Context(corpus=session.suite.workload.corpus, cache=Path(folder))
        executor = LocalExecutor(context, workers)
        started = time.perf_counter()
        tracks = executor.run(session.runs, lambda _: None, lambda _: None)
        seconds = time.perf_counter() - started
    assert all(track.status == "done" for track in tracks)
    return seconds


def measure(rounds: int, budget: float = BUDGET_FLOPS) -> Times:
    """Turns of one worker and of two, one after the other."""
    times = Times()
    for _ in range(rounds):
        for workers in WORKERS:
            times.seconds[workers].append(turn(workers, budget))
    return times


def document(times: Times) -> str:
    """Markdown of what was measured."""
    rows = [
        {"workers": n, "seconds": f"{statistics.median(seconds):.1f}"}
        for n, seconds in times.seconds.items()
    ]
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    return f"Two workers are {times.gain:.2f} times as fast as one.\n\n{table}\n"


def main(rounds: int = 3) -> None:
    """Time one worker and two, in turn."""
    torch.set_num_threads(1)
    typer.echo(document(measure(rounds)), nl=False)


if __name__ == "__main__":
    typer.run(main)
