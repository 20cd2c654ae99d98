"""A results folder of any size: copies of real runs, which differ by seed and by a little noise."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from benchmark.records.events import Event, atomic_write_text
from benchmark.records.folder import RunRecord, load_suite, write_run

N_SEEDS = 10
N_EVALUATIONS = 30
NOISE = 0.002
"""Relative standard deviation of the copies' losses."""

_LOSSES = ("bpb", "bpb_before", "bpb_after", "nats")
_POSITION = ("step", "tokens", "flops", "seconds")


def write_copies(source: Path, folder: Path, n_runs: int) -> None:
    """Fill `folder` with the records of `n_runs` runs, out of those in the results `source`.

    Controls and other fixed sizes come once, methods over and over under numbered names.
    """
    suite = load_suite(source)
    runs = list(islice(copies(suite.runs), n_runs))
    keys = ("run_id", "method", "role", "seed")
    plan: dict[str, Any] = {
        **{key: getattr(suite, key) for key in ("name", "version", "purpose", "watermark")},
        "runs": [{key: getattr(run, key) for key in keys} for run in runs],
    }
    for run in runs:
        write_run(folder, run.events, run.config, run.provenance)
    atomic_write_text(folder / "suite.yaml", yaml.safe_dump(plan, sort_keys=False))


def copies(runs: Iterable[RunRecord]) -> Iterator[RunRecord]:
    """Endless: all seeds of one method after another; runs without records are left out."""
    by_method: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.events:
            by_method.setdefault(run.method, []).append(run)
    for number in count():
        for method, seeds in by_method.items():
            if number == 0 or seeds[0].role == "method":
                name = f"{method}_{number}" if number else method
                yield from (_copy(seeds[s % len(seeds)], name, s) for s in range(N_SEEDS))


def _copy(run: RunRecord, method: str, seed: int) -> RunRecord:
    run_id = hashlib.sha256(f"{method}/{seed}".encode()).hexdigest()[:16]
    factor = random.Random(run_id).gauss(1, NOISE)
    events = [_scaled(event, factor) for event in _filled(run.events)]
    events[0] |= {"run_id": run_id, "method": method, "seed": seed}
    named = {"seed": seed, "method": {**run.config["method"], "name": method}}
    return RunRecord(
        run_id=run_id,
        method=method,
        role=run.role,
        seed=seed,
        events=tuple(events),
        config={**run.config, **named},
        provenance=run.provenance,
    )


def _scaled(event: Event, factor: float) -> Event:
    changed = {key: event[key] * factor for key in _LOSSES if key in event}
    if "block_nats" in event:
        changed["block_nats"] = [nats * factor for nats in event["block_nats"]]
    return event | changed


def _filled(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with evaluations halfway between two of a stage until there are enough."""
    events = list(events)
    missing = N_EVALUATIONS - sum(event["kind"] == "evaluation" for event in events)
    last: Event | None = None
    for event in events:
        if event["kind"] in ("stage", "growth"):
            last = None
        elif event["kind"] == "evaluation":
            if missing > 0 and last is not None:
                missing -= 1
                yield last | {k: type(event[k])((last[k] + event[k]) / 2)
                              for k in (*_POSITION, "bpb", "nats")}  # fmt: skip
            last = event
        yield event
