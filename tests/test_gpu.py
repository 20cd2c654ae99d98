"""Methods on a pretended GPU: all of a training is there, and comes to what it does on the CPU."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny_suite
import torch
from _pytest.mark import ParameterSet
from pretend_gpu import DEVICE, gpu_fabric, pretend_gpu
from tiny import generator
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import Copies
from baselines.zero_width import ZeroPad
from benchmark.base.errors import ConfigError
from benchmark.growth.axis_map import AxisMap
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources, Transfer, Weights
from benchmark.growth.width import WidthOperator, WidthTransfer
from benchmark.model import kernels
from benchmark.model.transformer import Block, ModelConfig, Transformer
from benchmark.plan.config import load_method, load_suite
from benchmark.plan.run import Run
from benchmark.stage import fitting, process
from benchmark.stage.checkpoint import StageStore, load_state
from benchmark.stage.context import Context
from benchmark.training import loop
from benchmark.training.baseline import Baseline, Fit, Plain
from benchmark.training.loop import make_fabric
from benchmark.training.optim import RateCurve, gradient_powers, moments_of

CPU = torch.device("cpu")
BATCH_SIZE, STEPS = 2, 2
DATA = {"name": "random", "sha256": "", "train": 10**9, "val": 10**6, "test": 10**6}


@dataclass(frozen=True)
class Trained:
    """The losses of a training, and every tensor that it had."""

    losses: list[float]
    tensors: dict[str, Tensor]


def train(run: Run, device: torch.device) -> Trained:
    """Two steps of every size of a run, growing in between, as the runner does."""
    config = run.sizes[0]
    source = run.baseline.source_class or run.baseline.model_class
    model = source(config, generator=generator()).to(device)
    powers = gradient_powers(run.protocol.optimizer)
    moments, is_new = Moments.zeros(model, powers), Weights()
    losses, tensors = list[float](), dict[str, Tensor]()
    for n_grown, target in enumerate(run.sizes):
        if n_grown > 0:
            grown = grow(
                model, moments, target, run.baseline.operators, run.policy,
                Resources(generator(n_grown), batches(target), run.baseline.model_class),
            )  # fmt: skip
            model, moments, is_new = grown.model, grown.moments, grown.is_new
            tensors |= {f"{n_grown}: grown {name}": m for name, m in named_moments(moments)}
        method = run.baseline if n_grown > 0 else Plain()
        method.begin(fit(run, model, moments, is_new, run._frozen[n_grown]))
        for step in range(STEPS):
            losses.append(learn(method, device, step))
        moments = moments_of(model, method.optimizer)
        tensors |= {f"{n_grown}: {name}": tensor for name, tensor in tensors_of(method, moments)}
    return Trained(losses, tensors)


def fit(
    run: Run, model: Transformer, moments: Moments, is_new: Weights, frozen: tuple[str, ...]
) -> Fit:
    return Fit(
        model=model,
        moments=moments,
        is_new=is_new,
        frozen=frozen,
        optimizer=run.protocol.optimizer,
        rate=RateCurve(peak=1e-3, warmup_flops=1.0, decay=None),
        rewarm=replace(run.rewarm, start=0.5) if is_new else None,
        budget_flops=30.0,  # so that the masks of MSG are half open, then open
        grown_at=10.0,
        start_flops=10.0,
        n_done=0,
        step_flops=1.0,
    )


def learn(method: Baseline, device: torch.device, step: int) -> float:
    """One step; its loss."""
    found = list[float]()
    method.fit_spec = replace(method.fit_spec, on_step=lambda loss, _: found.append(loss.item()))
    fabric = gpu_fabric() if device == DEVICE else make_fabric("cpu")
    loop.train(method, [ids(method.model.config, step)[None]], fabric)
    return found[0]


def ids(config: ModelConfig, step: int) -> Tensor:
    shape = (BATCH_SIZE, config.seq_len + 1)
    return torch.randint(config.vocab_size, shape, generator=generator(step))


def batches(config: ModelConfig) -> Iterator[Tensor]:
    step = 1000
    while True:
        yield ids(config, step)
        step += 1


def tensors_of(method: Baseline, moments: Moments) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the model, its training and the optimizer."""
    model = method.model
    named = dict(model.named_parameters())
    yield from (("parameter " + name, parameter) for name, parameter in named.items())
    yield from (("buffer " + name, buffer) for name, buffer in model.named_buffers())
    yield from (("new " + name, mask) for name, mask in method.fit_spec.is_new.items())
    yield from named_moments(moments)
    for name, parameter in named.items():
        yield "steps " + name, method.optimizer.state[parameter]["step"]
        if parameter.grad is not None:
            yield "gradient " + name, parameter.grad
    for path, part in model.named_modules():
        yield from (
            (f"attribute {path}.{name}", value)
            for name, value in vars(part).items()
            if isinstance(value, Tensor)
        )


