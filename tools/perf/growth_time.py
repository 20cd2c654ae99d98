"""What growing costs, beside copying the grown state once: time and memory.

State is what growth makes: weights and both of Adam's moments. Most of the time goes to obtaining
memory, so every turn has a fresh process to itself, which has none to reuse, and the yardstick
copies into new memory, too. Seconds are of processor time: a busy machine slows nobody down.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch
import typer
from tabulate import tabulate

from benchmark.baseline import Baseline
from benchmark.config import PluginConfig, available, build, load_method
from benchmark.errors import GrowthError
from benchmark.growth import Grown, Moments, Resources, check_reach, grow
from benchmark.model import ModelConfig, Transformer
from benchmark.runner import prepare_process
from tools.perf.step_time import cpu_name, drawn

SMALL = ModelConfig(d_model=512, n_layer=12, n_head=8, d_head=64, d_ff=2048)
LARGE = ModelConfig(d_model=1024, n_layer=12, n_head=16, d_head=64, d_ff=4096)
TENSORS_PER_WEIGHT = 3
"""The weight and two moments."""


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and the most bytes held at once beyond what was there before."""

    seconds: float
    bytes: int


def closed_form(small: ModelConfig, large: ModelConfig) -> dict[str, PluginConfig]:
    """Distinct configured methods that can grow `small` to `large` without data, by name."""
    found: dict[str, PluginConfig] = {}
    for name in available("method"):
        method = load_method(name)
        plugin = PluginConfig(target=method.target, args=method.args)
        baseline = build(plugin, Baseline, f"method.{name}")
        starts_plain = (baseline.source_class or baseline.model_class) is Transformer
        try:
            check_reach(small, large, baseline.operators)
            grow_all(baseline, drawn(_tiny(small)), _tiny(large))()
        except GrowthError:
            continue
        if starts_plain and baseline.operators and plugin not in found.values():
            found[name] = plugin
    return found


def _tiny(config: ModelConfig) -> ModelConfig:
    sizes = {"d_model": config.d_model // 64, "d_ff": config.d_ff // 64}
    return config.resized({**sizes, "d_head": 2, "n_layer": 1})


def grow_all(baseline: Baseline, small: Transformer, large: ModelConfig) -> Callable[[], Grown]:
    """Growth as in a run, with the method's own state policy and without data, ready to go."""
    weights = {name: weight.detach() for name, weight in small.named_parameters()}
    moments = Moments(
        exp_avg={name: weight.clone() for name, weight in weights.items()},
        exp_avg_sq={name: weight.square() for name, weight in weights.items()},
        step=dict.fromkeys(weights, 1.0),
    )
    resources = Resources(torch.Generator().manual_seed(1), model_class=baseline.model_class)
    return lambda: grow(small, moments, large, baseline.operators, baseline.state_policy, resources)


def copy_once(large: ModelConfig) -> Cost:
    """Copy the large model's weights."""
    state = drawn(large).state_dict()
    return measured(lambda: [tensor.clone() for tensor in state.values()])


def grow_once(plugin: PluginConfig, small: ModelConfig, large: ModelConfig) -> Cost:
    """Grow the weights and both moments."""
    return measured(grow_all(build(plugin, Baseline, "method"), drawn(small), large))


def measured(work: Callable[[], object]) -> Cost:
    """What `work` costs in this process, which must be fresh; its result is held to the end."""
    before = psutil.Process().memory_info().rss
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del result
    return Cost(seconds, peak * (1 if sys.platform == "darwin" else 1024) - before)


@dataclass(frozen=True)
class Turns:
    """Costs of every turn, by method; and those of copying the large model's weights."""

    methods: dict[str, list[Cost]]
    copies: list[Cost]
    sizes: tuple[int, int]
    """Bytes of the small and of the large model's weights."""

    def time(self, name: str) -> float:
        """Time of growing by a method as a multiple of copying the grown state once."""
        copy = statistics.median(cost.seconds for cost in self.copies)
        grown = statistics.median(cost.seconds for cost in self.methods[name])
        return grown / (TENSORS_PER_WEIGHT * copy)

    def memory(self, name: str) -> float:
        """Memory of both states and all else at the worst moment, over that of both states."""
        small, large = (TENSORS_PER_WEIGHT * size for size in self.sizes)
        most = max(cost.bytes for cost in self.methods[name])
        return (small + most) / (small + large)


def measure(small: ModelConfig, large: ModelConfig, n_rounds: int) -> Turns:
    """Let every method grow `n_rounds` times, each in a process of its own."""
    plugins = closed_form(small, large)
    methods: dict[str, list[Cost]] = {name: [] for name in plugins}
    copies: list[Cost] = []
    spawn = get_context("spawn")
    with spawn.Pool(1, initializer=prepare_process, initargs=(1,), maxtasksperchild=1) as pool:
        for _ in range(n_rounds):
            copies.append(pool.apply(copy_once, (large,)))
            for name, plugin in plugins.items():
                methods[name].append(pool.apply(grow_once, (plugin, small, large)))
    n_small, n_large = (
        sum(4 * weight.numel() for weight in Transformer.shell(config).parameters())
        for config in (small, large)
    )
    return Turns(methods, copies, (n_small, n_large))


def document(turns: Turns, small: ModelConfig, large: ModelConfig) -> str:
    """The page that this tool writes."""
    rows = [
        {
            "method": name,
            "seconds": f"{statistics.median(cost.seconds for cost in costs):.2f}",
            "time / copying the state once": f"{turns.time(name):.2f}",
            "memory / (small + large)": f"{turns.memory(name):.3f}",
        }
        for name, costs in turns.methods.items()
    ]
    copy = statistics.median(cost.seconds for cost in turns.copies)
    return f"""# Cost of growing

From d_model {small.d_model} to {large.d_model}, {large.n_layer} layers, fp32, one thread of
{cpu_name()}, torch {torch.__version__}.
Copying the large model's weights takes {copy:.2f} s, with both moments three times that.
Medians of {len(turns.copies)} rounds, a fresh process each time.

{tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="left")}
"""


def main(rounds: int = 5, out: Path = Path("results/growth.md")) -> None:
    """Measure, print the table, write it to `out`."""
    text = document(measure(SMALL, LARGE, rounds), SMALL, LARGE)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    typer.echo(text, nl=False)


if __name__ == "__main__":
    typer.run(main)
