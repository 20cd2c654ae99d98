"""Compiled steps are the same steps, of every architecture, and say what compiling took."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_suite
import torch
from tiny import TINY, gap, generator, text
from torch._dynamo.testing import CompileCounter
from torch._inductor import config as inductor

from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.masking import MaskedTransformer
from baselines.parts.token_parameters import MODELS
from benchmark.base.errors import ConfigError
from benchmark.model import compiled
from benchmark.model.kernels import rotate
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import is_compiled
from benchmark.plan.spec import StageResult
from benchmark.records.events import read_events
from benchmark.stage.checkpoint import StageStore
from benchmark.training.baseline import mean_nats

SHALLOW = replace(TINY, n_layer=1)
OTHER = replace(SHALLOW, norm="layernorm", positions="learned", activation="swiglu", tied=True)
# PyTorch's compiler uses what PyTorch deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ARCHITECTURES = [
    (Transformer, SHALLOW),
    (Transformer, OTHER),
    (MaskedTransformer, SHALLOW),
    (LowRankTransformer, replace(SHALLOW, d_model=16, own=(("rank", 2),))),
    *((cls, replace(SHALLOW, own=(("n_token", 6),))) for cls in MODELS.values()),
]


@pytest.fixture(autouse=True)
def _forgotten() -> object:
    """What a test compiles is no part of another."""
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_logits_in_parts_are_one_graph_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Transformer(OTHER, generator=generator()), text(OTHER)
    plain = torch.autograd.grad(mean_nats(model, batch), list(model.parameters()))
    monkeypatch.setattr("benchmark.model.transformer.LARGE", 2)
    step = torch.compile(mean_nats, dynamic=False, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(step(model, batch), list(model.parameters()))
    assert max(map(gap, plain, found)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "config"), ARCHITECTURES, ids=lambda x: getattr(x, "__name__", ""))
def test_every_architecture_is_one_graph_with_the_gradients_of_the_plain_step(
    cls: type[Transformer], config: ModelConfig
) -> None:
    model, batch = cls(config, generator=generator()), text(config)
    if isinstance(model, MaskedTransformer):
        small = replace(config, d_model=3)
        model.load_state_dict(model.state_dict() | MaskedTransformer.hide(small, config))
        model.open(0.5)
    plain = torch.autograd.grad(mean_nats(model, batch), list(model.parameters()))
    torch.compiler.reset()
    step = torch.compile(mean_nats, dynamic=False, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(step(model, batch), list(model.parameters()))
    assert max(map(gap, plain, found)) < 1e-5


def test_what_is_compiled_turns_pairs_as_the_plain_operation_does() -> None:
    angle = torch.linspace(0, 3, 12, dtype=torch.float64).view(4, 3)
    rotation = torch.stack((angle.cos(), angle.sin()), -1)
    turn = torch.compile(rotate, backend="aot_eager", fullgraph=True)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(2, 3, 2, 5, 6, generator=generator()).to(dtype)
        torch.testing.assert_close(turn(x, rotation), rotate(x, rotation))


@pytest.mark.slow
def test_a_compiled_run_comes_to_the_losses_of_the_plain_one_and_says_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, size = "{defaults: scratch, name: it}", "workload.target.n_layer=1"
    plain = tiny_suite.finish(*tiny_suite.run_of(tmp_path / "plain", method, size))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    run, context = tiny_suite.run_of(tmp_path / "compiled", method, size, "run.compile=true")
    made = tiny_suite.finish(run, context)
    assert [bpb(result) for _, result in made] == pytest.approx(
        [bpb(r) for _, r in plain], rel=1e-4
    )
    assert not {spec.id for spec, _ in made} & {spec.id for spec, _ in plain}
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(context.cache / "compiled")
    assert any((context.cache / "compiled").iterdir())
    spent = list[float]()
    for spec, result in made:
        events = read_events(StageStore(context.cache).folder(spec.id) / "events.jsonl")
        (compilation,) = (e for e in events if e["kind"] == "compilation")
        spent.append(compilation["compile_seconds"])
        assert spent[-1] < result.end.seconds
    assert spent[0] > 0
    assert sum(spec.parent is not None for spec, _ in made) > 0
    assert max(spent[1:]) < 0.01 * spent[0]  # the same model: nothing is compiled again


def bpb(result: StageResult) -> float:
    """At the end of a stage."""
    return result.points[-1].bpb


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path) -> None:
    with (
        inductor.patch({"cpp.cxx": (None, str(tmp_path / "none"))}),
        pytest.raises(ConfigError, match=r"run.compile needs a C\+\+ compiler"),
    ):
        compiled.require_compiler("cpu")


def test_a_gpu_without_triton_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    compiled.require_compiler("cpu")
    with pytest.raises(ConfigError, match=r"run.compile needs Triton.*set run.compile=false"):
        compiled.require_compiler("cuda")


def test_code_is_kept_where_the_environment_says_if_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "2")
    compiled.keep_code(tmp_path, "cuda")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


def test_a_gpu_has_several_processes_that_compile_and_a_cpu_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    with inductor.patch(compile_threads=0):
        compiled.keep_code(tmp_path, "cuda")
        assert inductor.compile_threads == compiled.MOST_THREADS
        compiled.keep_code(tmp_path, "cpu")
        assert inductor.compile_threads == 1


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cuda", True), (None, "cpu", False), (False, "cuda", False), (True, "cpu", True)],
)
def test_steps_are_compiled_on_gpus_unless_a_suite_says_otherwise(
    asked: bool | None, device: str, expected: bool
) -> None:
    assert is_compiled(asked, device) is expected


def test_a_number_of_a_model_is_a_constant_of_its_graph_whichever_model_came_first() -> None:
    counter = CompileCounter()
    compiled.compiled(scaled)  # for its settings
    step = torch.compile(scaled, backend=counter, dynamic=False)
    for factor in (1e-5, 2e-5, 3e-5, 2e-5):
        assert step(torch.ones(2), factor)[0] == factor
    assert counter.frame_count == 3


def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Something to compile."""
    return x * factor
