"""One stage: load or grow, train, evaluate, record.

Nothing here depends on when or how often it was interrupted: the batch, the learning rate and the
evaluations are functions of the position, and a checkpoint holds the position, the weights, the
optimizer's state and how many bytes of the event log belong to it.
"""

import time
from contextlib import closing
from dataclasses import replace

from benchmark.base.errors import GrowthError, RecordError
from benchmark.base.plugins import import_class
from benchmark.base.seeding import generator
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.cost import Position, affordable_steps
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.spec import StageResult
from benchmark.records.events import EventLog
from benchmark.stage.batches import GrowthBatches
from benchmark.stage.checkpoint import State, load_state, save_state
from benchmark.stage.fitting import Fitting
from benchmark.stage.meter import Meter
from benchmark.stage.process import wait_for
from benchmark.stage.recorder import Recorder
from benchmark.training.memory import PeakMemory
from benchmark.training.optim import OptimizerConfig, gradient_powers


class Stage:
    """One stage while it runs.

    Args:
        fitting: what is trained.
        log: of the stage's events.
    """

    def __init__(self, fitting: Fitting, log: EventLog) -> None:
        self.fitting, self.spec, self.log = fitting, fitting.spec, log
        self.recorder = Recorder(fitting.spec, log, fitting.corpus)

    def run(self, recorded: StageResult | None) -> StageResult:
        """Train to the end of the stage.

        Args:
            recorded: the result of the stage if it was finished before; it must come out again.
        """
        started, memory = time.perf_counter(), PeakMemory(self.spec.device)
        resumed = self._resume()
        self.recorder.record_provenance(self.fitting.context.n_sharing)
        state = resumed or self._begin()
        self.recorder.record_micro_batch(state.position, self.fitting.n_micro)
        state, error = self._train(state)
        if error is None and self.spec.is_last:
            self.recorder.record_final(state)
        if recorded is not None:
            state = self._as_recorded(state, recorded)
        self.fitting.check()
        save_state(self.fitting.store.checkpoint(self.spec.id), state)
        return StageResult(
            status="diverged" if error else "done",
            error=error,
            end=state.position,
            points=state.points,
            peak_memory_bytes=memory.n_bytes,
            peak_memory_scope=memory.scope,
            executed_seconds=time.perf_counter() - started,
        )

    def _as_recorded(self, state: State, recorded: StageResult) -> State:
        """The state with the recorded time, from which the run's clock goes on."""
        state = replace(state, position=replace(state.position, seconds=recorded.end.seconds))
        if (state.position, state.points) != (recorded.end, recorded.points):
            raise RecordError(
                f"stage {self.spec.id}: trained again to restore its checkpoint, it comes to other "
                "losses than are recorded, as on another kind of processor or in other "
                "micro-batches; set run.cache to another folder"
            )
        return state

    def _resume(self) -> State | None:
        if not self.fitting.progress.is_file():
            self.log.truncate_to(0)
            return None
        state = self.fitting.saved_state()
        self.log.truncate_to(state.log_bytes)
        return state

    def _begin(self) -> State:
        state = self._inherited()
        if self.spec.grows_from is not None:
            state = self._grow(state)
        self.recorder.record_stage(state)
        return replace(state, start=state.position, points=(), log_bytes=self.log.offset)

    def _inherited(self) -> State:
        """The last state of the stage before this one, or that of a new model."""
        spec, device = self.spec, self.spec.device
        first_class = import_class(
            spec.grows_from_class or spec.model_class, Transformer, "model_class"
        )
        if spec.parent is not None:
            return load_state(self.fitting.store.take(spec.parent), first_class, device)
        config = ModelConfig(**(spec.grows_from or spec.model))
        model = first_class(config, generator=generator(spec.seed, "init"))
        spec.rule.scale_initial(model)
        model = model.to(device)
        powers = gradient_powers(OptimizerConfig(**spec.optimizer))
        return State(
            model=model,
            moments=Moments.zeros(model, powers),
            is_new={},
            position=Position(),
            start=Position(),
        )

    def _grow(self, small: State) -> State:
        spec, before = self.spec, self.recorder.score_curve(small.model, small.position)
        batches = GrowthBatches(self.fitting.stream(small.position))
        resources = Resources(
            generator(spec.seed, "growth", spec.n_grown),
            batches,
            self.fitting.model_class,
            self.fitting.n_micro,
            spec.rule,
        )
        started = time.perf_counter()
        grown = grow(
            small.model,
            small.moments,
            ModelConfig(**spec.model),
            self.fitting.baseline.operators,
            StatePolicy(spec.state_policy),
            resources,
        )
        batches.close()
        self.fitting.check()
        wait_for(grown.model.device)
        end = small.position.after(
            windows=batches.n_windows,
            tokens=batches.n_windows * grown.model.config.seq_len,
            flops=grown.flops,
            seconds=time.perf_counter() - started,
        )
        self._check_left(end)
        self.recorder.record_growth(small, before, grown, end)
        unmasked = grown.flops + grown.flops_masked
        self.recorder.record_charge("growth", small.position, end, unmasked)
        is_masked = spec.rewarm is not None and spec.rewarm["which"] == "new"
        return replace(
            small,
            model=grown.model,
            moments=grown.moments,
            position=end,
            is_new=grown.is_new if is_masked else {},
            grown_at=end.flops,
        )

    def _check_left(self, grown: Position) -> None:
        budget, step_flops = self.spec.budget_flops, self.spec.step_flops
        if affordable_steps(grown.flops, budget, step_flops) == 0:
            raise GrowthError(
                f"{self.spec.baseline} has grown at {grown.flops:.3g} FLOPs and leaves no step of "
                f"the budget of {budget:.3g}: let it learn its map in fewer steps, or grow earlier"
            )

    def _train(self, state: State) -> tuple[State, str | None]:
        with closing(Meter(self.fitting, self.recorder, state)) as meter:
            if error := self.fitting.fit(state, meter.left, meter.on_step):
                return meter.charged(), error
            return meter.finish(), None