def named_moments(moments: Moments) -> Iterator[tuple[str, Tensor]]:
    for kind, named in moments.tensors.items():
        yield from ((f"{kind} {name}", moment) for name, moment in named.items())


def run_of(name: str, *settings: str) -> Run:
    suite = load_suite("smoke", ["run.device=cpu", *settings])
    return Run(suite, load_method(name), seed=0, data=DATA)


MUON = "protocol.optimizer.target=benchmark.training.muon:Muon"
GROUPED = ("workload.target.n_query=2", "workload.target.qk_norm=true")


def muon_run_of(name: str) -> Run:
    """With Muon, and with grouped and normalised queries unless the architecture refuses them."""
    try:
        return run_of(name, MUON, *GROUPED)
    except ConfigError:
        return run_of(name, MUON)


def strays(trained: Trained) -> list[str]:
    """Names of the tensors that are not on the GPU."""
    return [name for name, tensor in trained.tensors.items() if tensor.device != DEVICE]


LONG = (
    "baselines.choose_early:ChooseEarly", "baselines.ligo:LiGO", "baselines.rank_growth:RankGrowth",
)  # fmt: skip
"""Methods that train on the way to their growth, or pass many sizes: all of theirs are slow."""


def methods() -> Iterator[ParameterSet | str]:
    """All that differ in code; of each class, all but the first are slow."""
    seen = set(LONG)
    for name, target in tiny_suite.distinct_methods().items():
        yield pytest.param(name, marks=pytest.mark.slow) if target in seen else name
        seen.add(target)


def one_of_each_class() -> list[str]:
    """The first configured method of every class."""
    found = tiny_suite.distinct_methods()
    return [*{target: name for name, target in reversed(found.items())}.values()]


@pytest.mark.parametrize("name", list(methods()))
def test_every_method_is_on_the_gpu_as_a_whole_and_learns_there_what_it_learns_here(
    name: str,
) -> None:
    here = train(run_of(name), CPU)
    with pretend_gpu() as device:
        there = train(run_of(name), device)
        assert strays(there) == []
    assert there.losses == pytest.approx(here.losses, rel=1e-4)


