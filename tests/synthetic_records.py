"""Records of runs that never happened, with planted curves, to test what a report says of them."""

import hashlib
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmark.records.events import Event, atomic_write_text
from benchmark.records.folder import load_run, write_run

NAME = "toy"
BUDGET = 2e12
TARGET = {"d_model": 64, "n_layer": 4, "n_head": 4, "d_head": 16, "d_ff": 256}
SMALL = TARGET | {"n_layer": 2}
NARROW = TARGET | {"d_model": 32, "n_head": 2, "d_ff": 128}
FRACTIONS = [i / 20 for i in range(1, 21)]
WINDOW_TOKENS = 8 * 128


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A method whose curve is bpb(C) = floor + scale * (speed_up * C / C*)**-power."""

    name: str
    role: str = "method"
    speed_up: float = 1.0
    offset: float = 0.0
    """Added to every bpb."""

    budget: float = 1.0
    sizes: tuple[dict[str, int], ...] = (TARGET,)
    """Of each stage; growth comes between them, equally spaced over the first half."""

    grows_at: tuple[float, ...] = ()
    """Fractions of C* of the growths, if they come at other times."""

    jump: float = 0.0
    """Of the bpb at a growth; gone a tenth of C* later."""

    unannealed: float = 0.0
    """Excess of the bpb before the learning rate decays, in the last fifth of the budget."""

    status: str = "done"
    ends_at: float = 1.0
    """Fraction of the run's budget at which it ended."""

    args: tuple[tuple[str, Any], ...] = ()
    controls: tuple[str, ...] = ()
    levels: tuple[tuple[str, str], ...] = ()
    """Of a cell of a crossed design."""

    ladder: tuple[tuple[str, Any], ...] = ()
    tunes: str = ""
    trial: int | None = None
    tuned: tuple[tuple[str, float], ...] = ()

    def starts(self) -> list[float]:
        """Fraction of C* at which each stage starts."""
        if self.grows_at:
            return [0.0, *self.grows_at]
        n = len(self.sizes)
        return [0.5 * self.budget * i / n for i in range(n)]

    def bpb(self, u: float) -> float:
        """The planted curve at fraction `u` of C*, right after a growth."""
        value = 1.5 + 1.0 * (self.speed_up * u) ** -0.25 + self.offset
        for start in self.starts()[1:]:
            if u >= start:
                value += self.jump * math.exp(-(u - start) / 0.025)
        return value + self.unannealed * min(1.0, (self.budget - u) / (0.2 * self.budget))


SUITE = (
    Planted(name="scratch", role="control"),
    Planted(name="scratch_small", role="control", offset=0.2, sizes=(SMALL,)),
    Planted(name="scratch_small_width", role="control", offset=0.3, sizes=(NARROW,)),
    Planted(name="restart_only", role="control", sizes=(TARGET, TARGET), jump=0.1),
    Planted(name="untrained_source", role="control", offset=0.05),
    Planted(name="scratch_quarter", role="rung", budget=0.25),
    Planted(name="scratch_half", role="rung", budget=0.5),
    Planted(name="fixed_layer3", role="hull", offset=0.1, sizes=(TARGET | {"n_layer": 3},)),
    Planted(name="fast", speed_up=1.3, sizes=(SMALL, TARGET), jump=0.3, args=(("at", [0.25]),)),
    Planted(name="slow", speed_up=0.8, sizes=(NARROW, TARGET), args=(("at", [0.5]),)),
)
"""A complete comparison with one method that is 1.3 times faster and one that is slower."""

CONTROLS = tuple(method for method in SUITE if method.role != "method")


def n_params(sizes: dict[str, int]) -> int:
    """Parameters of a toy transformer of these sizes."""
    return 12 * sizes["n_layer"] * sizes["d_model"] ** 2 + 512 * sizes["d_model"]


def run_id(method: str, seed: int) -> str:
    """Id of a planned run."""
    return hashlib.sha256(f"{method}/{seed}".encode()).hexdigest()[:16]


