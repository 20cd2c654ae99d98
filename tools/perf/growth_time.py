"""What growing costs, beside copying the large model's weights once: time and memory.

Most of either time goes to obtaining memory. So a turn is a process of its own, which has none to
reuse: it copies, grows and copies again, all into new memory. The ratio is taken within the turn,
so that a busy machine slows both alike. Memory is counted exactly, tensor by tensor.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmark.base.errors import GrowthError
from benchmark.base.plugins import PluginConfig, build
from benchmark.growth.grow import check_reach, enlargements, grow, grown_model
from benchmark.growth.operator import Moments, Resources
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import available, load_method
from benchmark.stage.process import prepare_process
from benchmark.training.baseline import Baseline
from tools.perf.live_bytes import LiveBytes
from tools.perf.rounds import table, take_turns
from tools.perf.step_time import drawn

LARGE = ModelConfig(d_model=1024, n_layer=12, n_head=16, d_head=64, d_ff=4096)
SMALL = {
    "width": ModelConfig(d_model=512, n_layer=12, n_head=8, d_head=64, d_ff=2048),
    "depth": replace(LARGE, n_layer=6),
}
"""What grows to `LARGE`."""

N_THREADS = (1, 2)


def closed_form(small: ModelConfig, large: ModelConfig) -> dict[str, PluginConfig]:
    """Configured methods that grow `small` to `large` without data, each in its own way, by name.

    Of several that do the same there, as all do that stack blocks alike, it is the first by name.
    """
    found: dict[str, PluginConfig] = {}
    known = []
    for name in available("method"):
        method = load_method(name)
        plugin = PluginConfig(target=method.target, args=method.args)
        baseline = build(plugin, Baseline, f"method.{name}")
        starts_plain = (baseline.source_class or baseline.model_class) is Transformer
        try:
            check_reach(small, large, baseline.operators)
            Growing(baseline, drawn(_tiny(small)), _tiny(large)).all()
        except GrowthError:
            continue
        acting = [operator for operator, _ in enlargements(small, large, baseline.operators)]
        if starts_plain and acting and (growth := (acting, baseline.state_policy)) not in known:
            known.append(growth)
            found[name] = plugin
    return found


def _tiny(config: ModelConfig) -> ModelConfig:
    sizes = {"d_model": config.d_model // 64, "d_ff": config.d_ff // 64}
    return config.resized({**sizes, "d_head": 2, "n_layer": config.n_layer // 6})


class Growing:
    """One growth, ready to go, of a model and of the moments of its optimizer."""

    def __init__(self, baseline: Baseline, small: Transformer, large: ModelConfig) -> None:
        self.baseline, self.small, self.large = baseline, small, large
        weights = {name: weight.detach() for name, weight in small.named_parameters()}
        self.before = Moments.adam(
            exp_avg={name: weight.clone() for name, weight in weights.items()},
            exp_avg_sq={name: weight.square() for name, weight in weights.items()},
            step=dict.fromkeys(weights, 1.0),
        )

    @property
    def _resources(self) -> Resources:
        generator = torch.Generator().manual_seed(1)
        return Resources(generator, model_class=self.baseline.model_class)

    def weights(self) -> list[Tensor]:
        """Those of the large model, grown without moments."""
        model, resources = self.small, self._resources
        for operator, middle in enlargements(model.config, self.large, self.baseline.operators):
            transfer = operator.prepare(model, middle, resources)
            model = grown_model(model, transfer, middle, resources)
        return list(model.state_dict().values())

    def all(self) -> list[Tensor]:
        """As in a run: weights, moments by the method's own policy, and which entries are new."""
        grown = grow(
            self.small,
            self.before,
            self.large,
            self.baseline.operators,
            self.baseline.state_policy,
            self._resources,
        )
        moments = (*grown.moments.exp_avg.values(), *grown.moments.exp_avg_sq.values())
        return [*grown.model.state_dict().values(), *moments, *grown.is_new.values()]


@dataclass(frozen=True)
class Cost:
    """Of growing the weights, and of growing them with both moments."""

    weights: float
    all: float