@pytest.mark.parametrize("name", ["scratch", "msg", "llama_pro_frozen"])
def test_with_logits_in_parts_a_method_learns_the_same_on_either_device(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(run_of(name), CPU)
    monkeypatch.setattr("benchmark.model.transformer.LARGE", 256)
    here = train(run_of(name), CPU)
    with pretend_gpu() as device:
        there = train(run_of(name), device)
        assert strays(there) == []
    assert here.losses == pytest.approx(whole.losses, rel=1e-5)
    assert there.losses == pytest.approx(here.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each_class())
def test_so_it_is_with_muon_and_with_queries_in_groups(name: str) -> None:
    here = train(muon_run_of(name), CPU)
    with pretend_gpu() as device:
        there = train(muon_run_of(name), device)
        assert strays(there) == []
    assert there.losses == pytest.approx(here.losses, rel=1e-4)


# What the pretended GPU notices


class CpuNoise(Copies):
    """Adds to the weights what was drawn on the CPU and stayed there."""

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return weight + torch.randn(weight.shape, generator=generator)


class DrawnInPlace(Copies):
    """Draws into the weights, which takes a generator of their own device."""

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return weight + torch.empty_like(weight).normal_(generator=generator)


class CpuMoments(ZeroPad):
    """Starts the moments anew, on the CPU."""

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _CpuMoments.of(self, small, target, resources)


class _CpuMoments(WidthTransfer):
    @override
    def first_images(self, small: Weights) -> Weights:
        return {name: torch.zeros(like.shape) for name, like in self.shell.named_parameters()}


class CpuMaskBlock(Block):
    """Keeps a mask that does not move with the model."""

    def __init__(self, make: Transformer, config: ModelConfig) -> None:
        super().__init__(make, config)
        self.mask = torch.ones(config.d_model)

    @override
    def forward(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        return super().forward(x_BTD * self.mask, rotation_Tk2)


class CpuMasked(Transformer):
    """A transformer of such blocks."""

    @override
    def block(self, config: ModelConfig) -> Block:
        return CpuMaskBlock(self, config)


@pytest.mark.parametrize("operator", [CpuNoise(), DrawnInPlace()], ids=lambda o: type(o).__name__)
def test_an_operator_that_stays_on_the_cpu_is_noticed_as_it_runs(operator: WidthOperator) -> None:
    run = run_of("hypercloning")
    run.baseline.operators = (operator,)
    train(run, CPU)
    with pretend_gpu() as device, pytest.raises(RuntimeError, match=r"same device|of the CPU"):
        train(run, device)


def test_moments_that_stay_on_the_cpu_are_noticed() -> None:
    run = run_of("zero_width")
    run.baseline.operators = (CpuMoments(),)
    with pretend_gpu() as device:
        assert "1: grown exp_avg embed.weight" in strays(train(run, device))


def test_a_mask_that_stays_on_the_cpu_is_noticed() -> None:
    run = run_of("scratch")
    run.baseline.model_class = CpuMasked
    train(run, CPU)
    with pretend_gpu() as device, pytest.raises(RuntimeError, match="same device"):
        train(run, device)


# A whole run

GROWING = "{name: growing, defaults: hypercloning, target: baselines.sparkling:Sparkling}"


def points(run: Run, context: Context) -> list[float]:
    """Held-out bits per byte at every evaluation of a run."""
    done = tiny_suite.finish(run, context)
    return [point.bpb for _, result in done for point in result.points]


@pytest.mark.slow
def test_a_run_on_the_gpu_comes_to_what_it_does_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = points(*tiny_suite.run_of(tmp_path / "here", GROWING))
    monkeypatch.setattr("benchmark.plan.run.device", lambda *_: DEVICE.type)
    run, context = tiny_suite.run_of(tmp_path / "there", GROWING)
    monkeypatch.setattr(fitting, "make_fabric", gpu_fabric)
    with pretend_gpu() as device:
        there = points(run, context)
        last = StageStore(context.cache).checkpoint(run.predicted()[-1][0].id)
        model = load_state(last, Transformer, device).model
        assert {tensor.device for tensor in model.state_dict().values()} == {DEVICE}
    assert len(here) == 10 + 1  # and where the first stage ends
    assert there == pytest.approx(here, rel=1e-4)


# Settings of a process, and copies to a device that this machine does not have


def test_a_process_with_a_gpu_lets_cublas_be_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    process.prepare_process(threads=1)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    process.prepare_process(threads=1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(("precision", "is_on"), [("32-true", False), ("tf32", True)])
def test_products_are_rounded_to_tf32_only_where_that_is_asked_for(
    precision: str, is_on: bool
) -> None:
    kernels.set_float32_products(precision)
    try:
        assert torch.backends.cuda.matmul.allow_tf32 is is_on
        assert torch.backends.cudnn.allow_tf32 is is_on
        said = kernels.kernels("cuda", precision)
        assert said["products"].endswith("TF32 on" if is_on else "TF32 off")
        assert said["float32_products"] == ("high" if is_on else "highest")
    finally:
        kernels.set_float32_products("32-true")


def test_a_gpu_gets_its_batches_from_pinned_memory_and_need_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = list[str]()

    def pin(batch: Tensor) -> Tensor:
        done.append("pinned")
        return batch

    def move(batch: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        done.append(f"{device}, {non_blocking}")
        return batch

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", move)
    loop._on_device(torch.zeros(1), torch.device("cuda"))
    assert done == ["pinned", "cuda, True"]


def test_a_clock_stops_when_the_gpu_has_done_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    process.wait_for(CPU)
    assert waited == []
    process.wait_for(torch.device("cuda"))
    assert waited == [torch.device("cuda")]
