"""What rank 0 does after every step: record, evaluate off the clock, save."""

import time
from dataclasses import replace

from typing_extensions import override

from benchmark.model.compiled import compile_seconds
from benchmark.model.cost import training_flops_per_token
from benchmark.stage.checkpoint import State, save_state
from benchmark.stage.context import TICK_SECONDS, Tick
from benchmark.stage.fitting import Fitting
from benchmark.stage.process import wait_for
from benchmark.stage.recorder import Recorder
from benchmark.stage.steps import Steps
from benchmark.training.optim import moments_of

SPACING_PER_SAVE = 20
"""Least time between two saves in units of what the last took, so that they take 5 % at most."""


class Meter(Steps):
    """Steps that are recorded, evaluated and saved."""

    def __init__(self, fitting: Fitting, recorder: Recorder, state: State) -> None:
        super().__init__(fitting, state)
        self.recorder, self.state = recorder, state
        self.evaluations = self.steps_at(fitting.spec.marks)
        self.last_saved = self.last_tick = time.perf_counter()
        self.save_seconds = 0.0

    @override
    def after_step(self, started: float) -> None:
        is_due = self.is_due
        if is_due or self.n_done in self.records | self.evaluations:
            wait_for(self.loss.device)
        now = time.perf_counter()
        self.seconds += now - started
        super().after_step(started)
        if self.n_done in self.evaluations and self.n_done < self.n_steps:
            self.evaluate()
        if now - self.last_tick > TICK_SECONDS:
            self.tick()
        if is_due:
            self.fitting.check()
            self.save()

    @property
    def is_due(self) -> bool:
        """Whether to save after this step; the losses of other ranks are known at records alone."""
        spacing = self.fitting.context.checkpoint_seconds
        if spacing > 0:
            spacing = max(spacing, SPACING_PER_SAVE * self.save_seconds)
        is_late = time.perf_counter() - self.last_saved > spacing
        return is_late and (self.fitting.share.n_ranks == 1 or self.n_done in self.records)

    def save(self) -> None:
        """Keep the state of training, to go on from after an interruption."""
        started = time.perf_counter()
        save_state(self.fitting.progress, self.snapshot())
        self.last_saved = time.perf_counter()
        self.save_seconds = self.last_saved - started

    @override
    def on_loss(self, loss: float) -> None:
        self.recorder.record_train(loss, self.fitting.baseline.rate_used, self.position)

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
            self.recorder.record_compilation(compile_seconds(), self.position)
        self.evaluate()
        return self.charged()

    def charged(self) -> State:
        """Record what the stage cost, and return its last state."""
        state = self.snapshot()
        tokens, frozen = state.position.tokens - state.start.tokens, self.spec.frozen
        unmasked = tokens * training_flops_per_token(state.model, frozen, causal=False)
        self.recorder.record_charge("train", state.start, state.position, unmasked)
        return replace(state, log_bytes=self.recorder.log.offset)
