"""Executes one stage: load or grow, one Lightning fit, evaluate, record; resumes after a kill.

Nothing here depends on when or how often it was interrupted: the batch, the learning rate and the
evaluations are functions of the position, and a checkpoint holds the position, the weights, the
optimizer's state and how many bytes of the event log belong to it.
"""

import json
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch import Tensor
from typing_extensions import override

from benchmark.baseline import Baseline, Fit
from benchmark.checkpoint import StageStore, State, load_state, save_state
from benchmark.config import PluginConfig, build, import_class
from benchmark.cost import Position, affordable_steps, training_flops_per_token
from benchmark.data.corpora import CorpusConfig, load
from benchmark.data.stream import ByteStream
from benchmark.errors import DivergenceError, GrowthError, RecordError
from benchmark.evaluate import Score, score
from benchmark.growth import Grown, Moments, Resources, StatePolicy, grow
from benchmark.kernels import kernels
from benchmark.memory import PeakMemory
from benchmark.model import ModelConfig, Transformer
from benchmark.optim import OptimizerConfig, RateCurve, Rewarm, moments_of
from benchmark.plan import StageResult, StageSpec
from benchmark.provenance import provenance
from benchmark.records import EventLog, atomic_write, atomic_write_text, read_events
from benchmark.schedule import Point
from benchmark.seeding import generator

TICK_SECONDS = 0.5
N_TRAIN_RECORDS = 100
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
        with EventLog(folder / "progress.jsonl") as log:
            result = _Stage(spec, context, log).run(recorded)
        if recorded is None:
            atomic_write(folder / "events.jsonl", log.path.read_bytes())
            store.write_result(spec.id, result)
        for name in ("progress.safetensors", "progress.jsonl"):
            (folder / name).unlink(missing_ok=True)
    return recorded or result


class _Stage:
    """One stage while it runs."""

    def __init__(self, spec: StageSpec, context: Context, log: EventLog) -> None:
        self.spec, self.context, self.log = spec, context, log
        self.store = StageStore(context.cache)
        self.folder = self.store.folder(spec.id)
        self.corpus = load(context.corpus, context.cache / "corpora")
        self.model_class = import_class(spec.model_class, Transformer, "model_class")
        plugin = PluginConfig(target=spec.baseline, args=spec.args)
        self.baseline = build(plugin, Baseline, "baseline")

    def run(self, recorded: StageResult | None = None) -> StageResult:
        """To the end of the stage, which must be the one that is recorded, if one is."""
        started, memory = time.perf_counter(), PeakMemory(self.spec.device)
        resumed = self._resume()
        self._record_provenance()
        state, error = self._train(resumed or self._begin())
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
                "losses than are recorded, as on another kind of processor; set run.cache to "
                "another folder"
            )
        return state

    def _record_provenance(self) -> None:
        """Say what this process computes with, unless another one of its kind has said so."""
        made_with = process_provenance(self.spec.device, self.spec.precision)
        events = read_events(self.log.path)
        if made_with not in [e["made_with"] for e in events if e["kind"] == "provenance"]:
            self.log.append("provenance", stage_id=self.spec.id, made_with=made_with)

    def _resume(self) -> State | None:
        path = self.folder / "progress.safetensors"
        if not path.is_file():
            self.log.truncate_to(0)
            return None
        state = load_state(path, self.model_class, self.spec.device)
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
        spec, before = self.spec, self.score_curve(small.model)
        batches = GrowthBatches(self.stream(small.position))
        resources = Resources(generator(spec.seed, "growth", spec.rung), batches, self.model_class)
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
            bpb_after=self.score_curve(grown.model).bits_per_byte,
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
                n_done=state.position.step - state.start.step,
                step_flops=spec.step_flops,
            )
        )
        meter = Meter(self, state)
        if n_left := meter.n_steps - meter.n_done:
            trainer = make_trainer(spec, spec.device, n_left, meter)
            try:
                trainer.fit(self.baseline, Batches(self.stream(state.position), n_left))
            except DivergenceError as error:
                return meter.charged(), str(error)
        return meter.finish(), None

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

    def score_curve(self, model: Transformer) -> Score:
        """Held-out score on the slice that curves are drawn from."""
        split = self.corpus.val[: self.spec.measure["curve_bytes"]]
        return score(model, split, self.spec.measure["batch_size"])

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
            result = score(state.model, text, self.spec.measure["batch_size"])
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


