"""Executes one stage: load or grow, one Lightning fit, evaluate, record; resumes after a kill.

Nothing here depends on when or how often it was interrupted: the batch, the learning rate and the
evaluations are functions of the position, and a checkpoint holds the position, the weights, the
optimizer's state and how many bytes of the event log belong to it.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from typing_extensions import override

from benchmark.baseline import Baseline, Fit
from benchmark.checkpoint import StageStore, State, load_state, save_state
from benchmark.compiled import compile_seconds, keep_code
from benchmark.config import PluginConfig, build, import_class
from benchmark.cost import Position, affordable_steps, training_flops_per_token
from benchmark.data.corpora import CorpusConfig, load
from benchmark.data.stream import ByteStream
from benchmark.errors import DivergenceError, GrowthError, RecordError
from benchmark.evaluate import Score, score
from benchmark.growth import Grown, Moments, Resources, StatePolicy, grow
from benchmark.kernels import kernels, set_float32_products
from benchmark.memory import PeakMemory
from benchmark.model import ModelConfig, Transformer
from benchmark.optim import OptimizerConfig, RateCurve, Rewarm, moments_of
from benchmark.plan import StageResult, StageSpec
from benchmark.provenance import provenance
from benchmark.ranks import Meeting, run_on_ranks
from benchmark.records import EventLog, atomic_write, atomic_write_text, read_events
from benchmark.schedule import Point
from benchmark.seeding import generator
from benchmark.shortage import first_that_fits, micro_batches
from benchmark.training import (
    Batches,
    GrowthBatches,
    Share,
    make_trainer,
    prepare_process,
    wait_for,
)
from benchmark.watch import corpus_closed

TICK_SECONDS = 0.5

N_TRAIN_RECORDS = 50
"""Records of the training loss per C*."""


@dataclass(frozen=True)
class Tick:
    """A sign of life from a stage."""

    stage: str
    position: Position
    bpb: float | None
    """The newest evaluation, if there is one."""


def unobserved(_: Tick) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a stage runs; nothing here changes its result."""

    corpus: CorpusConfig
    cache: Path
    checkpoint_seconds: float = 60.0
    on_tick: Callable[[Tick], None] = unobserved


