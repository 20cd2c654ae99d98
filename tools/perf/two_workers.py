"""What a second worker gains: real stages of suite `cpu`, from nothing, by one worker and by two.

Both start their processes within the time, both write every record and checkpoint, and both are
measured in turn, so that a machine that slows down slows both.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer
from tabulate import tabulate

from benchmark.executors.local import LocalExecutor
from benchmark.plan.config import load_suite
from benchmark.session.session import Session
from benchmark.stage.context import Context

SETTINGS = (
    "workload.corpus=synthetic",
    "methods=[scratch,stacking,net2net]",
    "protocol.budget_flops=4.8e11",
    "run.device=cpu",
)
"""A fifth of the suite's budget: about nine seconds a run."""

WORKERS = (1, 2)
ROUNDS = 2


@dataclass
class Times:
    """Seconds of each turn, by number of workers."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in WORKERS})

    @property
    def gain(self) -> float:
        """Median over the rounds of one worker's time over two workers'."""
        one, two = (self.seconds[n] for n in WORKERS)
        return statistics.median(a / b for a, b in zip(one, two, strict=True))


def turn(workers: int, settings: Sequence[str]) -> float:
    """Seconds to train every stage of the runs from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        folders = (f"run.cache={folder}", f"run.results={folder}")
        session = Session(load_suite("cpu", [*SETTINGS, *settings, *folders]))
        context = Context(corpus=session.suite.workload.corpus, cache=Path(folder))
        executor = LocalExecutor(context, workers)
        started = time.perf_counter()
        tracks = executor.run(session.runs, lambda _: None, lambda _: None)
        seconds = time.perf_counter() - started
    assert all(track.status == "done" for track in tracks)
    return seconds


def measure(rounds: int, *settings: str) -> Times:
    """Turns of one worker and of two, one after the other; `settings` are key=value."""
    times = Times()
    for _ in range(rounds):
        for workers in WORKERS:
            times.seconds[workers].append(turn(workers, settings))
    return times


def document(times: Times) -> str:
    """Section of the page that `make perf` writes."""
    rows = [
        {"workers": str(n), "seconds": f"{statistics.median(seconds):.1f}"}
        for n, seconds in times.seconds.items()
    ]
    return f"""## A second worker

Real stages of suite `cpu` at d_model 64, from the start of the processes to the last checkpoint:
two workers are **{times.gain:.2f} times** as fast as one. Medians of {len(times.seconds[1])}
rounds; ratios are taken within a round.

{tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)}
"""


def main(rounds: int = ROUNDS) -> None:
    """Time one worker and two, in turn."""
    torch.set_num_threads(1)
    typer.echo(document(measure(rounds)), nl=False)


if __name__ == "__main__":
    typer.run(main)
