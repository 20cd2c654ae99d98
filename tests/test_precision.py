"""bf16: products only; a run that grows, from end to end on a CPU."""

from pathlib import Path

import pytest
import tiny_suite
import torch
from tiny import TINY, generator, text
from torch import Tensor, nn

from baselines.parts import token_parameters
from baselines.parts.token_parameters import THETAS
from benchmark.base.plugins import import_class
from benchmark.model.transformer import Norm, Transformer
from benchmark.plan.run import Run
from benchmark.stage.checkpoint import StageStore, load_state
from benchmark.stage.context import Context
from benchmark.training.baseline import mean_nats

GROWING = {
    "sparkling": "{defaults: hypercloning, name: it, target: baselines.sparkling:Sparkling}",
    "softmax": "{defaults: tokenformer_paper, name: it, args: {mode: duplicate, theta: softmax}}",
}


def points(run: Run, context: Context) -> list[float]:
    """Held-out bits per byte at every evaluation of a run."""
    done = tiny_suite.finish(run, context)
    return [point.bpb for _, result in done for point in result.points]


@pytest.mark.slow
@pytest.mark.parametrize("method", GROWING)
def test_a_run_in_bf16_grows_and_comes_near_to_one_in_float32(tmp_path: Path, method: str) -> None:
    wide = points(*tiny_suite.run_of(tmp_path / "wide", GROWING[method]))
    run, context = tiny_suite.run_of(
        tmp_path / "narrow", GROWING[method], "protocol.precision=bf16-mixed"
    )
    narrow = points(run, context)
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=5e-3)
    last = run.predicted()[-1][0]
    cls = import_class(last.model_class, Transformer, "model_class")
    state = load_state(StageStore(context.cache).checkpoint(last.id), cls, "cpu")
    kept = [*state.model.parameters(), *state.moments.exp_avg.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_in_bf16_norms_and_the_loss_are_float32_and_products_are_not() -> None:
    model, seen = Transformer(TINY, generator=generator()), dict[str, set[torch.dtype]]()

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        kind = "norm" if isinstance(module, Norm) else "product"
        seen.setdefault(kind, set()).add(output.dtype)

    for _, part in model.parts():
        if part is not model.embed:
            part.register_forward_hook(note)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mean_nats(model, text(TINY))
    assert seen == {"norm": {torch.float32}, "product": {torch.bfloat16}}
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("theta", THETAS)
def test_an_activation_of_bf16_scores_is_rounded_once(theta: str) -> None:
    scores = torch.randn(64, 96, generator=generator()).bfloat16()
    narrow = scores.clone().requires_grad_()
    wide = scores.double().requires_grad_()
    made, exact = THETAS[theta](narrow, 96), THETAS[theta](wide, 96)
    torch.testing.assert_close(made.double(), exact, rtol=2**-7, atol=2**-9)
    seed = torch.randn(64, 96, generator=generator(1)).bfloat16()
    (found,) = torch.autograd.grad(made, narrow, seed)
    (expected,) = torch.autograd.grad(exact, wide, seed.double())
    torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2**-6)


def test_scores_are_normalised_in_float32() -> None:
    rows = torch.randn(4, 96, generator=generator()).bfloat16()
    _, scale = token_parameters._normalise(rows, 96)
    assert scale.dtype == torch.float32
