"""The operations of a training step that PyTorch's CPU build does slowly, done faster.

float32 products: PyTorch calls MKL, which on AMD processors runs at less than half the speed of
oneDNN, which the same build carries. RMSNorm: PyTorch composes it from a dozen passes on a CPU,
backward included; five are enough. Rotary positions: one complex product instead of seven real
ones. Attention of short windows and narrow heads: products whose long side lies in memory's order.
Cross-entropy: one pass back instead of three. ADR 0018 has what each is worth; `make perf`
measures the step with them. Elsewhere than on a CPU, and in what `torch.compile` makes code of,
PyTorch's own are used.

On every device the logits of a large vocabulary are made, and used up, a part at a time (ADR 0044).

Shape suffixes: B batch, T time, H n_head, K d_head, Q queries of a head and its key.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling
from typing_extensions import override

NARROW_HEAD, SHORT_WINDOW = 12, 128
"""Entries of a head and positions up to which `_NarrowAttention` is the faster."""

N_CHUNKS = 16
"""Parts in which the logits of a large vocabulary are made."""


def kernels(device: str, precision: str, *, is_compiled: bool = False) -> dict[str, str]:
    """What computes each kind of operation on this machine, in words.

    Args:
        device: kind of device, "cpu" or "cuda".
        precision: the protocol's name of the precision.
        is_compiled: whether training steps run through `torch.compile`.

    Returns:
        By kind of operation: the library, or what else decides how it rounds.
    """
    attends = "PyTorch, scaled_dot_product_attention"
    if device != "cpu":
        tf32 = "on" if torch.backends.cuda.matmul.allow_tf32 else "off"
        products, norm = f"cuBLAS of CUDA {torch.version.cuda}, TF32 {tf32}", "PyTorch"
    else:
        is_plain = is_compiled or precision != "32-true"
        is_onednn = torch.backends.mkldnn.is_available() and not is_plain
        products, norm = "oneDNN" if is_onednn else "PyTorch", "growbench"
        attends += f"; growbench for heads of at most {NARROW_HEAD}, {SHORT_WINDOW} positions"
    return {
        "products": products,
        "norm": "Inductor" if is_compiled else norm,
        "attention": attends,
        "float32_products": torch.get_float32_matmul_precision(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def set_float32_products(precision: str) -> None:
    """Let a GPU round the factors of float32 products to TF32 if that is the precision, else not.

    PyTorch would follow variables of the environment. Its newer settings of the same name refuse to
    be read once these are set.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` for x (..., n_in) and weight (n_out, n_in)."""
    if not _is_for_onednn(x, weight):
        return F.linear(x, weight)
    return _Linear.apply(x.contiguous(), weight)  # type: ignore[no-untyped-call]


def grouped_linear(x: Tensor, weight: Tensor) -> Tensor:
    """A product of its own for each group.

    Args:
        x: (..., G, n_in).
        weight: (G n_out, n_in).

    Returns:
        (..., G n_out).
    """
    if not _is_for_onednn(x, weight):
        return torch.einsum("...gi,goi->...go", x, weight.unflatten(0, (x.shape[-2], -1))).flatten(
            -2
        )
    return _GroupedLinear.apply(x, weight)  # type: ignore[no-untyped-call]


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) of x (..., d) with gain (d,)."""
    if is_compiling() or x.device.type != "cpu":
        return F.rms_norm(x, gain.shape, gain, eps)
    return _RMSNorm.apply(x, gain, eps)  # type: ignore[no-untyped-call]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x[2 i], x[2 i + 1]) by their position's angle.

    Args:
        x: (B, T, ..., K).
        rotation: cosine and sine of each angle, (T or more, K / 2, 2).

    Returns:
        Of the shape and type of `x`.
    """
    if is_compiling():
        return _rotate_real(x, rotation)
    pairs = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    pairs = torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))
    factor = torch.view_as_complex(rotation[: x.shape[1]].to(pairs.real.dtype))
    factor = factor.view(x.shape[1], *(1,) * (x.ndim - 3), -1)
    return torch.view_as_real(pairs * factor).flatten(-2).to(x.dtype)


def _rotate_real(x: Tensor, rotation: Tensor) -> Tensor:
    """The same without complex numbers, of which `torch.compile` makes no code."""
    wide = torch.promote_types(x.dtype, torch.float32)
    shape = x.shape[1], *(1,) * (x.ndim - 3), -1, 2
    cos, sin = rotation[: x.shape[1]].to(wide).view(shape).unbind(-1)
    a, b = x.to(wide).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def attention(qk_BTQHK: Tensor, v_BTHK: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
    """Causal attention, before which a rotation turns queries and keys.

    Args:
        qk_BTQHK: the queries of each head, then its key, which all of them share.
        v_BTHK: values.
        rotation_Tk2: cosine and sine of each angle, for as many positions or more.

    Returns:
        (B, T, n_query H K).
    """
    if rotation_Tk2 is not None:
        qk_BTQHK = rotate(qk_BTQHK, rotation_Tk2)
    n_query = qk_BTQHK.shape[2] - 1
    q_BHTK = qk_BTQHK[:, :, :-1].flatten(2, 3).transpose(1, 2)
    k_BHTK, v_BHTK = qk_BTQHK[:, :, -1].transpose(1, 2), v_BTHK.transpose(1, 2)
    if n_query > 1:
        k_BHTK, v_BHTK = k_BHTK.repeat(1, n_query, 1, 1), v_BHTK.repeat(1, n_query, 1, 1)
    if _is_narrow(q_BHTK):
        qkv_NTK = [x.flatten(0, 1).contiguous() for x in (q_BHTK, k_BHTK, v_BHTK)]
        y_NTK = _NarrowAttention.apply(*qkv_NTK)  # type: ignore[no-untyped-call]
        y_BHTK = y_NTK.unflatten(0, q_BHTK.shape[:2])
    else:
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
    return y_BHTK.transpose(1, 2).flatten(2).contiguous()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of the targets, (M,), under logits (M, V)."""
    if not _is_plain_cpu(logits):
        return F.cross_entropy(logits, targets)
    return _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]


def chunked_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of the targets under the logits `x @ weight.T`, of which few exist at a time.

    Each of `N_CHUNKS` parts of the rows has its logits and both their gradients computed at once,
    so nothing is computed twice: it costs what `linear` and `cross_entropy` cost. Gradients of
    gradients are not available.

    Args:
        x: features, (M, n_in).
        weight: of the head, (V, n_in).
        targets: int64 (M,).

    Returns:
        A number, at least of float32 in any precision.
    """
    return _ChunkedCrossEntropy.apply(x, weight, targets)  # type: ignore[no-untyped-call]


def _is_plain_cpu(x: Tensor) -> bool:
    is_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_cpu and not is_compiling()


def _is_narrow(q_BHTK: Tensor) -> bool:
    n_time, width = q_BHTK.shape[-2:]
    is_small = n_time <= SHORT_WINDOW and width <= NARROW_HEAD
    return is_small and q_BHTK.dtype in (torch.float32, torch.float64) and _is_plain_cpu(q_BHTK)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    is_float32 = x.dtype == weight.dtype == torch.float32
    return is_float32 and _is_plain_cpu(x) and torch.backends.mkldnn.is_available()


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    # takes a thousand times as long if the rows of an argument are not dense in memory
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """`grad.T @ x` for grad (..., n_out) and x (..., n_in); the first factor is copied first."""
    grad_t, x_t = grad.flatten(0, -2).t(), x.flatten(0, -2).t()
    if len(grad_t) <= len(x_t):
        return _multiply(grad_t, x_t)
    return _multiply(x_t, grad_t).t().contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = _multiply(grad, weight.t()) if needs_x else None
        return grad_x, _outer(grad, x) if needs_weight else None


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        groups = [group.contiguous() for group in x.unbind(-2)]
        weights = weight.chunk(len(groups))
        ctx.save_for_backward(*groups, *weights)
        return torch.cat([_multiply(*pair) for pair in zip(groups, weights, strict=True)], dim=-1)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        n = len(ctx.saved_tensors) // 2
        groups, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        grads = [part.contiguous() for part in grad.chunk(n, dim=-1)]
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = [_multiply(g, w.t()) for g, w in zip(grads, weights, strict=True) if needs_x]
        grad_weight = [_outer(g, x) for g, x in zip(grads, groups, strict=True) if needs_weight]
        return (
            torch.stack(grad_x, dim=-2) if needs_x else None,
            torch.cat(grad_weight) if needs_weight else None,
        )


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, gain)
        return unit * gain

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, gain = ctx.saved_tensors
        product = grad * unit
        along = (product @ gain).unsqueeze(-1).div_(-unit.shape[-1])
        grad_x = (grad * gain).addcmul_(unit, along).mul_(scale)
        return grad_x, product.flatten(0, -2).sum(0), None


class _NarrowAttention(torch.autograd.Function):
    """Causal attention of N heads, each (T, K), that keeps its probabilities.

    Products of K rows take a third of the time of those of K columns, so what has K columns is
    computed transposed.
    """

    @staticmethod
    @override
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ahead = q.new_full((q.shape[1], q.shape[1]), -math.inf).triu_(1)
        scores = torch.baddbmm(ahead, q, k.mT, alpha=q.shape[-1] ** -0.5)
        shares = scores.softmax(-1)
        ctx.save_for_backward(q, k, v, shares)
        return torch.bmm(v.mT, shares.mT).mT

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, shares = ctx.saved_tensors
        grad_shares = torch.bmm(grad, v.mT)
        grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
        grad_scores *= q.shape[-1] ** -0.5
        return (
            torch.bmm(k.mT, grad_scores.mT).mT,
            torch.bmm(q.mT, grad_scores).mT,
            torch.bmm(grad.mT, shares).mT,
        )


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        return logits.log_softmax(-1).gather(1, targets[:, None]).mean().neg()

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        error = logits.softmax(-1)
        error.scatter_add_(1, targets[:, None], error.new_full((len(error), 1), -1.0))
        return error.mul_(grad / len(error)), None


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        needs_x, needs_weight, _ = ctx.needs_input_grad
        for rows, labels, grad_rows in zip(
            x.chunk(N_CHUNKS), targets.chunk(N_CHUNKS), grad_x.chunk(N_CHUNKS), strict=True
        ):
            logits = linear(rows, weight)
            dtype, error = logits.dtype, logits.to(total.dtype)
            del logits
            log_total = error.logsumexp(-1, keepdim=True)
            total += (log_total - error.gather(1, labels[:, None])).sum()
            error.sub_(log_total).exp_().div_(len(x))
            error.scatter_add_(1, labels[:, None], error.new_full((len(rows), 1), -1 / len(x)))
            error = error.to(dtype)
            if needs_x:
                grad_rows.copy_(linear(error, weight.t()))
            if needs_weight:
                grad_weight += error.t() @ rows
        ctx.save_for_backward(grad_x, grad_weight)
        return total / len(x)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x.mul_(grad), grad_weight.mul_(grad), None
