"""One stage: load or grow, train, evaluate, record.

Nothing here depends on when or how often it was interrupted: the batch, the learning rate and the
evaluations are functions of the position, and a checkpoint holds the position, the weights, the
optimizer's state and how many bytes of the event log belong to it.
"""

import re
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.base.errors import DivergenceError, GrowthError, RecordError
from benchmark.base.plugins import PluginConfig, build, import_class
from benchmark.base.seeding import generator
from benchmark.data.corpora import load
from benchmark.data.stream import ByteStream
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.compiled import keep_code
from benchmark.model.cost import Position, affordable_steps, training_flops_per_token
from benchmark.model.kernels import kernels, set_float32_products
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import EventLog, read_events
from benchmark.records.provenance import provenance
from benchmark.stage.checkpoint import StageStore, State, load_state, save_state
from benchmark.stage.context import Context
from benchmark.stage.fitting import (
    Batches,
    GrowthBatches,
    Share,
    make_trainer,
    wait_for,
)
from benchmark.stage.meter import Meter, Steps, where
from benchmark.stage.ranks import Meeting
from benchmark.training.baseline import Baseline, Fit
from benchmark.training.evaluate import Score, score
from benchmark.training.memory import PeakMemory
from benchmark.training.optim import OptimizerConfig, RateCurve, Rewarm


def last_that_fitted(log: Path, what: str, field: str, default: int) -> int:
    """What a log says last of the batches that fit into memory for training or evaluation."""
    events = read_events(log) if log.is_file() else []
    found = (e for e in reversed(events) if e["kind"] == "micro_batch" and e["what"] == what)
    return next((event[field] for event in found), default)


class Fitting:
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


class Stage(Fitting):
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
        self.eval_batch_size = last_that_fitted(
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
        if n_micro != last_that_fitted(self.log.path, "training", "n_micro", 1):
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