def execute(spec: StageSpec, context: Context) -> StageResult:
    """Run a stage to its end, from wherever it stands; a finished one is only read.

    One that is finished but has lost its checkpoint is trained again for that alone: its records
    and its result stay as they are.

    Divergence is a result; any other exception is the caller's to record.

    Raises:
        RecordError: trained again, it comes to other losses than are recorded.
    """
    store = StageStore(context.cache)
    folder = store.folder(spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        recorded = store.result(spec.id)
        if recorded is not None and store.checkpoint(spec.id).is_file():
            return recorded
        atomic_write_text(folder / "spec.json", json.dumps(asdict(spec), indent=1))
        log = folder / "progress.jsonl"
        told = folder if recorded is not None else store.folder(spec.parent or "")
        before = log if log.is_file() else told / "events.jsonl"
        result = first_that_fits(
            micro_batches(
                spec.batch_size // spec.devices, _known_to_fit(before, "training", "n_micro", 1)
            ),
            lambda n_micro: _attempt(spec, context, recorded, n_micro),
        )
        if recorded is None:
            atomic_write(folder / "events.jsonl", log.read_bytes())
            store.write_result(spec.id, result)
        for name in ("progress.safetensors", "progress.jsonl"):
            (folder / name).unlink(missing_ok=True)
    return recorded or result


def _known_to_fit(log: Path, what: str, field: str, default: int) -> int:
    """What a log says last of the batches that fit into memory for training or evaluation."""
    events = read_events(log) if log.is_file() else []
    found = (e for e in reversed(events) if e["kind"] == "micro_batch" and e["what"] == what)
    return next((event[field] for event in found), default)


def _attempt(
    spec: StageSpec, context: Context, recorded: StageResult | None, n_micro: int
) -> StageResult:
    """Go on from where the stage stands, on as many devices as it is to have."""
    if spec.devices == 1:
        return _lead(spec, context, recorded, Share(n_micro=n_micro))
    args = (spec, replace(context, on_tick=unobserved), recorded, n_micro)
    result = run_on_ranks(spec.devices, spec.device, _on_rank, args, context.on_tick)
    assert isinstance(result, StageResult)
    return result


def _on_rank(
    meeting: Meeting,
    say: Callable[[object], None],
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    n_micro: int,
) -> StageResult | None:
    """What one of several processes does for a stage: all train, rank 0 does everything else."""
    prepare_process(threads=1)
    share = Share(rank=meeting.rank, n_ranks=meeting.n_ranks, n_micro=n_micro)
    with corpus_closed(context.corpus, context.cache):
        if share.rank == 0:
            return _lead(spec, replace(context, on_tick=say), recorded, share, meeting)
        _follow(spec, context, share, meeting)
    return None


def _lead(
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    share: Share,
    meeting: Meeting | None = None,
) -> StageResult:
    with EventLog(StageStore(context.cache).folder(spec.id) / "progress.jsonl") as log:
        return _Stage(spec, context, log, share, meeting).run(recorded)


def _follow(spec: StageSpec, context: Context, share: Share, meeting: Meeting) -> None:
    """Train beside rank 0, from the state that it has saved."""
    meeting.await_first()
    fitting = _Fitting(spec, context, share)
    state = fitting.saved_state()
    meeting.join()
    fitting.fit(state, Steps(spec, state, share))


class _Fitting:
    """What every process needs that trains a stage."""

    def __init__(self, spec: StageSpec, context: Context, share: Share) -> None:
        self.spec, self.context, self.share = spec, context, share
        self.store = StageStore(context.cache)
        self.folder = self.store.folder(spec.id)
        self.corpus = load(context.corpus, context.cache / "corpora")
        self.model_class = import_class(spec.model_class, Transformer, "model_class")
        plugin = PluginConfig(target=spec.baseline, args=spec.args)
        self.baseline = build(plugin, Baseline, "baseline")
        set_float32_products(spec.precision)
        if spec.is_compiled:
            keep_code(context.cache / "compiled")

    @property
    def progress(self) -> Path:
        """Where the state of an unfinished stage lies."""
        return self.folder / "progress.safetensors"

    def saved_state(self) -> State:
        """The state that an unfinished stage has saved."""
        device, share = self.spec.device, self.share
        if device == "cuda" and share.n_ranks > 1:
            device = f"cuda:{share.rank}"  # to safetensors "cuda" is the first, for every process
        return load_state(self.progress, self.model_class, device)

    def fit(self, state: State, steps: "Steps") -> str | None:
        """Train from a state to the end of the stage; what ended it early, if something did."""
        spec = self.spec
        decay, rewarm = spec.rate["decay"], spec.rewarm
        self.baseline.begin(
            Fit(
                model=state.model,
                moments=state.moments,
                is_new=state.is_new,
                frozen=spec.frozen,
                optimizer=OptimizerConfig(**spec.optimizer),
                rate=RateCurve(**spec.rate | {"decay": tuple(decay) if decay else None}),
                rewarm=None if rewarm is None else Rewarm(**rewarm),
                budget_flops=spec.budget_flops,
                grown_at=state.grown_at,
                start_flops=state.start.flops,
                n_done=steps.n_done,
                step_flops=spec.step_flops,
                is_compiled=spec.is_compiled,
                on_step=steps.on_step,
            )
        )
        if n_left := steps.n_steps - steps.n_done:
            trainer = make_trainer(spec, spec.device, self.share)
            batches = Batches(self.stream(state.position), n_left, self.share)
            try:
                trainer.fit(self.baseline, batches)
            except DivergenceError as error:
                return str(error)
        return None

    def stream(self, position: Position) -> ByteStream:
        """Training text from `position` on."""
        return ByteStream(
            text=self.corpus.train,
            seq_len=int(self.spec.model["seq_len"]),
            batch_size=self.spec.batch_size,
            seed=self.spec.seed,
            allow_repeats=self.spec.allow_repeats,
            first_window=position.window,
        )


class _Stage(_Fitting):
    """One stage while it runs, in the process that grows, evaluates, records and saves."""

    def __init__(
        self,
        spec: StageSpec,
        context: Context,
        log: EventLog,
        share: Share,
        meeting: Meeting | None = None,
    ) -> None:
        super().__init__(spec, context, share)
        self.log, self.meeting = log, meeting

    def run(self, recorded: StageResult | None) -> StageResult:
        """To the end of the stage, which must be the one that is recorded, if one is."""
        started, memory = time.perf_counter(), PeakMemory(self.spec.device)
        resumed = self._resume()
        self.eval_batch_size = _known_to_fit(
            self.log.path, "evaluation", "n_windows", int(self.spec.measure["batch_size"])
        )
        self._record_provenance()
        state = resumed or self._begin()
        self._record_micro_batch(state.position)
        if self.meeting is not None:
            save_state(self.progress, replace(state, log_bytes=self.log.sync()))
            self.meeting.join()
        state, error = self._train(state)
        if error is None and self.spec.is_last:
            self._final(state)
        if recorded is not None:
            state = self._as_recorded(state, recorded)
        save_state(self.store.checkpoint(self.spec.id), state)
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
        """The state with the clock of the record, so that the run's time goes on from there."""
        state = replace(state, position=replace(state.position, seconds=recorded.end.seconds))
        if (state.position, state.points) != (recorded.end, recorded.points):
            raise RecordError(
                f"stage {self.spec.id}: trained again to restore its checkpoint, it comes to other "
                "losses than are recorded, as on another kind of processor or in other "
                "micro-batches; set run.cache to another folder"
            )
        return state

    def _record_provenance(self) -> None:
        """Say what this process computes with, unless another one of its kind has said so."""
        spec = self.spec
        made_with = process_provenance(
            spec.device, spec.precision, spec.devices, is_compiled=spec.is_compiled
        )
        events = read_events(self.log.path)
        if made_with not in [e["made_with"] for e in events if e["kind"] == "provenance"]:
            self.log.append("provenance", stage_id=self.spec.id, made_with=made_with)

    def _record_micro_batch(self, position: Position) -> None:
        """Say into how many micro-batches each batch is cut from here on, unless it is known."""
        n_micro = self.share.n_micro
        if n_micro != _known_to_fit(self.log.path, "training", "n_micro", 1):
            size = self.spec.batch_size // self.share.n_pieces
            self._record_shortage("training", position, n_micro=n_micro, n_windows=size)

    def _record_shortage(self, what: str, position: Position, **fields: int) -> None:
        self.log.append(
            "micro_batch", stage_id=self.spec.id, what=what, **fields, **where(position)
        )

    def _resume(self) -> State | None:
        if not self.progress.is_file():
            self.log.truncate_to(0)
            return None
        state = self.saved_state()
        self.log.truncate_to(state.log_bytes)
        return state

    def _begin(self) -> State:
        spec, device = self.spec, self.spec.device
        first_class = import_class(
            spec.grows_from_class or spec.model_class, Transformer, "model_class"
        )
        if spec.parent is not None:
            state = load_state(self.store.take(spec.parent), first_class, device)
        else:
            config = ModelConfig(**(spec.grows_from or spec.model))
            model = first_class(config, generator=generator(spec.seed, "init")).to(device)
            state = State(
                model=model,
                moments=Moments.zeros(model),
                is_new={},
                position=Position(),
                start=Position(),
            )
        if spec.grows_from is not None:
            state = self._grow(state)
        self._record_stage(state)
        return replace(state, start=state.position, points=(), log_bytes=self.log.offset)

    def _grow(self, small: State) -> State:
        spec, before = self.spec, self.score_curve(small.model, small.position)
        batches = GrowthBatches(self.stream(small.position))
        resources = Resources(
            generator(spec.seed, "growth", spec.rung),
            batches,
            self.model_class,
            self.share.n_pieces,
        )
        started = time.perf_counter()
        grown = grow(
            small.model,
            small.moments,
            ModelConfig(**spec.model),
            self.baseline.operators,
            StatePolicy(spec.state_policy),
            resources,
        )
        batches.close()
        wait_for(grown.model.device)
        end = small.position.after(
            windows=batches.n_windows,
            tokens=batches.n_windows * grown.model.config.seq_len,
            flops=grown.flops,
            seconds=time.perf_counter() - started,
        )
        self._check_left(end)
        self._record_growth(small, before, grown, end)
        self.charge("growth", small.position, end, grown.flops + grown.flops_masked)
        is_masked = spec.rewarm is not None and spec.rewarm["which"] == "new"
        return replace(
            small,
            model=grown.model,
            moments=grown.moments,
            position=end,
            is_new=grown.is_new if is_masked else {},
            grown_at=end.flops,
        )

    def _record_growth(self, small: State, before: Score, grown: Grown, end: Position) -> None:
        self.log.append(
            "growth",
            stage_id=self.spec.id,
            operator=self.spec.baseline,
            **{"from": small.model.config.sizes(), "to": grown.model.config.sizes()},
            n_params_from=_count(small.model),
            n_params_to=_count(grown.model),
            bpb_before=before.bits_per_byte,
            bpb_after=self.score_curve(grown.model, end).bits_per_byte,
            growth_flops=grown.flops,
            growth_tokens=end.tokens - small.position.tokens,
            growth_seconds=end.seconds - small.position.seconds,
            state_policy=self.spec.state_policy,
            **where(end),
        )

    def _check_left(self, grown: Position) -> None:
        budget, step_flops = self.spec.budget_flops, self.spec.step_flops
        if affordable_steps(grown.flops, budget, step_flops) == 0:
            raise GrowthError(
                f"{self.spec.baseline} has grown at {grown.flops:.3g} FLOPs and leaves no step of "
                f"the budget of {budget:.3g}: let it learn its map in fewer steps, or grow earlier"
            )

    def _train(self, state: State) -> tuple[State, str | None]:
        meter = Meter(self, state)
        if error := self.fit(state, meter):
            return meter.charged(), error
        return meter.finish(), None

    def score_curve(self, model: Transformer, position: Position) -> Score:
        """Held-out score on the slice that curves are drawn from."""
        split = self.corpus.val[: self.spec.measure["curve_bytes"]]
        return self._score(model, split, position)

    def _score(self, model: Transformer, text: Tensor, position: Position) -> Score:
        """Held-out score, in batches that fit into memory from the first time on that one did."""
        result = score(model, text, self.eval_batch_size)
        if result.batch_size != self.eval_batch_size:
            self.eval_batch_size = result.batch_size
            self._record_shortage("evaluation", position, n_windows=result.batch_size)
        return result

    def charge(self, what: str, start: Position, end: Position, unmasked: float) -> None:
        """Record what a part of the stage cost."""
        self.log.append(
            "charge",
            stage_id=self.spec.id,
            what=what,
            flops=end.flops - start.flops,
            flops_unmasked=unmasked,
            tokens=end.tokens - start.tokens,
            steps=end.step - start.step,
            seconds=end.seconds - start.seconds,
        )

    def _record_stage(self, state: State) -> None:
        spec, model = self.spec, state.model
        self.log.append(
            "stage",
            stage_id=spec.id,
            sizes=model.config.sizes(),
            n_params=_count(model),
            n_params_nonembedding=_count(model) - model.embed.weight.numel(),
            frozen=list(spec.frozen),
            n_params_by_group=_counts(model),
            flops_per_token=training_flops_per_token(model, spec.frozen),
            flops_per_token_unmasked=training_flops_per_token(model, spec.frozen, causal=False),
            n_steps=affordable_steps(state.position.flops, spec.until, spec.step_flops),
            **where(state.position),
        )

    def _final(self, state: State) -> None:
        for split in self.spec.splits:
            started = time.perf_counter()
            text: Tensor = getattr(self.corpus, split)
            result = self._score(state.model, text, state.position)
            block_bytes, block_nats = result.blocks(self.spec.measure["block_bytes"])
            self.log.append(
                "final",
                split=split,
                bpb=result.bits_per_byte,
                block_bytes=block_bytes,
                block_nats=block_nats,
                eval_seconds=time.perf_counter() - started,
                **where(state.position),
            )


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

    def __init__(self, stage: _Stage, state: State) -> None:
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


def _count(model: Transformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _counts(model: Transformer) -> dict[str, int]:
    """Parameters of every tensor, those of the same name in all blocks together."""
    counts = Counter[str]()
    for name, parameter in model.named_parameters():
        counts[re.sub(r"\.\d+(?=\.)", "", name)] += parameter.numel()
    return dict(counts)


@cache
def process_provenance(
    device: str, precision: str, devices: int, *, is_compiled: bool
) -> dict[str, Any]:
    """What this process computes with; its code is what it was when this was first asked."""
    made_with = provenance(
        device,
        precision,
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        kernels=kernels(device, precision, is_compiled=is_compiled),
    )
    return made_with | {"devices": devices}
