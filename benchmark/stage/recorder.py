"""The records of a stage: what it trains, what it grew, what it cost, and its held-out scores."""

import re
import time
from collections import Counter
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.data.corpora import Corpus
from benchmark.growth.grow import Grown
from benchmark.growth.schedule import Point
from benchmark.model.cost import Position, affordable_steps, training_flops_per_token
from benchmark.model.kernels import kernels
from benchmark.model.transformer import Transformer
from benchmark.plan.spec import StageSpec
from benchmark.records.events import EventLog, read_events
from benchmark.records.provenance import provenance
from benchmark.stage.checkpoint import State
from benchmark.training.evaluate import Score, score


class Recorder:
    """Scores models, and appends to the event log of one stage.

    Args:
        spec: of the stage.
        log: of its events.
        corpus: whose held-out splits models are scored on.
    """

    def __init__(self, spec: StageSpec, log: EventLog, corpus: Corpus) -> None:
        self.spec, self.log, self.corpus = spec, log, corpus

    @cached_property
    def eval_batch_size(self) -> int:
        """Windows scored at once: what was asked for, or less where memory was short."""
        asked = int(self.spec.measure["batch_size"])
        return last_that_fitted(self.log.path, "evaluation", "n_windows", asked)

    def score_curve(self, model: Transformer, position: Position) -> Score:
        """Held-out score on the slice that curves are drawn from."""
        n_bytes = int(self.spec.measure["curve_bytes"])
        split = self.corpus.vocabulary.first(self.corpus.val, n_bytes)
        return self._score(model, split, position)

    def _score(self, model: Transformer, text: Tensor, position: Position) -> Score:
        """Held-out score; where memory is short, in smaller batches from here on."""
        result = score(model, text, self.eval_batch_size, self.corpus.vocabulary)
        if result.batch_size != self.eval_batch_size:
            self.eval_batch_size = result.batch_size
            self._record_shortage("evaluation", position, n_windows=result.batch_size)
        return result

    def record_provenance(self, n_sharing: int = 1) -> None:
        """Record what this process computes with, unless that is in the log already.

        Args:
            n_sharing: stages that share its GPU, itself included.
        """
        spec = self.spec
        made_with = process_provenance(spec.device, spec.precision, is_compiled=spec.is_compiled)
        if n_sharing > 1:
            made_with = made_with | {"stages_per_gpu": n_sharing}
        events = read_events(self.log.path)
        if made_with not in [e["made_with"] for e in events if e["kind"] == "provenance"]:
            self.log.append("provenance", stage_id=self.spec.id, made_with=made_with)

    def record_micro_batch(self, position: Position, n_micro: int) -> None:
        """Record into how many micro-batches each batch is cut from here on, if that changes."""
        if n_micro != last_that_fitted(self.log.path, "training", "n_micro", 1):
            size = self.spec.batch_size // n_micro
            self._record_shortage("training", position, n_micro=n_micro, n_windows=size)

    def _record_shortage(self, what: str, position: Position, **fields: int) -> None:
        self.log.append(
            "micro_batch", stage_id=self.spec.id, what=what, **fields, **where(position)
        )

    def record_stage(self, state: State) -> None:
        """Describe the model that the stage trains."""
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
            optimizer_flops=spec.optimizer_flops,
            n_steps=affordable_steps(state.position.flops, spec.until, spec.step_flops),
            **where(state.position),
        )

    def record_growth(self, small: State, before: Score, grown: Grown, end: Position) -> None:
        """Record a growth from `small`, whose curve score was `before`, to the position `end`."""
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

    def record_evaluation(self, model: Transformer, position: Position) -> Point:
        """Score the curve slice and record it."""
        started = time.perf_counter()
        result = self.score_curve(model, position)
        self.log.append(
            "evaluation",
            split="curve",
            bpb=result.bits_per_byte,
            nats=float(result.nats.sum()),
            n_bytes=result.n_bytes,
            eval_seconds=time.perf_counter() - started,
            **where(position),
        )
        return Point(position.flops, result.bits_per_byte, self.spec.n_grown)

    def record_final(self, state: State) -> None:
        """Score and record the whole splits that the stage is scored on."""
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

    def record_charge(self, what: str, start: Position, end: Position, unmasked: float) -> None:
        """Record what a part of the stage cost.

        Args:
            what: "growth" or "train".
            start: where it began.
            end: where it ended.
            unmasked: its FLOPs if attention had no causal mask.
        """
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


def where(position: Position) -> dict[str, int | float]:
    """The fields of a record that say how far the run had come."""
    return {
        "step": position.step,
        "tokens": position.tokens,
        "flops": position.flops,
        "seconds": position.seconds,
    }


def last_that_fitted(log: Path, what: str, field: str, default: int) -> int:
    """The newest record of a log about the batches that fit into memory.

    Args:
        log: event log, which need not exist.
        what: "training" or "evaluation".
        field: of that record.
        default: what to return if there is no such record.
    """
    events = read_events(log) if log.is_file() else []
    found = (e for e in reversed(events) if e["kind"] == "micro_batch" and e["what"] == what)
    return next((event[field] for event in found), default)


def _count(model: Transformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _counts(model: Transformer) -> dict[str, int]:
    """Parameters of every tensor, those of the same name in all blocks together."""
    counts = Counter[str]()
    for name, parameter in model.named_parameters():
        counts[re.sub(r"\.\d+(?=\.)", "", name)] += parameter.numel()
    return dict(counts)


@cache
def process_provenance(device: str, precision: str, *, is_compiled: bool) -> dict[str, Any]:
    """What this process computes with; asked once, as its code stays what it has loaded."""
    computing = {
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "kernels": kernels(device, precision, is_compiled=is_compiled),
    }
    return provenance(computing)