def write_records(
    folder: Path,
    methods: tuple[Planted, ...] = SUITE,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    noise: float = 0.0,
    watermark: str | None = None,
    missing: tuple[tuple[str, int], ...] = (),
) -> Path:
    """Write a whole results folder; runs in `missing` are planned but leave no records."""
    runs = [(method, seed) for method in methods for seed in seeds]
    plan = {
        "name": NAME,
        "version": "1.0",
        "purpose": "Check a report on curves that are known.",
        "watermark": watermark,
        "runs": [
            {"run_id": run_id(m.name, s), "method": m.name, "role": m.role, "seed": s}
            for m, s in runs
        ],
    }
    atomic_write_text(folder / "suite.yaml", yaml.safe_dump(plan, sort_keys=False))
    for method, seed in runs:
        if (method.name, seed) not in missing:
            write_run(folder, events(method, seed, noise), config(method, seed, seeds), PROVENANCE)
    return folder


def rewrite(
    results: Path,
    run_id: str,
    *,
    events: Callable[[list[Event]], object] | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
    provenance: Callable[[list[dict[str, Any]]], object] | None = None,
) -> None:
    """Change the records of a run, whatever was shared with other runs included."""
    run: Any = load_run(results, run_id)
    parts = [list(run.events), deepcopy(dict(run.config)), deepcopy(list(run.provenance))]
    for part, change in zip(parts, (events, config, provenance), strict=True):
        if change is not None:
            change(part)  # type: ignore[arg-type]
    write_run(results, *parts)  # type: ignore[arg-type]


def events(method: Planted, seed: int, noise: float) -> list[Event]:
    """The event log of one run; noise is half shared by a seed's runs and half the run's own."""
    own = float(np.random.default_rng([seed, *method.name.encode()]).normal(0, noise))
    shift = own + float(np.random.default_rng([seed, 0]).normal(0, noise))
    log, end_u = [_run_event(method, seed)], method.ends_at * method.budget
    evaluations = _evaluations(method, shift)
    for stage, start in enumerate(method.starts()):
        end = min([*method.starts(), method.budget][stage + 1], end_u)
        *opening, charge = _stage(method, seed, stage, start, end, shift)
        log += opening
        log += [event for u, event in evaluations if start < u <= end]
        log.append(charge)
    if method.status == "done":
        log += [_final(method, split, shift) for split in ("val", "test")]
    if method.status != "unfinished":
        error = None if method.status == "done" else f"the run {method.status}"
        where = _where(method, end_u)
        log.append(
            _event("end", status=method.status, error=error, peak_memory_bytes=2**30, **where)
        )
    return log


def config(method: Planted, seed: int, seeds: tuple[int, ...]) -> dict[str, Any]:
    """The resolved configuration of one run."""
    return {
        "suite": NAME,
        "suite_version": "1.0",
        "seed": seed,
        "workload": {"corpus": {"name": "wikipedia"}, "target": TARGET, "batch_size": 8},
        "protocol": {
            "budget_flops": BUDGET,
            "seeds": list(seeds),
            "rungs": [0.25, 0.5, 1.0],
            "learning_rate": {"peak": 6e-3, "warmup": 0.05, "decay": [0.8, 1.0]},
        },
        "method": {
            "name": method.name,
            "role": method.role,
            "target": f"baselines.{method.name}:Method",
            "args": dict(method.args),
            "budget": method.budget,
            "state_policy": "carry",
            "controls": list(method.controls),
            "levels": dict(method.levels),
            "ladder": dict(method.ladder),
            "tunes": method.tunes,
            "trial": method.trial,
            "tuned": dict(method.tuned),
        },
    }


ENVIRONMENT: dict[str, Any] = {
    "schema": 2,
    "commit": "0" * 40,
    "dirty": False,
    "diff_sha256": None,
    "python": "3.11.0",
    "packages": {"torch": "2.13.0", "numpy": "2.4.6", "pandas": "3.1.1"},
    "platform": "Linux-x86_64",
    "cpu": "a processor",
    "n_cores": 2,
    "memory_bytes": 2**34,
    "threads": 1,
    "device": "cpu",
    "precision": "32-true",
    "deterministic": True,
    "gpu": None,
    "kernels": {"products": "oneDNN"},
    "env": {"OMP_NUM_THREADS": "1"},
}
PROVENANCE = [{"stage": 0, "stage_id": "0" * 16, **ENVIRONMENT}]


