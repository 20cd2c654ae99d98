"""What is counted, recorded, evaluated and saved while a stage trains."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import DivergenceError
from benchmark.growth.schedule import Point
from benchmark.model.compiled import compile_seconds
from benchmark.model.cost import Position, affordable_steps, training_flops_per_token
from benchmark.plan.spec import StageSpec
from benchmark.stage.checkpoint import State, save_state
from benchmark.stage.context import TICK_SECONDS, Tick
from benchmark.stage.fitting import (
    Share,
    wait_for,
)
from benchmark.training.optim import moments_of

if TYPE_CHECKING:
    from benchmark.stage.stage import Stage

N_TRAIN_RECORDS = 50
"""Records of the training loss per C*."""


class Steps:
    """Counts the steps of a fit and adds up their losses, in every process alike."""

    def __init__(self, spec: StageSpec, state: State, share: Share) -> None:
        self.spec, self.start, self.share = spec, state.start, share
        self.n_steps = affordable_steps(self.start.flops, spec.until, spec.step_flops)
        self.n_done = state.position.step - self.start.step
        spacing = spec.budget_flops / N_TRAIN_RECORDS
        marks = [i * spacing for i in range(1, N_TRAIN_RECORDS + 1)]
        self.records = self.steps_at(marks) | {self.n_steps}
        self.loss = torch.tensor(state.loss_sum, device=state.model.device)
        self.n_losses = state.loss_count

    def steps_at(self, marks: Iterable[float]) -> set[int]:
        """The last steps of the stage that end at or before these FLOPs."""
        start, cost = self.start.flops, self.spec.step_flops
        return {affordable_steps(start, mark, cost) for mark in marks if mark > start}

    def on_step(self, loss: Tensor, started: float) -> None:
        """Count a step of this loss, that started then."""
        self.loss += loss
        self.n_losses += 1
        self.n_done += 1
        self.after_step(started)

    def after_step(self, started: float) -> None:
        """What follows a step that started then."""
        if self.n_done in self.records:
            self.settle()

    def settle(self) -> None:
        """Agree on the mean loss since the last time, and begin anew.

        Raises:
            DivergenceError: it is not finite.
        """
        if self.share.n_ranks > 1:
            torch.distributed.all_reduce(self.loss)
        loss = float(self.loss) / self.share.n_ranks / self.n_losses
        self.loss.zero_()
        self.n_losses = 0
        self.on_loss(loss)
        if not loss < float("inf"):
            n = self.start.step + self.n_done
            raise DivergenceError(f"the training loss is {loss} after {n} steps")

    def on_loss(self, loss: float) -> None:
        """What becomes of a mean loss; it is rank 0 that records it."""


class Meter(Steps):
    """Records, evaluates off the clock and saves; the only observer of a fit."""

    def __init__(self, stage: "Stage", state: State) -> None:
        super().__init__(stage.spec, state, stage.share)
        self.stage, self.state = stage, state
        self.evaluations = self.steps_at(stage.spec.marks)
        self.seconds = state.position.seconds
        self.last_saved = self.last_tick = time.perf_counter()

    @property
    def position(self) -> Position:
        """Now; computed from the start, so that an interruption leaves no trace in it."""
        spec, n = self.stage.spec, self.n_done
        windows = n * spec.batch_size
        end = self.state.start.after(
            steps=n,
            windows=windows,
            tokens=windows * int(spec.model["seq_len"]),
            flops=n * spec.step_flops,
        )
        return replace(end, seconds=self.seconds)

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
            save_state(self.stage.progress, self.snapshot())
            self.last_saved = time.perf_counter()

    @property
    def is_due(self) -> bool:
        """Whether to save after this step; the losses of other ranks are known at records alone."""
        is_late = time.perf_counter() - self.last_saved > self.stage.context.checkpoint_seconds
        return is_late and (self.share.n_ranks == 1 or self.n_done in self.records)

    @override
    def on_loss(self, loss: float) -> None:
        rate = self.stage.baseline.rate_used
        self.stage.log.append("train", loss=loss, lr=rate, **where(self.position))

    def evaluate(self) -> None:
        """Score the curve slice and record it."""
        started = time.perf_counter()
        position = self.position
        result = self.stage.score_curve(self.state.model, position)
        self.stage.log.append(
            "evaluation",
            split="curve",
            bpb=result.bits_per_byte,
            nats=float(result.nats.sum()),
            n_bytes=result.n_bytes,
            eval_seconds=time.perf_counter() - started,
            **where(position),
        )
        point = Point(position.flops, result.bits_per_byte, self.stage.spec.rung)
        self.state = replace(self.state, points=(*self.state.points, point))
        self.tick()

    def tick(self) -> None:
        """Show that the stage is alive."""
        points = self.state.points
        bpb = points[-1].bpb if points else None
        self.stage.context.on_tick(Tick(self.stage.spec.id, self.position, bpb))
        self.last_tick = time.perf_counter()

    def snapshot(self) -> State:
        """The state of training now."""
        model, optimizer = self.state.model, self.stage.baseline.optimizer
        return replace(
            self.state,
            moments=moments_of(model, optimizer),
            position=self.position,
            log_bytes=self.stage.log.sync(),
            loss_sum=float(self.loss),
            loss_count=self.n_losses,
        )

    def finish(self) -> State:
        """Evaluate the end of the stage, record its cost, and return its last state."""
        self.state.model.to(self.stage.spec.device)  # Lightning leaves it on the CPU
        if self.stage.spec.is_compiled:
            self._record_compilation()
        self.evaluate()
        return self.charged()

    def _record_compilation(self) -> None:
        """Say what compiling took since the stage started, or was resumed."""
        where_now = where(self.position)
        self.stage.log.append("compilation", compile_seconds=compile_seconds(), **where_now)

    def charged(self) -> State:
        """Record what the stage cost, and return its last state."""
        state = self.snapshot()
        tokens, frozen = state.position.tokens - state.start.tokens, self.stage.spec.frozen
        unmasked = tokens * training_flops_per_token(state.model, frozen, causal=False)
        self.stage.charge("train", state.start, state.position, unmasked)
        return replace(state, log_bytes=self.stage.log.offset)


def where(position: Position) -> dict[str, int | float]:
    """The fields of a record that say how far the run had come."""
    return {
        "step": position.step,
        "tokens": position.tokens,
        "flops": position.flops,
        "seconds": position.seconds,
    }
