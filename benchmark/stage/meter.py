"""What is done after every step: count it, record, evaluate off the clock, save."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from benchmark.base.errors import DivergenceError
from benchmark.growth.operator import Weights
from benchmark.model.compiled import compile_seconds
from benchmark.model.cost import Position, affordable_steps, training_flops_per_token
from benchmark.stage.checkpoint import State, pack, write_packed
from benchmark.stage.context import TICK_SECONDS, Tick
from benchmark.stage.fitting import Fitting
from benchmark.stage.process import wait_for
from benchmark.stage.recorder import Recorder, where
from benchmark.training.optim import moments_of

SPACING_PER_SAVE = 20
"""Least time between two saves in units of what the last took, so that they take 5 % at most."""

N_TRAIN_RECORDS = 50
"""Records of the training loss per C*."""


class Meter:
    """Counts the steps of a fit and their losses; records, evaluates and saves when it is time."""

    def __init__(self, fitting: Fitting, recorder: Recorder, state: State) -> None:
        spec = fitting.spec
        self.fitting, self.spec, self.start = fitting, spec, state.start
        self.recorder, self.state = recorder, state
        self.n_steps = affordable_steps(self.start.flops, spec.until, spec.step_flops)
        self.n_done = state.position.step - self.start.step
        spacing = spec.budget_flops / N_TRAIN_RECORDS
        marks = [i * spacing for i in range(1, N_TRAIN_RECORDS + 1)]
        self.records = self._steps_at(marks) | {self.n_steps}
        self.evaluations = self._steps_at(spec.marks)
        self.loss = torch.tensor(state.loss_sum, device=state.model.device)
        self.n_losses = state.loss_count
        self.seconds = state.position.seconds
        self.last_saved = self.last_tick = time.perf_counter()
        self.save_seconds = 0.0
        self.saving: Future[float] | None = None
        self.writer = ThreadPoolExecutor(1)
        self.compiled_before = compile_seconds() if spec.is_compiled else 0.0

    @property
    def left(self) -> range:
        """Numbers of the steps that are still to be taken."""
        return range(self.n_done, self.n_steps)

    @property
    def position(self) -> Position:
        """Now; computed from the start, so that an interruption leaves no trace in it."""
        spec, n = self.spec, self.n_done
        windows = n * spec.batch_size
        end = self.start.after(
            steps=n,
            windows=windows,
            tokens=windows * int(spec.model["seq_len"]),
            flops=n * spec.step_flops,
        )
        return replace(end, seconds=self.seconds)

    def _steps_at(self, marks: Iterable[float]) -> set[int]:
        """The last steps of the stage that end at or before these FLOPs."""
        start, cost = self.start.flops, self.spec.step_flops
        return {affordable_steps(start, mark, cost) for mark in marks if mark > start}

    def on_step(self, loss: Tensor, started: float) -> None:
        """Take note of a step of this loss, that started then."""
        self.loss += loss
        self.n_losses += 1
        self.n_done += 1
        is_due, is_record = self.is_due, self.n_done in self.records
        if is_due or is_record or self.n_done in self.evaluations:
            wait_for(self.loss.device)
        now = time.perf_counter()
        self.seconds += now - started
        if is_record:
            self._record_loss()
        if self.n_done in self.evaluations and self.n_done < self.n_steps:
            self.evaluate()
        if now - self.last_tick > TICK_SECONDS:
            self.tick()
        if is_due:
            self.fitting.check()
            self.save()

    @property
    def is_due(self) -> bool:
        """Whether to save after this step: not while the last state is still being written."""
        spacing = self.fitting.context.checkpoint_seconds
        if spacing == 0:
            self.close()
        elif self.saving is not None and not self.saving.done():
            return False
        else:
            self.close()
            spacing = max(spacing, SPACING_PER_SAVE * self.save_seconds)
        return time.perf_counter() - self.last_saved > spacing

    def save(self) -> None:
        """Keep the state of training, to go on from after an interruption.

        Only copying it to main memory keeps the next step waiting; another thread writes it.
        """
        started = time.perf_counter()
        packed = pack(self.snapshot(), copy=True)
        self.saving = self.writer.submit(self._write, started, *packed)
        self.last_saved = time.perf_counter()

    def _write(self, started: float, tensors: Weights, metadata: dict[str, str]) -> float:
        write_packed(self.fitting.progress, tensors, metadata)
        return time.perf_counter() - started

    def close(self) -> None:
        """Wait for the state that is being written, if one is.

        Raises:
            OSError: it cannot be written.
        """
        if self.saving is not None:
            saving, self.saving = self.saving, None
            self.save_seconds = saving.result()

    def _record_loss(self) -> None:
        """Record the mean loss since the last time, and begin anew.

        Raises:
            ChangedError: the corpus has changed.
            DivergenceError: the mean is not finite.
            MethodError: the method has changed the process.
        """
        self.fitting.check()
        loss = float(self.loss) / self.n_losses
        self.loss.zero_()
        self.n_losses = 0
        rate = self.fitting.baseline.rate_used
        self.recorder.log.append("train", loss=loss, lr=rate, **where(self.position))
        if not loss < float("inf"):
            n = self.start.step + self.n_done
            raise DivergenceError(f"the training loss is {loss} after {n} steps")

    def evaluate(self) -> None:
        """Score the curve slice and record it."""
        point = self.recorder.record_evaluation(self.state.model, self.position)
        self.state = replace(self.state, points=(*self.state.points, point))
        self.tick()

    def tick(self) -> None:
        """Report the position and the newest score."""
        points = self.state.points
        bpb = points[-1].bpb if points else None
        self.fitting.context.on_tick(Tick(self.spec.id, self.position, bpb))
        self.last_tick = time.perf_counter()

    def snapshot(self) -> State:
        """The present state, with the event log on disk."""
        return replace(
            self.state,
            moments=moments_of(self.state.model, self.fitting.baseline.optimizer),
            position=self.position,
            log_bytes=self.recorder.log.sync(),
            loss_sum=float(self.loss),
            loss_count=self.n_losses,
        )

    def finish(self) -> State:
        """Evaluate the end of the stage, record its cost, and return its last state."""
        if self.spec.is_compiled:
            spent, at = compile_seconds() - self.compiled_before, where(self.position)
            self.recorder.log.append("compilation", compile_seconds=spent, **at)
        self.evaluate()
        return self.charged()

    def charged(self) -> State:
        """Record what the stage cost, and return its last state."""
        state = self.snapshot()
        tokens, frozen = state.position.tokens - state.start.tokens, self.spec.frozen
        unmasked = tokens * training_flops_per_token(state.model, frozen, causal=False)
        unmasked += (state.position.step - state.start.step) * self.spec.optimizer_flops
        self.recorder.record_charge("train", state.start, state.position, unmasked)
        return replace(state, log_bytes=self.recorder.log.offset)