def _event(kind: str, **fields: object) -> Event:
    return {"v": 1, "kind": kind, **fields}


def _run_event(method: Planted, seed: int) -> Event:
    return _event(
        "run",
        run_id=run_id(method.name, seed),
        suite=NAME,
        suite_version="1.0",
        method=method.name,
        role=method.role,
        seed=seed,
        budget_flops=method.budget * BUDGET,
        train_bytes=20_000_000,
        corpus="wikipedia",
    )


def _where(method: Planted, u: float) -> dict[str, Any]:
    tokens = 0.0
    bounds = [*method.starts()[1:], math.inf]
    for start, end, sizes in zip(method.starts(), bounds, method.sizes, strict=True):
        tokens += max(0.0, min(u, end) - start) * BUDGET / (6 * n_params(sizes))
    return {
        "step": int(tokens // WINDOW_TOKENS),
        "tokens": int(tokens // WINDOW_TOKENS) * WINDOW_TOKENS,
        "flops": u * BUDGET,
        "seconds": 60 * u + tokens / 1e6,
    }


def _stage(
    method: Planted, seed: int, stage: int, start: float, end: float, shift: float
) -> list[Event]:
    sizes, at, until = method.sizes[stage], _where(method, start), _where(method, end)
    prefix = [method.sizes[: stage + 1], start, end, seed, method.name if stage else ""]
    stage_id = hashlib.sha256(repr(prefix).encode()).hexdigest()[:16]
    log = [_growth(method, stage, at, shift)] if stage else []
    log.append(
        _event(
            "stage",
            stage=stage,
            stage_id=stage_id,
            sizes=sizes,
            n_params=n_params(sizes),
            n_params_nonembedding=n_params(sizes) - 256 * sizes["d_model"],
            flops_per_token=6 * n_params(sizes),
            flops_per_token_unmasked=7 * n_params(sizes),
            n_steps=until["step"] - at["step"],
            **at,
        )
    )
    spent = {key: until[key] - at[key] for key in ("flops", "tokens", "seconds")}
    log.append(
        _event(
            "charge",
            stage=stage,
            stage_id=stage_id,
            what="train",
            flops_unmasked=spent["flops"] * 7 / 6,
            steps=until["step"] - at["step"],
            shared=not stage,
            **spent,
        )
    )
    return log


def _growth(method: Planted, stage: int, at: dict[str, Any], shift: float) -> Event:
    small, large, u = method.sizes[stage - 1], method.sizes[stage], method.starts()[stage]
    return _event(
        "growth",
        stage=stage,
        operator=method.name,
        **{"from": small, "to": large},
        n_params_from=n_params(small),
        n_params_to=n_params(large),
        bpb_before=method.bpb(u - 1e-9) + shift,
        bpb_after=method.bpb(u) + shift,
        growth_flops=0.0,
        growth_tokens=0,
        growth_seconds=0.25,
        state_policy="carry",
        **at,
    )


def _evaluations(method: Planted, shift: float) -> list[tuple[float, Event]]:
    found = []
    for fraction in FRACTIONS:
        u = fraction * method.budget
        if fraction > method.ends_at:
            break
        bpb = method.bpb(u - 1e-9) + shift  # just before a growth that happens here
        if method.status == "diverged" and fraction + 0.05 > method.ends_at:
            bpb = math.nan
        event = _event(
            "evaluation",
            split="curve",
            bpb=bpb,
            nats=bpb * 32768 * math.log(2),
            n_bytes=32768,
            eval_seconds=0.125,
            **_where(method, u),
        )
        found.append((u, event))
    return found


def _final(method: Planted, split: str, shift: float) -> Event:
    bpb = method.bpb(method.budget) + shift
    noise = np.random.default_rng([len(split), 7]).normal(0, 0.2, 64)
    nats = (bpb + noise - noise.mean()) * 4096 * math.log(2)
    return _event(
        "final",
        split=split,
        bpb=bpb,
        block_bytes=[4096] * 64,
        block_nats=[float(x) for x in nats],
        eval_seconds=0.5,
        **_where(method, method.budget),
    )
