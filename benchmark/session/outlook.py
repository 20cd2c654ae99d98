"""What runs have ahead, and how long that takes: here by trying it, elsewhere by a cost model.

`Probe` times a step of every model before anything runs, on a CPU in CPU time: what else keeps the
machine busy now need not do so later. What a method computes between its stages, and the start of
processes, are left out. `Machine` is for a machine that is not there: a step takes the time of its
arithmetic at an assumed share of the machine's peak or, if that is longer, the time to launch the
operations of its blocks, for which small models wait on a large GPU.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import import_class
from benchmark.model.kernels import set_float32_products
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan import tuning
from benchmark.plan.config import MachineConfig
from benchmark.plan.run import Run
from benchmark.plan.spec import Done, StageSpec
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.process import wait_for
from benchmark.training.baseline import mean_nats
from benchmark.training.memory import keep_freed_memory
from benchmark.training.shortage import first_that_fits, halvings

STEPS = 2
"""Of which the first only warms up."""

MOST_TOKENS = 2**15


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


def stage_seconds(spec: StageSpec, n_steps: int, step: float) -> float:
    """Seconds of a stage of `n_steps` training steps; scoring a token is a third of training on it.

    Args:
        spec: the stage.
        n_steps: its training steps.
        step: seconds of one of them.
    """
    n_curve = (len(spec.marks) + 1) * int(spec.measure["curve_bytes"])
    n_final = sum(int(spec.data[split]) for split in spec.splits)
    n_trained = spec.batch_size * int(spec.model["seq_len"])
    per_byte = spec.data.get("train_tokens", spec.data["train"]) / spec.data["train"]
    return step * (n_steps + (n_curve + n_final) * per_byte / n_trained / 3)


class Probe:
    """Measures a step of every distinct model once, on this machine."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.steps: dict[str, float] = {}
        torch.set_num_threads(1)  # as a worker does
        keep_freed_memory()

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Predicted seconds of a stage of `n_steps` steps."""
        key = repr((spec.model_class, spec.model, spec.frozen, spec.batch_size, spec.precision))
        if key not in self.steps:
            self.steps[key] = measured_step(spec, self.device)
        return stage_seconds(spec, n_steps, self.steps[key])


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
        step = self.step(spec.step_flops, int(spec.model["n_layer"]), spec.precision)
        return self.config.stage_seconds + stage_seconds(spec, n_steps, step)


def measured_step(spec: StageSpec, device: torch.device) -> float:
    """Seconds of a training step of the stage's model on random bytes; the update is left out.

    Of a batch that is large, or for which memory is short, part is measured.
    """
    set_float32_products(spec.precision)
    model_class = import_class(spec.model_class, Transformer, "model_class")
    config, random = ModelConfig(**spec.model), torch.Generator().manual_seed(0)
    model = model_class(config, generator=random).to(device)
    for name in spec.frozen:
        model.get_parameter(name).requires_grad_(False)
    is_half = spec.precision == "bf16-mixed"
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def seconds(n: int) -> float:
        shape, took = (n, config.seq_len + 1), 0.0
        batch = torch.randint(config.vocab_size, shape, generator=random).to(device)
        for _ in range(STEPS):
            started = clock()
            with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
                loss = mean_nats(model, batch)
            loss.backward()
            model.zero_grad()
            wait_for(device)
            took = clock() - started
        return took * spec.batch_size / n

    most = max(1, MOST_TOKENS // config.seq_len)
    return first_that_fits(halvings(min(spec.batch_size, most)), seconds)
