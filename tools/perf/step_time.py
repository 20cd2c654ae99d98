"""How fast the benchmark trains, beside a plain PyTorch loop over nanoGPT's layers.

Every contestant does the same number of steps in every round, in one process. Set-up and the first
steps of every turn are not timed.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmark.data.corpora import load
from benchmark.growth.operator import Moments
from benchmark.model.cost import training_flops_per_token
from benchmark.model.kernels import cross_entropy, linear
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import (
    ExecutionConfig,
    Precision,
    ProtocolConfig,
    SuiteConfig,
    WorkloadConfig,
    load_corpus,
    load_method,
)
from benchmark.plan.run import Run
from benchmark.stage.context import Context
from benchmark.stage.execute import execute
from benchmark.stage.process import prepare_process
from benchmark.training.optim import OptimizerConfig, build_optimizer, clipped_step
from tools.perf.nanogpt_reference import ReferenceGPT, adamw, train
from tools.perf.rounds import ratio, table, take_turns
from tools.perf.watched import Watched

Turn = Callable[[int], float]
"""Train `N_WARM` steps untimed, then this many timed; seconds of the latter."""

SAME = ModelConfig(norm="layernorm", positions="learned", tied=True)
"""The choices that make our model nanoGPT's."""

N_WARM = 2
RATE = 6e-4
PEAK_SIZE = 1024
BUDGET_FLOPS = 8e11
"""Of the run that the harness believes it is in, as in suite `cpu`; sets how often it records."""

REFERENCE = "nanoGPT's layers, plain loop"
SAME_LAYERS = "our model, nanoGPT's layers, plain loop"
PLAIN = "our model, plain loop"
HARNESS = "our model, through the harness"
BFLOAT16 = "our model, through the harness, bf16-mixed"
PRODUCT = "a product of matrices"


@dataclass(frozen=True)
class Shape:
    """A model, its batch, and how it is trained."""

    config: ModelConfig
    batch_size: int
    n_threads: int
    n_steps: int
    """Of a turn."""

    @property
    def name(self) -> str:
        """The sizes in words."""
        c = self.config
        threads = "1 thread" if self.n_threads == 1 else f"{self.n_threads} threads"
        return (
            f"d {c.d_model}, L {c.n_layer}, H {c.n_head}, F {c.d_ff}, T {c.seq_len}, "
            f"B {self.batch_size}, {threads}"
        )

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch_size * self.config.seq_len

    @property
    def flops(self) -> float:
        """Of a step."""
        return self.tokens * training_flops_per_token(Transformer.shell(self.config))


CPU = ModelConfig(d_model=32, n_layer=4, d_head=8, d_ff=128)
TARGET = Shape(CPU, batch_size=8, n_threads=1, n_steps=30)
"""What suite `cpu` trains in the end."""

WIDE = ModelConfig(d_model=128, n_layer=4, n_head=4, d_head=32, d_ff=512, seq_len=256)
LARGER = Shape(WIDE, batch_size=16, n_threads=2, n_steps=4)

SHAPES = (
    TARGET,
    replace(TARGET, config=replace(CPU, n_layer=8), n_steps=20),
    replace(TARGET, config=replace(CPU, n_layer=2)),
    replace(TARGET, config=replace(CPU, n_layer=1)),
    replace(TARGET, config=replace(CPU, n_head=2, d_ff=64)),
    replace(TARGET, config=replace(CPU, d_model=16, n_head=2, d_ff=64)),
    LARGER,
    replace(
        LARGER, config=replace(WIDE, d_model=256, n_layer=6, n_head=8, d_ff=1024), n_steps=2
    ),
)  # fmt: skip
"""Suite `cpu`'s target and a deeper one, its sources, and two that are larger."""


def drawn(config: ModelConfig) -> Transformer:
    """Our model with random weights."""
    return Transformer(config, generator=torch.Generator().manual_seed(0))


def reference_steps(shape: Shape) -> Turn:
    """Train the yardstick in its loop, on random bytes."""
    model = ReferenceGPT(shape.config)
    return _plain_turn(shape, partial(train, model, adamw(model)))


def plain_steps(config: ModelConfig, shape: Shape) -> Turn:
    """Train our model as the harness does, but in a loop of nothing else, on random bytes."""
    model = drawn(config)
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model))
    for group in optimizer.param_groups:
        group["lr"] = RATE
    return _plain_turn(shape, partial(_train, model, optimizer))


def _train(model: Transformer, optimizer: torch.optim.Optimizer, batches: Sequence[Tensor]) -> None:
    for batch in batches:
        logits_BTV = model(batch[:, :-1])
        cross_entropy(logits_BTV.flatten(0, 1), batch[:, 1:].flatten()).backward()
        clipped_step(optimizer, clip=1.0)


def _plain_turn(shape: Shape, run: Callable[[Sequence[Tensor]], None]) -> Turn:
    def turn(n_steps: int) -> float:
        size = (N_WARM + n_steps, shape.batch_size, shape.config.seq_len + 1)
        batches = list(torch.randint(shape.config.vocab_size, size))
        run(batches[:N_WARM])
        started = time.perf_counter()
        run(batches[N_WARM:])
        return time.perf_counter() - started

    return turn


