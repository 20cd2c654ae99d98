"""How far a stage has come: its steps, their losses, and the position that they amount to."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from benchmark.base.errors import DivergenceError
from benchmark.model.cost import Position, affordable_steps
from benchmark.stage.checkpoint import State
from benchmark.stage.fitting import Fitting

N_TRAIN_RECORDS = 50
"""Records of the training loss per C*."""


class Steps:
    """Counts the steps of a fit and adds up their losses, in every process alike."""

    def __init__(self, fitting: Fitting, state: State) -> None:
        spec = fitting.spec
        self.fitting, self.spec, self.start = fitting, spec, state.start
        self.n_steps = affordable_steps(self.start.flops, spec.until, spec.step_flops)
        self.n_done = state.position.step - self.start.step
        spacing = spec.budget_flops / N_TRAIN_RECORDS
        marks = [i * spacing for i in range(1, N_TRAIN_RECORDS + 1)]
        self.records = self.steps_at(marks) | {self.n_steps}
        self.loss = torch.tensor(state.loss_sum, device=state.model.device)
        self.n_losses = state.loss_count
        self.seconds = state.position.seconds

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
        """Called after a step that started then."""
        if self.n_done in self.records:
            self.settle()

    def settle(self) -> None:
        """Agree on the mean loss since the last time, and begin anew.

        Raises:
            ChangedError: the corpus has changed.
            DivergenceError: it is not finite.
            MethodError: the method has changed the process.
        """
        self.fitting.check()
        n_ranks = self.fitting.share.n_ranks
        if n_ranks > 1:
            torch.distributed.all_reduce(self.loss)
        loss = float(self.loss) / n_ranks / self.n_losses
        self.loss.zero_()
        self.n_losses = 0
        self.on_loss(loss)
        if not loss < float("inf"):
            n = self.start.step + self.n_done
            raise DivergenceError(f"the training loss is {loss} after {n} steps")

    def on_loss(self, loss: float) -> None:
        """Called with every mean loss; does nothing here, as rank 0 alone records it."""
