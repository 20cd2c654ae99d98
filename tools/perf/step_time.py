"""How fast the benchmark trains, beside a plain PyTorch loop over nanoGPT's layers.

Every contestant does the same number of steps in every round, in a rotating order and in one
process, so that a busy machine slows all alike; ratios are taken within a round, then their median.
Set-up and the first steps of every turn are not timed.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from benchmark.config import (
    ExecutionConfig,
    ProtocolConfig,
    SuiteConfig,
    WorkloadConfig,
    load_corpus,
    load_method,
)
from benchmark.cost import training_flops_per_token
from benchmark.model import ModelConfig, Transformer
from benchmark.plan import Run
from benchmark.runner import Context, execute, prepare_process
from tools.perf.nanogpt_reference import ReferenceGPT, adamw, train
from tools.perf.watched import Watched

Turn = Callable[[int], float]
"""Train `N_WARM` steps untimed, then this many timed; seconds of the latter."""

OURS = ModelConfig(d_model=128, n_layer=4, n_head=4, d_head=32, d_ff=512, seq_len=256)
SAME = replace(OURS, norm="layernorm", positions="learned", tied=True)
BATCH_SIZE = 16
N_THREADS = 2
N_WARM = 2
PEAK_SIZE = 1024
N_STEPS_PER_RUN = 1000
"""Length of the run that the harness believes it is in; sets how often it records."""

REFERENCE = "nanoGPT's layers, plain loop"
SAME_LAYERS = "our model, nanoGPT's layers, plain loop"
PLAIN = "our model, plain loop"
HARNESS = "our model, through the harness"


def reference_model(config: ModelConfig) -> ReferenceGPT:
    """The yardstick at the sizes of `config`."""
    return ReferenceGPT(
        d_model=config.d_model,
        n_layer=config.n_layer,
        n_head=config.n_head,
        vocab_size=config.vocab_size,
        seq_len=config.seq_len,
    )


def drawn(config: ModelConfig) -> Transformer:
    """Our model with random weights."""
    return Transformer(config, generator=torch.Generator().manual_seed(0))


def plain_steps(model: nn.Module, config: ModelConfig) -> Turn:
    """Train `model` in the plain loop, on random bytes."""
    optimizer = adamw(model)

    def turn(n_steps: int) -> float:
        shape = (N_WARM + n_steps, BATCH_SIZE, config.seq_len + 1)
        batches = list(torch.randint(config.vocab_size, shape))
        train(model, optimizer, batches[:N_WARM])
        started = time.perf_counter()
        train(model, optimizer, batches[N_WARM:])
        return time.perf_counter() - started

    return turn


def harness_steps(config: ModelConfig, cache: Path) -> Turn:
    """Train our model as `growbench run` does: a stage with its stream, ledger and records."""
    step_flops = BATCH_SIZE * config.seq_len * training_flops_per_token(Transformer.shell(config))
    corpus = load_corpus("synthetic")
    suite = SuiteConfig(
        name="perf",
        version="1.0",
        workload=WorkloadConfig(corpus=corpus, target=config, batch_size=BATCH_SIZE),
        protocol=ProtocolConfig(budget_flops=N_STEPS_PER_RUN * step_flops, curve_bytes=1024),
        run=ExecutionConfig(device="cpu"),
    )
    seeds = count()

    def turn(n_steps: int) -> float:
        stage = Run(suite, load_method("scratch"), next(seeds), data={}).next_stage([])
        assert stage is not None
        short = replace(
            stage,
            baseline=f"{Watched.__module__}:{Watched.__name__}",
            until=(N_WARM + n_steps + 0.5) * step_flops,
            marks=(),
            is_last=False,
        )
        Watched.ends.clear()
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        prepare_process(torch.get_num_threads())
        execute(short, Context(corpus=corpus, cache=cache))
        torch.use_deterministic_algorithms(was_deterministic)
        return Watched.ends[-1] - Watched.ends[-1 - n_steps]

    return turn


def matmul_flops_per_second() -> float:
    """Rate of a large square matrix product on this machine, fp32."""
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
    started = time.perf_counter()
    for _ in range(10):
        a @ b
    return 10 * 2 * PEAK_SIZE**3 / (time.perf_counter() - started)


@dataclass(frozen=True)
class Rounds:
    """Seconds per step of every contestant, and the rate of a matrix product, round by round."""

    seconds: dict[str, list[float]]
    peak: list[float]

    def slowdown(self, name: str, base: str) -> float:
        """Median over the rounds of the time of `name` as a multiple of that of `base`."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def measure(config: ModelConfig, cache: Path, *, n_rounds: int, n_steps: int) -> Rounds:
    """Let every contestant train in turn, `n_rounds` times."""
    same = replace(config, norm=SAME.norm, positions=SAME.positions, tied=SAME.tied)
    turns = {
        REFERENCE: plain_steps(reference_model(config), config),
        SAME_LAYERS: plain_steps(drawn(same), config),
        PLAIN: plain_steps(drawn(config), config),
        HARNESS: harness_steps(config, cache),
    }
    rounds = Rounds({name: [] for name in turns}, [])
    for i in range(n_rounds + 1):
        names = list(turns)[i % len(turns) :] + list(turns)[: i % len(turns)]
        seconds = {name: turns[name](n_steps) for name in names}
        peak = matmul_flops_per_second()
        if i > 0:  # the first round warms allocator and kernels
            rounds.peak.append(peak)
            for name in names:
                rounds.seconds[name].append(seconds[name] / n_steps)
    return rounds


def table(rounds: Rounds, config: ModelConfig) -> str:
    """Markdown table of the medians."""
    tokens = BATCH_SIZE * config.seq_len
    flops = tokens * training_flops_per_token(Transformer.shell(config))
    peak = statistics.median(rounds.peak)
    rows = []
    for name, seconds in rounds.seconds.items():
        median = statistics.median(seconds)
        rows.append(
            {
                "training step": name,
                "tokens/s": f"{tokens / median:,.0f}",
                "ms": f"{1e3 * median:.1f}",
                "time / reference": f"{rounds.slowdown(name, REFERENCE):.3f}",
                "of matmul peak": f"{flops / median / peak:.0%}",
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="left")


def document(rounds: Rounds, config: ModelConfig) -> str:
    """The page that `make perf` writes."""
    overhead = rounds.slowdown(HARNESS, PLAIN) - 1
    shape = (
        f"d_model {config.d_model}, {config.n_layer} layers, {config.n_head} heads, "
        f"length {config.seq_len}, batch {BATCH_SIZE}, fp32, {torch.get_num_threads()} threads"
    )
    machine = (
        f"{cpu_name()}, torch {torch.__version__}, "
        f"matrix product {statistics.median(rounds.peak) / 1e9:.0f} GFLOP/s"
    )
    return f"""# Speed of the training step

{shape}.
{machine}.
Medians of {len(rounds.peak)} interleaved rounds; ratios are taken within a round.

{table(rounds, config)}

Loop, logging and ledger add {overhead:+.1%} to our model's step.
"""


def cpu_name() -> str:
    """Processor model of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
