"""What runs have ahead, and how long that takes: here by trying it, elsewhere by a cost model.

`Probe` takes a few real training steps of every model before anything runs; what a method computes
between its stages, and the start of processes, are left out. `Machine` is for a machine that is not
there: a step takes the time of its arithmetic at an assumed share of the machine's peak or, if that
is longer, the time to launch the operations of its blocks, for which small models wait on a large
GPU. Scoring a byte is a third of training on it.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import import_class
from benchmark.data.stream import ByteStream
from benchmark.growth.operator import Moments
from benchmark.model.kernels import set_float32_products
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan import tuning
from benchmark.plan.config import MachineConfig
from benchmark.plan.run import Run
from benchmark.plan.spec import Done, StageSpec
from benchmark.stage.batches import Batches
from benchmark.stage.checkpoint import StageStore
from benchmark.training.baseline import Fit, Plain
from benchmark.training.evaluate import score
from benchmark.training.loop import make_fabric, train
from benchmark.training.optim import OptimizerConfig, RateCurve, gradient_powers

WARMUP_STEPS = 2
STEPS = 5
SEED = 0


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
        if has_stopped or run.next_stage(before) is None:
            return cls(run, before, len(before))
        return cls(run, run.predicted(before), len(before))

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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds that the parts of a stage take on this machine."""

    fit: float
    """To set up a fit."""

    step: float
    byte: float
    """To score one held-out byte."""

    def stage(self, spec: StageSpec, n_steps: int) -> float:
        """Seconds of a whole stage."""
        n_curve = (len(spec.marks) + 1) * int(spec.measure["curve_bytes"])
        n_final = sum(int(spec.data[split]) for split in spec.splits)
        return self.fit + n_steps * self.step + (n_curve + n_final) * self.byte


class Probe:
    """Measures every distinct model once."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.speeds: dict[str, Speed] = {}

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Predicted seconds of a stage of `n_steps` steps."""
        how = spec.precision, spec.is_compiled
        key = repr((spec.model_class, spec.model, spec.frozen, spec.batch_size, how))
        if key not in self.speeds:
            self.speeds[key] = measure(spec, self.device)
        return self.speeds[key].stage(spec, n_steps)


@dataclass(frozen=True)
class Machine:
    """The cost model of one machine."""

    config: MachineConfig

    def peak(self, precision: str) -> float:
        """FLOP/s of one GPU or core.

        Raises:
            ConfigError: the machine has no figure for this precision.
        """
        if precision not in self.config.peak:
            raise ConfigError(
                f"machine {self.config.name} has no peak for precision {precision}; "
                f"it has: {', '.join(sorted(self.config.peak))}"
            )
        return self.config.peak[precision]

    def step(self, flops: float, n_layer: int, precision: str) -> float:
        """Seconds of a training step of so many FLOPs and blocks."""
        arithmetic = flops / (self.peak(precision) * self.config.utilisation)
        return max(arithmetic, n_layer * self.config.layer_seconds)

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Seconds of a whole stage of `n_steps` steps, its evaluations included."""
        n_layer, seq_len = int(spec.model["n_layer"]), int(spec.model["seq_len"])
        windows = int(spec.measure["batch_size"])
        scored = self.step(spec.step_flops * windows / spec.batch_size, n_layer, spec.precision)
        return Speed(
            fit=self.config.stage_seconds,
            step=self.step(spec.step_flops, n_layer, spec.precision),
            byte=scored / 3 / (windows * seq_len),
        ).stage(spec, n_steps)


def measure(spec: StageSpec, device: str) -> Speed:
    """Train the stage's model for a few steps on random bytes, and score some.

    Of several devices one is measured, with its part of a batch; that they wait for one another
    is left out.
    """
    spec = replace(spec, devices=1, batch_size=spec.batch_size // spec.devices)
    set_float32_products(spec.precision)
    model_class = import_class(spec.model_class, Transformer, "model_class")
    config, random = ModelConfig(**spec.model), torch.Generator().manual_seed(SEED)
    model = model_class(config, generator=random).to(device)
    n_steps = WARMUP_STEPS + STEPS
    n_curve = math.ceil(int(spec.measure["curve_bytes"]) / config.seq_len)
    n_scored = min(int(spec.measure["batch_size"]), n_curve)
    n_bytes = config.seq_len * max(n_steps * spec.batch_size, n_scored) + 1
    text = torch.randint(256, (n_bytes,), generator=random, dtype=torch.uint8)
    stream = ByteStream(text=text, seq_len=config.seq_len, batch_size=spec.batch_size, seed=SEED)
    baseline, clock = Plain(), _Clock()
    baseline.begin(_fit(spec, model, clock))
    started = time.perf_counter()
    train(baseline, Batches(stream, n_steps), make_fabric(device, spec.precision))
    elapsed = time.perf_counter() - started
    times = clock.ends[WARMUP_STEPS:]
    step = statistics.median(end - start for start, end in pairwise(times))
    return Speed(
        fit=max(0.0, elapsed - n_steps * step),
        step=step,
        byte=_seconds_per_byte(model, text, n_scored),
    )


def _fit(spec: StageSpec, model: Transformer, clock: "_Clock") -> Fit:
    optimizer = OptimizerConfig(**spec.optimizer)
    return Fit(
        model=model,
        moments=Moments.zeros(model, gradient_powers(optimizer)),
        is_new={},
        frozen=spec.frozen,
        optimizer=optimizer,
        rate=RateCurve(**spec.rate | {"decay": None}),
        rewarm=None,
        budget_flops=spec.budget_flops,
        grown_at=0.0,
        start_flops=0.0,
        n_done=0,
        step_flops=spec.step_flops,
        is_compiled=spec.is_compiled,
        on_step=clock.on_step,
    )


def _seconds_per_byte(model: Transformer, text: Tensor, batch_size: int) -> float:
    text = text[: batch_size * model.config.seq_len + 1]
    score(model, text[: model.config.seq_len], batch_size)
    started = time.perf_counter()
    score(model, text, batch_size)
    return (time.perf_counter() - started) / len(text)


class _Clock:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, loss: Tensor, started: float) -> None:
        """Note the end of a step."""
        loss.item()  # waits for an accelerator
        self.ends.append(time.perf_counter())