def harness_steps(shape: Shape, cache: Path, precision: Precision = "32-true") -> Turn:
    """Train our model as `growbench run` does: a stage with its stream, ledger and records."""
    corpus = load_corpus("synthetic")
    data = {"sha256": load(corpus, cache / "corpora").sha256}
    workload = WorkloadConfig(corpus=corpus, target=shape.config, batch_size=shape.batch_size)
    protocol = ProtocolConfig(budget_flops=BUDGET_FLOPS, curve_bytes=1024, precision=precision)
    suite = SuiteConfig(
        name="perf",
        version="1.0",
        workload=workload,
        protocol=protocol,
        run=ExecutionConfig(device="cpu"),
    )
    seeds = count()

    def turn(n_steps: int) -> float:
        stage = Run(suite, load_method("scratch"), next(seeds), data).next_stage([])
        assert stage is not None
        short = replace(
            stage,
            baseline=f"{Watched.__module__}:{Watched.__name__}",
            until=(N_WARM + n_steps + 0.5) * shape.flops,
            marks=(),
            is_last=False,
        )
        Watched.turns.clear()
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        prepare_process(torch.get_num_threads())
        execute(short, Context(corpus=corpus, cache=cache))
        torch.use_deterministic_algorithms(was_deterministic)
        return Watched.turns[-1] - Watched.turns[-1 - n_steps]

    return turn


def product_seconds() -> float:
    """Of a large square product in fp32, by the faster of the libraries in this PyTorch."""
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
    return min(_seconds(torch.matmul, a, b), _seconds(linear, a, b))


def _seconds(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    product(a, b)
    started = time.perf_counter()
    for _ in range(5):
        product(a, b)
    return (time.perf_counter() - started) / 5


Seconds = dict[str, list[float]]
"""Of a step, by contestant and round."""


def measure(shape: Shape, n_rounds: int) -> Seconds:
    """Let every contestant train in turn."""
    same = replace(shape.config, norm=SAME.norm, positions=SAME.positions, tied=SAME.tied)
    with TemporaryDirectory() as cache:
        turns = {
            REFERENCE: reference_steps(shape),
            SAME_LAYERS: plain_steps(same, shape),
            PLAIN: plain_steps(shape.config, shape),
            HARNESS: harness_steps(shape, Path(cache)),
        }
        return _in_turn(turns, shape, n_rounds)


def measure_bfloat16(shape: Shape, n_rounds: int) -> Seconds:
    """Let our model train in both precisions in turn, through the harness."""
    with TemporaryDirectory() as cache:
        turns = {
            HARNESS: harness_steps(shape, Path(cache)),
            BFLOAT16: harness_steps(shape, Path(cache), "bf16-mixed"),
        }
        return _in_turn(turns, shape, n_rounds)


def _in_turn(turns: dict[str, Turn], shape: Shape, n_rounds: int) -> Seconds:
    torch.set_num_threads(shape.n_threads)

    def seconds_of_a_step(turn: Turn) -> float:
        return turn(shape.n_steps) / shape.n_steps

    works = {name: partial(seconds_of_a_step, turn) for name, turn in turns.items()}
    return take_turns(works | {PRODUCT: product_seconds}, n_rounds, n_warm=1)


def document(found: dict[Shape, Seconds], bfloat16: dict[Shape, Seconds]) -> str:
    """Section of the page that `make perf` writes."""
    n_rounds = min(len(seconds[PRODUCT]) for seconds in found.values())
    parts = [
        f"""## Training step

Batches are B windows of T bytes, fp32. "Reference" is {REFERENCE}. "Same layers" is our
model with nanoGPT's norm, positions and head, "ours" the one that suites train; both in a loop of
forward, backward and update alone. "Harness" is "ours" as `growbench run` trains it. Medians of
{n_rounds} interleaved rounds; ratios are taken within a round. The peak is the faster of MKL's and
oneDNN's rate for the product of two matrices of {PEAK_SIZE} x {PEAK_SIZE}, in the same run. The
first shapes are suite `cpu`'s target, a deeper one, and the target's sources.
""",
        table([_row(shape, seconds) for shape, seconds in found.items()]),
        "A step of our model through the harness in bf16-mixed, beside fp32:",
        table([_row_of_bfloat16(shape, seconds) for shape, seconds in bfloat16.items()]),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _row(shape: Shape, found: Seconds) -> dict[str, str]:
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    names = {"reference": REFERENCE, "same layers": SAME_LAYERS, "ours": PLAIN, "harness": HARNESS}
    rate, peak = shape.flops / median[HARNESS], 2 * PEAK_SIZE**3 / median[PRODUCT]
    return {
        "shape": shape.name,
        **{f"{title}, ms": f"{1e3 * median[name]:.1f}" for title, name in names.items()},
        "harness, tokens/s": f"{shape.tokens / median[HARNESS]:,.0f}",
        "speed / reference": f"{1 / ratio(found[HARNESS], found[REFERENCE]):.2f}",
        "the harness adds": f"{ratio(found[HARNESS], found[PLAIN]) - 1:+.1%}",
        "GFLOP/s": f"{rate / 1e9:.0f}",
        "peak GFLOP/s": f"{peak / 1e9:.0f}",
        "of peak": f"{rate / peak:.0%}",
    }


def _row_of_bfloat16(shape: Shape, found: Seconds) -> dict[str, str]:
    return {
        "shape": shape.name,
        "fp32, ms": f"{1e3 * statistics.median(found[HARNESS]):.1f}",
        "bf16-mixed, ms": f"{1e3 * statistics.median(found[BFLOAT16]):.1f}",
        "time / fp32": f"{ratio(found[BFLOAT16], found[HARNESS]):.2f}",
    }


def machine() -> str:
    """What the page was measured on."""
    return f"{cpu_name()}, torch {torch.__version__}, Python {platform.python_version()}"


def cpu_name() -> str:
    """Processor model of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
