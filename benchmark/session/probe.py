"""How long a suite will take: a few real training steps of every model, before anything runs.

The prediction leaves out what a method computes between its stages and the start of the processes.
"""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from benchmark.base.plugins import import_class
from benchmark.data.stream import ByteStream
from benchmark.growth.operator import Moments
from benchmark.model.kernels import set_float32_products
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.spec import StageSpec
from benchmark.stage.batches import Batches
from benchmark.training.baseline import Fit, Plain
from benchmark.training.evaluate import score
from benchmark.training.loop import make_fabric, train
from benchmark.training.optim import OptimizerConfig, RateCurve, gradient_powers

WARMUP_STEPS = 2
STEPS = 5
SEED = 0


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
    n_bytes = config.seq_len * max(n_steps * spec.batch_size, int(spec.measure["batch_size"])) + 1
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
        byte=_seconds_per_byte(model, text, int(spec.measure["batch_size"])),
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
