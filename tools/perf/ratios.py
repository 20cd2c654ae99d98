"""Warns where speed has got worse: compares ratios with limits, never times.

A ratio differs between processors by what their libraries are good at (a step beside nanoGPT's took
0.78 of the time on one AMD core, 1.05 on another), so it is read by a person and fails nothing.
What is over its limit is measured again, up to three times, and its best counts: a machine is
rarely busy with other work three times in a row, and what has got slower is so every time.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
import typer
import yaml
from tabulate import tabulate

from benchmark.base.plugins import PluginConfig
from benchmark.model.transformer import ModelConfig
from benchmark.plan.config import load_method
from benchmark.stage.process import prepare_process
from tools.perf import growth_time, step_time
from tools.perf.step_time import HARNESS, LARGER, REFERENCE, TARGET, Rounds, Shape

LIMITS = Path(__file__).with_name("limits.yaml")
N_ATTEMPTS = 3
N_ROUNDS = 5
GROWN = ModelConfig(d_model=512, n_layer=6, n_head=8, d_head=64, d_ff=2048)

Ratios = dict[str, float]


def target_step() -> Ratios:
    """Of suite `cpu`'s target."""
    rounds = _rounds(TARGET)
    return {
        "step of suite cpu's target / nanoGPT's": rounds.slowdown(HARNESS, REFERENCE),
        "step of suite cpu's target in the harness / alone": 1 + rounds.overhead,
    }


def larger_step() -> Ratios:
    """Of a larger model, on one thread, which waits for no other core."""
    rounds = _rounds(replace(LARGER, n_threads=1, n_steps=2))
    return {"step at d 128 / nanoGPT's": rounds.slowdown(HARNESS, REFERENCE)}


def growth() -> Ratios:
    """Of width by tiling."""
    method = load_method("hypercloning")
    small = GROWN.resized({"d_model": 256, "n_head": 4, "d_ff": 1024})
    arguments = PluginConfig(target=method.target, args=method.args), small, GROWN
    with get_context("forkserver").Pool(1, prepare_process, (1,), maxtasksperchild=1) as processes:
        costs = [processes.apply(growth_time.times, arguments) for _ in range(N_ROUNDS)]
    return {"growing by hypercloning / copying": statistics.median(c.weights for c in costs)}


def _rounds(shape: Shape) -> Rounds:
    with tempfile.TemporaryDirectory() as cache:
        return step_time.measure(shape, Path(cache), N_ROUNDS)


def best(measure: Callable[[], Ratios], limits: Mapping[str, float]) -> Ratios:
    """The least of each ratio in as many attempts as it takes until all are within limits."""
    found: Ratios = {}
    for _ in range(N_ATTEMPTS):
        for name, ratio in measure().items():
            found[name] = min(ratio, found.get(name, ratio))
        if not slower(found, limits):
            break
    return found


def slower(found: Ratios, limits: Mapping[str, float]) -> list[str]:
    """Names of the ratios that are over their limits."""
    return [name for name, ratio in found.items() if ratio > limits[name]]


def main() -> None:
    """Print every ratio beside its limit, and a warning for those that are over it."""
    limits: dict[str, float] = yaml.safe_load(LIMITS.read_text())
    torch.manual_seed(0)
    found: Ratios = {}
    for measure in (target_step, larger_step, growth):
        found |= best(measure, limits)
    rows = [(name, f"{ratio:.2f}", f"{limits[name]:.2f}") for name, ratio in found.items()]
    typer.echo(tabulate(rows, headers=("ratio of times", "measured", "limit"), tablefmt="github"))
    if over := slower(found, limits):
        typer.echo(f"warning: slower than on the machine of limits.yaml: {'; '.join(over)}")


if __name__ == "__main__":
    main()
