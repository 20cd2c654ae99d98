"""A suite that trains in a second, on a file of random letters; no test lives here."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.plan.config import available, load_method, load_suite
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.session.session import Session
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

SUITE = """
name: tiny
version: "1.0"
workload:
  corpus:
    name: letters
    kind: file
    source: drawn at random
    licence: CC0-1.0
    path: letters.txt
    splits: {{val_start: 0.9, test_start: 0.95}}
  batch_size: 4
  target: {{d_model: 32, n_layer: 2, n_head: 4, d_head: 8, d_ff: 64, seq_len: 32}}
protocol:
  budget_flops: {budget}
  seeds: [0]
  n_evaluations: 10
  curve_bytes: 512
  block_bytes: 512
  cuts: [0.4]
methods: [scratch, stacking]
run: {{workers: 1, device: cpu, checkpoint_seconds: 0.05, retries: 0}}
"""
STACKING = """
defaults: from_half_depth
name: stacking
summary: two blocks from one, at half of the run
target: baselines.stacking:Stacking
"""
"""Beside a suite of two blocks; the published factor takes four."""


def distinct_methods() -> dict[str, str]:
    """The configured methods, one for each class with its arguments: name to class."""
    configs = {name: load_method(name) for name in available("method")}
    first = {
        json.dumps([c.target, c.args], sort_keys=True): n for n, c in reversed(configs.items())
    }
    return {name: configs[name].target for name in sorted(first.values())}


def prepare(folder: Path, budget: float = 5e8) -> Path:
    """Make a working folder with tiny.yaml, its method of growth and its corpus."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(SUITE.format(budget=repr(budget)))
    (folder / "stacking.yaml").write_text(STACKING)
    letters = torch.randint(97, 123, (200_000,), generator=torch.Generator().manual_seed(0))
    (folder / "letters.txt").write_bytes(bytes(letters.tolist()))
    return folder


def run_of(folder: Path, method: str, *settings: str) -> tuple[Run, Context]:
    """The run of a method, given as YAML, and where to execute it."""
    prepare(folder)
    (folder / "method.yaml").write_text(method)
    overrides = [
        f"methods=[{folder / 'method.yaml'}]",
        f"run.cache={folder / 'cache'}",
        f"workload.corpus.path={folder / 'letters.txt'}",
        *settings,
    ]
    session = Session(load_suite(str(folder / "tiny.yaml"), overrides))
    return session.runs[0], Context(corpus=session.suite.workload.corpus, cache=session.cache)


def finish(run: Run, context: Context) -> list[tuple[StageSpec, StageResult]]:
    """Execute every stage of a run."""
    done: list[tuple[StageSpec, StageResult]] = []
    while (spec := run.next_stage(done)) is not None:
        done.append((spec, execute(spec, context)))
    return done


class Interrupted(Exception):  # noqa: N818 - not an error
    """Stands for a kill."""


def killed_after(n_ticks: int) -> Callable[[Tick], None]:
    """What a stage calls at its signs of life: raises once these are over."""
    left = iter(range(n_ticks))

    def tick(_: Tick) -> None:
        if next(left, None) is None:
            raise Interrupted

    return tick
