"""What runs have ahead, and how long that takes: here by trying it, elsewhere by a cost model.

`Probe` times a step of every model before anything runs, on a CPU in CPU time: what else keeps the
machine busy now need not do so later. What a method computes between its stages, and the start of
processes, are left out. `Machine` is for a machine that is not there: a step takes the time of its
arithmetic at a share of the machine's peak that rises with d_model or, if that is longer, the time
to launch the operations of its blocks. Scoring takes a third of training on the same text. It is in
float32 whatever the products of training are, so a machine adds float32 products to that.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import import_class
from benchmark.growth.operator import Moments
from benchmark.model.kernels import set_float32_products
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan import tuning
from benchmark.plan.config import MachineConfig
from benchmark.plan.run import Run
from benchmark.plan.spec import Done, StageSpec
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.process import wait_for
from benchmark.training.baseline import Fit, Plain
from benchmark.training.memory import keep_freed_memory
from benchmark.training.optim import OptimizerConfig, RateCurve, gradient_powers
from benchmark.training.shortage import first_that_fits, halvings

T = TypeVar("T")

MOST_TOKENS = 2**15
"""Of a batch that is timed before anything runs."""

MOST_SECONDS = 30.0
"""Of several steps, where they take long; one is timed in any case."""


@dataclass(frozen=True)
class Outlook:
    """A run, its stages as far as they are known, and how many of them are finished."""

    run: Run
    stages: Done
    n_finished: int

    @classmethod
    def of(cls, run: Run, store: StageStore) -> "Outlook":
        """What the store holds of a run, and a prediction of the rest."""
        before = store.usable(run)
        has_stopped = bool(before) and before[-1][1].status != "done"
        return cls(run, before if has_stopped else run.predicted(before), len(before))

    def left(self) -> Iterator[tuple[StageSpec, int]]:
        """Stages to train, and the steps of each."""
        step = self.stages[self.n_finished - 1][1].end.step if self.n_finished else 0
        for spec, result in self.stages[self.n_finished :]:
            yield spec, result.end.step - step
            step = result.end.step


def duration(
    outlooks: Iterable[Outlook], seconds: Callable[[StageSpec, int], float], workers: int
) -> float:
    """Seconds until all that is left is done, of stages that take so long each."""
    return predict(
        (
            [
                (f"{spec.id} {tuning.is_open(outlook.run.method)}", seconds(spec, steps))
                for spec, steps in outlook.left()
            ]
            for outlook in outlooks
        ),
        workers,
    )


def predict(paths: Iterable[Sequence[tuple[str, float]]], workers: int) -> float:
    """Seconds until all stages are done: the workers' fair share, or the longest run.

    Args:
        paths: id and seconds of the stages each run has left; runs that share a stage name it
            alike.
        workers: stages that run at once.
    """
    runs = [dict(path) for path in paths]
    distinct = {stage: seconds for run in runs for stage, seconds in run.items()}
    longest = max((sum(run.values()) for run in runs), default=0.0)
    return max(sum(distinct.values()) / workers, longest)


def scored_steps(spec: StageSpec) -> float:
    """Training steps that read as many tokens as the stage scores."""
    n_curve = (len(spec.marks) + 1) * int(spec.measure["curve_bytes"])
    n_final = sum(int(spec.data[split]) for split in spec.splits)
    per_byte = spec.data.get("train_tokens", spec.data["train"]) / spec.data["train"]
    return (n_curve + n_final) * per_byte / (spec.batch_size * int(spec.model["seq_len"]))


class Probe:
    """Times a step of every distinct model once, on this machine."""

    def __init__(self) -> None:
        self.measured: dict[str, float] = {}
        torch.set_num_threads(1)  # as a worker does
        keep_freed_memory()

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Predicted seconds of a stage of `n_steps` steps."""
        key = repr((spec.model_class, spec.model, spec.frozen, spec.batch_size, spec.precision))
        if key not in self.measured:
            n_windows = min(spec.batch_size, MOST_TOKENS // int(spec.model["seq_len"]))
            self.measured[key] = step_seconds(spec, max(1, n_windows), n_steps=1)
        return self.measured[key] * (n_steps + scored_steps(spec) / 3)


@dataclass(frozen=True)
class Machine:
    """The cost model of one machine."""

    config: MachineConfig
    compiles: bool = False
    """Whether training steps are compiled there."""

    def peak(self, precision: str) -> float:
        """FLOP/s of one GPU or core.

        Raises:
            ConfigError: the machine has no figure for this precision.
        """
        return _figure(self.config.name, "peak", self.config.peak, "precision", precision)

    @property
    def kind(self) -> str:
        """Of training steps: "eager" or "compiled"."""
        return "compiled" if self.compiles else "eager"

    def utilisation(self, d_model: int) -> float:
        """Share of the peak that a step reaches: between two widths linear in their logarithm.

        Raises:
            ConfigError: the machine has no figures for compiled steps, or for others.
        """
        shares = self.config.utilisation
        table = _figure(self.config.name, "utilisation", shares, "steps", self.kind)
        widths = sorted(map(int, table))
        known = [table[str(width)] for width in widths]
        return float(np.interp(math.log(d_model), np.log(widths), known))

    def step(self, flops: float, d_model: int, n_layer: int, precision: str) -> float:
        """Seconds of a training step of so many FLOPs, width and blocks."""
        arithmetic = flops / (self.peak(precision) * self.utilisation(d_model))
        return max(arithmetic, n_layer * self.config.layer_seconds)

    def needs(self, spec: StageSpec) -> tuple[int, int]:
        """Bytes that a step of the stage takes there, and its number of micro-batches."""
        n_micro = spec.micro_batches(self.config.memory_gigabytes * 1e9)
        return spec.step_bytes(n_micro), n_micro

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Seconds of a whole stage of `n_steps` steps, its evaluations included."""
        sizes = int(spec.model["d_model"]), int(spec.model["n_layer"]), spec.precision
        scored = replace(self, compiles=False).step(spec.step_flops, *sizes)
        if spec.precision == "bf16-mixed":
            scored += spec.step_flops / self.peak("32-true")
        step = self.step(spec.step_flops, *sizes)
        return self.config.stage_seconds + step * n_steps + scored * scored_steps(spec) / 3


def _figure(machine: str, what: str, table: Mapping[str, T], by: str, key: str) -> T:
    if key not in table:
        raise ConfigError(
            f"machine {machine} has no {what} for {by} {key}; it has: {', '.join(sorted(table))}"
        )
    return table[key]


def step_seconds(
    spec: StageSpec, n_windows: int, n_steps: int, *, updates: bool = False, compiles: bool = False
) -> float:
    """Median seconds of training steps of a stage's model, on random bytes.

    Args:
        spec: of the stage.
        n_windows: to time at once; fewer where memory is short.
        n_steps: to time, after a first one that waits for libraries.
        updates: whether the optimizer's part is timed; its first step imports a compiler.
        compiles: whether the model is compiled.
    """
    set_float32_products(spec.precision)
    device, random, method = torch.device(spec.device), torch.Generator().manual_seed(0), Plain()
    cls = import_class(spec.model_class, Transformer, "model_class")
    model = cls(ModelConfig(**spec.model), generator=random).to(device)
    optimizer = OptimizerConfig(**spec.optimizer)
    method.begin(Fit(
        model=model,
        moments=Moments.zeros(model, gradient_powers(optimizer)),
        frozen=spec.frozen,
        optimizer=optimizer,
        rate=RateCurve(peak=1e-4, warmup_flops=1.0, decay=None),
        budget_flops=spec.budget_flops,
        step_flops=spec.step_flops,
        is_compiled=compiles,
    ))  # fmt: skip

    def seconds(n: int) -> float:
        shape = n, model.config.seq_len + 1
        batch = torch.randint(model.config.vocab_size, shape, generator=random).to(device)

        def step() -> None:
            with torch.autocast(spec.device, torch.bfloat16, enabled="bf16" in spec.precision):
                loss = method(batch)
            loss.backward()
            if updates:
                method.update()

        return median_seconds(step, device, n_steps) * spec.batch_size / n

    return first_that_fits(halvings(n_windows), seconds)


def median_seconds(work: Callable[[], object], device: torch.device, n: int) -> float:
    """Of `n` times, after a first one: on a CPU its own, whatever else keeps the machine busy."""
    times, clock = list[float](), time.process_time if device.type == "cpu" else time.perf_counter
    while len(times) < 1 + n and (sum(times) < MOST_SECONDS or not times[1:]):
        started = clock()
        work()
        wait_for(device)
        times.append(clock() - started)
    return statistics.median(times[1:])