class Meter(pl.Callback):
    """Counts steps, records, evaluates off the clock and saves; the only observer of a fit."""

    def __init__(self, stage: _Stage, state: State) -> None:
        self.stage, self.state = stage, state
        spec, start = stage.spec, state.start
        self.n_steps = affordable_steps(start.flops, spec.until, spec.step_flops)
        self.n_done = state.position.step - start.step
        self.evaluations = self._steps_at(spec.marks)
        spacing = spec.budget_flops / N_TRAIN_RECORDS
        self.records = self._steps_at([i * spacing for i in range(1, N_TRAIN_RECORDS + 1)]) | {
            self.n_steps
        }
        self.seconds = state.position.seconds
        self.loss = torch.tensor(state.loss_sum, device=state.model.device)
        self.n_losses = state.loss_count
        self.last_saved = self.last_tick = time.perf_counter()

    def _steps_at(self, marks: Iterable[float]) -> set[int]:
        start, cost = self.state.start.flops, self.stage.spec.step_flops
        return {affordable_steps(start, mark, cost) for mark in marks if mark > start}

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
    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.started = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss += outputs["loss"]
        self.n_losses += 1
        self.n_done += 1
        if self.loss.is_cuda and self.n_done in self.records | self.evaluations:
            torch.cuda.synchronize(self.loss.device)  # or the clock stops before the work does
        now = time.perf_counter()
        self.seconds += now - self.started
        if self.n_done in self.records:
            self._record_loss()
        if self.n_done in self.evaluations and self.n_done < self.n_steps:
            self.evaluate()
        if now - self.last_tick > TICK_SECONDS:
            self.tick()
        if now - self.last_saved > self.stage.context.checkpoint_seconds:
            save_state(self.stage.folder / "progress.safetensors", self.snapshot())
            self.last_saved = time.perf_counter()

    def _record_loss(self) -> None:
        loss = float(self.loss) / self.n_losses
        self.loss.zero_()
        self.n_losses = 0
        where_now = where(self.position)
        rate = self.stage.baseline.rate_used
        self.stage.log.append("train", loss=loss, lr=rate, **where_now)
        if not loss < float("inf"):
            raise DivergenceError(f"the training loss is {loss} after {where_now['step']} steps")

    def evaluate(self) -> None:
        """Score the curve slice and record it."""
        started = time.perf_counter()
        result = self.stage.score_curve(self.state.model)
        position = self.position
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
            log_bytes=self.stage.log.offset,
            loss_sum=float(self.loss),
            loss_count=self.n_losses,
        )

    def finish(self) -> State:
        """Evaluate the end of the stage, record its cost, and return its last state."""
        self.state.model.to(self.stage.spec.device)  # Lightning leaves it on the CPU
        self.evaluate()
        return self.charged()

    def charged(self) -> State:
        """Record what the stage cost, and return its last state."""
        state = self.snapshot()
        tokens, frozen = state.position.tokens - state.start.tokens, self.stage.spec.frozen
        unmasked = tokens * training_flops_per_token(state.model, frozen, causal=False)
        self.stage.charge("train", state.start, state.position, unmasked)
        return replace(state, log_bytes=self.stage.log.offset)


class Batches:
    """The next `n_steps` batches of a stream, as Lightning wants them."""

    def __init__(self, stream: ByteStream, n_steps: int) -> None:
        self.stream, self.n_steps = stream, n_steps

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Tensor]:
        return (self.stream[step] for step in range(self.n_steps))


class GrowthBatches(Iterator[Tensor]):
    """Batches for an operator that learns, counted as they are read, until growth is over."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self.n_windows, self.is_closed = stream, 0, False

    def close(self) -> None:
        """Let nothing be read that would not be charged."""
        self.is_closed = True

    @override
    def __next__(self) -> Tensor:
        if self.is_closed:
            raise GrowthError("batches for growth are read after it; only growth is charged them")
        batch = self.stream.batch_at(self.stream.first_window + self.n_windows)
        self.n_windows += len(batch)
        return batch


def make_trainer(spec: StageSpec, device: str, n_steps: int, meter: pl.Callback) -> pl.Trainer:
    """A Lightning trainer that does the loop, the device and the precision, and nothing else."""
    return pl.Trainer(
        accelerator="cuda" if device.startswith("cuda") else "cpu",
        devices=1,
        precision=spec.precision,  # type: ignore[arg-type]
        max_steps=n_steps,
        max_epochs=1,
        gradient_clip_val=spec.optimizer["clip"],
        callbacks=[meter],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def prepare_process(threads: int) -> None:
    """Make this process deterministic, quiet, and as parallel as asked."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="pytorch_lightning|lightning_fabric|torch.utils._pytree"
    )


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
def process_provenance(device: str, precision: str) -> dict[str, Any]:
    """What this process computes with; its code is what it was when this was first asked."""
    return provenance(
        device,
        precision,
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        kernels=kernels(device, precision),
    )