def times(plugin: PluginConfig, small: ModelConfig, large: ModelConfig) -> Cost:
    """Time of growing over that of copying the large weights, in this process, which is fresh."""
    growing = Growing(build(plugin, Baseline, "method"), drawn(small), large)
    shapes = [like.shape for like in Transformer.shell(large).state_dict().values()]
    source = [torch.ones(shape) for shape in shapes]
    held: list[list[Tensor]] = []  # to the end, so that nobody finds memory to reuse

    def seconds(work: Callable[[], list[Tensor]]) -> float:
        started = time.perf_counter()
        held.append(work())
        return time.perf_counter() - started

    def copy() -> list[Tensor]:
        return [tensor.clone() for tensor in source]

    first, weights, second = seconds(copy), seconds(growing.weights), seconds(copy)
    everything, third = seconds(growing.all), seconds(copy)
    return Cost(2 * weights / (first + second), 2 * everything / (second + third))


def memory(plugin: PluginConfig, small: ModelConfig, large: ModelConfig) -> Cost:
    """Most bytes alive while growing, over those of what there is before and after."""
    growing = Growing(build(plugin, Baseline, "method"), drawn(small), large)
    weights = list(growing.small.state_dict().values())
    moments = [*growing.before.exp_avg.values(), *growing.before.exp_avg_sq.values()]
    size = sum(tensor.nbytes for tensor in weights)
    size_large = sum(like.nbytes for like in Transformer.shell(large).state_dict().values())
    peaks = []
    for held, work in ((weights, growing.weights), ([*weights, *moments], growing.all)):
        with LiveBytes(held) as live:
            work()
        peaks.append(live.peak)
    return Cost(peaks[0] / (size + size_large), peaks[1] / (3 * (size + size_large)))


@dataclass(frozen=True)
class Growths:
    """What growing costs: memory by method, time by method and number of threads."""

    memory: dict[str, Cost]
    times: dict[int, dict[str, list[Cost]]]

    def time(self, name: str, n_threads: int) -> Cost:
        """Medians over the rounds."""
        costs = self.times[n_threads][name]
        return Cost(
            statistics.median(cost.weights for cost in costs),
            statistics.median(cost.all for cost in costs),
        )


def measure(small: ModelConfig, large: ModelConfig, n_rounds: int) -> Growths:
    """Let every method grow `n_rounds` times at each number of threads, and once for memory."""
    plugins = closed_form(small, large)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    found = Growths({}, {n_threads: {} for n_threads in N_THREADS})
    pool = partial(context.Pool, 1, initializer=prepare_process, maxtasksperchild=1)
    with pool(initargs=(1,)) as processes:
        for name, plugin in plugins.items():
            found.memory[name] = processes.apply(memory, (plugin, small, large))
    for n_threads, costs in found.times.items():
        with pool(initargs=(n_threads,)) as processes:
            works = {
                name: partial(processes.apply, times, (plugin, small, large))
                for name, plugin in plugins.items()
            }
            costs.update(take_turns(works, n_rounds))
    return found


def _rounds(n: int) -> str:
    return "one round" if n == 1 else f"median of {n} rounds"


def document(growths: dict[str, Growths], n_rounds: int) -> str:
    """Section of the page that `make perf` writes, for what was measured by kind of growth."""
    parts = [
        f"""## Cost of growing

To d_model {LARGE.d_model}, {LARGE.n_layer} layers, fp32: in width from d_model
{SMALL["width"].d_model}, in depth from {SMALL["depth"].n_layer} layers. Time is over that of
copying the large model's weights once into new memory, {_rounds(n_rounds)}. Memory is the
most bytes of tensors alive at once, over those of the small and the large state. "All" is the
weights, both of Adam's moments and the masks of new entries; its time is over copying the weights,
too. Methods that do the same here share a row, under the first of their names.
"""
    ]
    for kind, found in growths.items():
        rows = []
        for name, held in found.memory.items():
            row = {kind: name}
            for n_threads in found.times:
                cost = found.time(name, n_threads)
                threads = "1 thread" if n_threads == 1 else f"{n_threads} threads"
                row[f"weights, {threads}"] = f"{cost.weights:.2f}"
                row[f"all, {threads}"] = f"{cost.all:.2f}"
            row["weights, memory"] = f"{held.weights:.3f}"
            row["all, memory"] = f"{held.all:.3f}"
            rows.append(row)
        parts.append(table(rows))
    return "\n\n".join(part.strip() for part in parts) + "\n"
