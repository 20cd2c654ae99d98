"""What the scheduler costs: stages that only sleep, planned, handed out and gathered as real ones.

The ideal is the sum of the sleeps over the number of workers. Everything else counts: the start of
the processes (and of Ray), the planning of each next stage, and the idle end.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from tabulate import tabulate

from benchmark.executors.executor import Executor
from benchmark.executors.local import LocalExecutor
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import (
    ExecutionConfig,
    ProtocolConfig,
    SuiteConfig,
    WorkloadConfig,
    load_corpus,
    load_method,
)
from benchmark.plan.run import Run
from benchmark.stage.context import Context
from tools.perf.stub_stage import MEAN_SECONDS, seconds_of, sleep

MODEL = ModelConfig(d_model=32, n_layer=2, n_head=4, d_head=8, d_ff=64, seq_len=32)
BATCH_SIZE = 4
N_STEPS = 400
STAGES_PER_RUN = 4
N_STAGES = 1000
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Timing:
    """One suite of stubs, by one executor."""

    executor: str
    workers: int
    n_stages: int
    ideal: float
    """Seconds."""

    seconds: float

    @property
    def efficiency(self) -> float:
        """Ideal over real time."""
        return self.ideal / self.seconds


def runs(n_stages: int) -> list[Run]:
    """Runs of as many stages in all, four each."""
    tokens = BATCH_SIZE * MODEL.seq_len
    budget = N_STEPS * tokens * training_flops_per_token(Transformer.shell(MODEL))
    suite = SuiteConfig(
        name="scheduler",
        version="1.0",
        workload=WorkloadConfig(
            corpus=load_corpus("synthetic"), target=MODEL, batch_size=BATCH_SIZE
        ),
        protocol=ProtocolConfig(budget_flops=budget, rungs=[1.0], cuts=[0.25, 0.5]),
        run=ExecutionConfig(device="cpu"),
    )
    found = [Run(suite, load_method("scratch"), i, {}) for i in range(n_stages // STAGES_PER_RUN)]
    assert sum(len(run.predicted()) for run in found) == n_stages
    return found


def executor_of(name: str, context: Context, workers: int) -> Executor:
    """An executor whose stages sleep."""
    settings = ExecutionConfig(workers=workers)
    if name == "local":
        return LocalExecutor(context, settings, workers, train=sleep)
    from benchmark.executors.cluster import RayExecutor  # noqa: PLC0415 - an extra

    return RayExecutor(context, settings, train=sleep)


def measure(name: str, workers: int, n_stages: int) -> Timing:
    """Let an executor work through stages that sleep, from nothing."""
    suite = runs(n_stages)
    total = sum(seconds_of(spec) for run in suite for spec, _ in run.predicted())
    with tempfile.TemporaryDirectory() as cache:
        context = Context(corpus=load_corpus("synthetic"), cache=Path(cache))
        executor = executor_of(name, context, workers)
        started = time.perf_counter()
        tracks = executor.run(suite, lambda _: None, lambda _: None)
        seconds = time.perf_counter() - started
    assert all(track.status == "done" for track in tracks)
    return Timing(name, workers, n_stages, total / workers, seconds)


def document(timings: Sequence[Timing]) -> str:
    """Section of the page that `make perf` writes."""
    rows = [
        {
            "executor": timing.executor,
            "workers": str(timing.workers),
            "stages": f"{timing.n_stages:,}",
            "ideal, s": f"{timing.ideal:.1f}",
            "taken, s": f"{timing.seconds:.1f}",
            "of ideal": f"{timing.efficiency:.0%}",
        }
        for timing in timings
    ]
    return f"""## The scheduler

Stages that only sleep, {MEAN_SECONDS} s on average: nothing is trained. Ideal is the sum of the
sleeps over the workers; the start of processes, and of a Ray cluster on this machine, is within
the time taken.

{tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)}
"""


def both(workers: int = 2, n_stages: int = N_STAGES) -> list[Timing]:
    """Every executor in turn."""
    return [measure(name, workers, n_stages) for name in EXECUTORS]


def main(workers: int = 2, stages: int = N_STAGES) -> None:
    """Time both executors."""
    torch.set_num_threads(1)
    typer.echo(document(both(workers, stages)), nl=False)


if __name__ == "__main__":
    typer.run(main)
