"""The fast operations compute what PyTorch's own compute, forward and backward."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmark.base.seeding import generator
from benchmark.model.kernels import (
    NARROW_HEAD,
    SHORT_WINDOW,
    attention,
    chunked_cross_entropy,
    cross_entropy,
    grouped_linear,
    linear,
    rms_norm,
    rotate,
)

SHAPES = [(3, 5), (2, 3, 5), (1, 1, 1, 5)]


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    tensor = torch.randn(shape, generator=generator(0, *shape), dtype=dtype)
    return tensor.requires_grad_()


def gradients(result: Tensor, *inputs: Tensor) -> list[Tensor]:
    seed = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return [result, *torch.autograd.grad(result, inputs, seed)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_is_the_product(shape: tuple[int, ...]) -> None:
    x, weight = draw(*shape), draw(7, 5)
    for ours, theirs in zip(
        gradients(linear(x, weight), x, weight), gradients(F.linear(x, weight), x, weight),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("n_out", [2, 5, 9])
def test_the_gradient_of_a_weight_is_the_same_whichever_factor_is_copied(n_out: int) -> None:
    x, weight = draw(4, 5), draw(n_out, 5)
    (grad,) = torch.autograd.grad(linear(x, weight), weight, torch.ones(4, n_out))
    torch.testing.assert_close(grad, x.sum(0).expand(n_out, 5))
    assert grad.is_contiguous()


def test_linear_leaves_other_types_and_autocast_to_pytorch() -> None:
    x, weight = draw(2, 5, dtype=torch.float64), draw(7, 5, dtype=torch.float64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(draw(2, 5), draw(7, 5)).dtype == torch.bfloat16


def test_linear_computes_only_the_gradients_that_are_asked_for() -> None:
    x, weight = draw(2, 5).detach(), draw(7, 5)
    assert torch.autograd.grad(linear(x, weight).sum(), weight)[0].shape == weight.shape
    x = draw(2, 5)
    assert torch.autograd.grad(linear(x, weight.detach()).sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_grouped_product_is_a_product_for_each_group(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, weight = draw(*shape[:-1], 3, 5, dtype=dtype), draw(3 * 7, 5, dtype=dtype)
    pairs = zip(x.unbind(-2), weight.chunk(3), strict=True)
    expected = torch.cat([F.linear(a, w) for a, w in pairs], dim=-1)
    for ours, theirs in zip(
        gradients(grouped_linear(x, weight), x, weight), gradients(expected, x, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_rows_that_are_not_dense_in_memory_give_the_same_product() -> None:
    rows, weight = draw(4, 3, 5), draw(7, 5)
    seed = torch.ones(4, 14)[:, :7]
    for x in (rows[:, 1], rows.transpose(0, 1)[1]):
        for ours, theirs in zip(
            torch.autograd.grad(linear(x, weight), (rows, weight), seed),
            torch.autograd.grad(F.linear(x, weight), (rows, weight), seed),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_is_the_definition(shape: tuple[int, ...]) -> None:
    x, gain = draw(*shape, dtype=torch.float64), draw(5, dtype=torch.float64)
    eps = 0.3
    expected = gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    for ours, theirs in zip(
        gradients(rms_norm(x, gain, eps), x, gain), gradients(expected, x, gain), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_rms_norm_passes_finite_differences() -> None:
    x, gain = draw(2, 3, 5, dtype=torch.float64), draw(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, gain: rms_norm(x, gain, 1e-5), (x, gain))


def test_a_wrong_backward_would_be_noticed() -> None:
    x = draw(2, 5, dtype=torch.float64)
    detached = rms_norm(x, torch.ones(5, dtype=torch.float64), 1e-5).detach()
    assert not torch.autograd.gradcheck(
        lambda x: x * (detached / x).detach(), x, raise_exception=False
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 2, 5, 4)], ids=str)
def test_rotate_turns_pairs(shape: tuple[int, ...]) -> None:
    angle = torch.tensor([[0.0, 0.0], [0.5, 0.1], [1.0, 0.2], [9.0, 9.0]], dtype=torch.float64)
    x = draw(*shape, dtype=torch.float64)
    turned = rotate(x, torch.stack((angle.cos(), angle.sin()), -1))
    a, b = x[..., 0::2].transpose(1, -2), x[..., 1::2].transpose(1, -2)
    cos, sin = angle[:3].cos(), angle[:3].sin()
    expected = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).transpose(1, -2)
    torch.testing.assert_close(turned, expected, rtol=1e-12, atol=1e-12)


def test_rotate_keeps_a_narrow_type() -> None:
    angle = torch.zeros(3, 2, 2)
    assert rotate(draw(1, 3, 4).bfloat16(), angle).dtype == torch.bfloat16


def angles(n_time: int, d_head: int) -> Tensor:
    angle = torch.linspace(0, 3, n_time * d_head // 2, dtype=torch.float64).view(n_time, -1)
    return torch.stack((angle.cos(), angle.sin()), -1)


def attended(qkv: Tensor, rotation: Tensor | None) -> Tensor:
    """Attention by its definition, one query at a time; the key and value of a head come last."""
    q, k, v = qkv[:, :, :-2], qkv[:, :, -2], qkv[:, :, -1]
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    rows = []
    for t in range(qkv.shape[1]):
        scores = torch.einsum("bqhk,bshk->bqhs", q[:, t], k[:, : t + 1]) / q.shape[-1] ** 0.5
        rows.append(torch.einsum("bqhs,bshk->bqhk", scores.softmax(-1), v[:, : t + 1]))
    return torch.stack(rows, 1).flatten(2)


def attend(qkv: Tensor, rotation: Tensor | None) -> Tensor:
    return attention(qkv[:, :, :-1], qkv[:, :, -1], rotation)


@pytest.mark.parametrize("rotates", [True, False])
@pytest.mark.parametrize("n_query", [1, 2, 3])
@pytest.mark.parametrize("n_time", [1, 5])
@pytest.mark.parametrize("width", [4, NARROW_HEAD + 2])
def test_attention_is_the_definition(width: int, n_time: int, n_query: int, rotates: bool) -> None:
    qkv = draw(2, n_time, n_query + 2, 3, width, dtype=torch.float64)
    rotation = angles(n_time + 2, width) if rotates else None
    for ours, theirs in zip(
        gradients(attend(qkv, rotation), qkv), gradients(attended(qkv, rotation), qkv),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("n_time", [SHORT_WINDOW, SHORT_WINDOW + 1])
def test_attention_of_narrow_heads_is_pytorchs(n_time: int) -> None:
    qkv = draw(2, n_time, 3, 2, NARROW_HEAD)
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(qkv, None), theirs)


def test_attention_leaves_autocast_to_pytorch() -> None:
    qkv = draw(2, 5, 3, 2, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attend(qkv, angles(5, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_is_pytorchs(dtype: torch.dtype) -> None:
    logits, targets = draw(6, 9, dtype=dtype), torch.tensor([0, 8, 3, 3, 0, 5])
    for ours, theirs in zip(
        gradients(cross_entropy(logits, targets), logits),
        gradients(F.cross_entropy(logits, targets), logits),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_cross_entropy_passes_finite_differences_and_bears_large_logits() -> None:
    targets = torch.tensor([1, 0])
    logits = draw(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: cross_entropy(logits, targets), logits)
    assert cross_entropy(torch.tensor([[900.0, 0.0]]), torch.tensor([1])) == 900.0


# A large vocabulary

GPT2 = 50_257


def peak(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> int:
    """The most bytes that a loss of 1024 tokens and its gradients have allocated at once."""
    x, weight, targets = draw(1024, 16), draw(GPT2, 16), torch.arange(1024)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss(x, weight, targets).backward()
    assert profiled.profiler is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.slow
def test_in_parts_a_large_vocabulary_takes_less_than_a_quarter_of_the_memory() -> None:
    whole = peak(lambda x, weight, targets: cross_entropy(linear(x, weight), targets))
    assert whole > 1024 * GPT2 * 4 * 2  # logits and their gradient
    assert peak(chunked_cross_entropy) < whole / 4


@pytest.mark.parametrize("n_rows", [5, 16, 37])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_in_parts_the_loss_and_its_gradients_are_the_same(
    n_rows: int, dtype: torch.dtype, most: float
) -> None:
    """As in float64: sums over the vocabulary in float32 are 6e-5 from it in PyTorch's products."""
    x, weight = draw(n_rows, 6, dtype=dtype), draw(GPT2, 6, dtype=dtype)
    targets = torch.randint(GPT2, (n_rows,), generator=generator(1))
    found = gradients(chunked_cross_entropy(x, weight, targets), x, weight)
    x, weight = (tensor.detach().double().requires_grad_() for tensor in (x, weight))
    wanted = gradients(F.cross_entropy(F.linear(x, weight), targets), x, weight)
    assert all(distance(*pair) < most for pair in zip(found, wanted, strict=True))


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative to what is wanted."""
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def test_in_parts_only_the_gradients_that_are_asked_for_are_there_and_once() -> None:
    x, weight, targets = draw(20, 6), draw(30, 6), torch.arange(20)
    (wanted,) = torch.autograd.grad(F.cross_entropy(x @ weight.t(), targets), weight)
    loss = chunked_cross_entropy(x.detach(), weight, targets)
    (found,) = torch.autograd.grad(loss, weight, retain_graph=True)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert chunked_cross_entropy(x.detach(), weight.detach(), targets).grad_fn is None


def test_in_parts_the_loss_is_float32_in_every_precision() -> None:
    x, weight, targets = draw(40, 6), draw(3000, 6), torch.arange(40)
    plain = gradients(F.cross_entropy(F.linear(x, weight), targets), x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(x, weight, targets)
    found = gradients(loss, x, weight)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.dtype == torch.float32
        assert distance(ours, theirs) < 1e-2
