"""The matrix product of every linear map, by the fastest kernel that the processor has.

PyTorch's CPU build multiplies float32 matrices with MKL, which on AMD processors runs at less than
half the speed of oneDNN, which the same build carries; `make perf` shows both. So float32 products
on a CPU go to oneDNN; everything else (float64, autocast, other devices) is F.linear.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` for x (..., n_in) and weight (n_out, n_in)."""
    is_plain = torch.is_autocast_enabled(x.device.type) or not torch.backends.mkldnn.is_available()
    if is_plain or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return F.linear(x, weight)
    return _OneDNN.apply(x, weight)  # type: ignore[no-any-return, no-untyped-call]


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class _OneDNN(torch.autograd.Function):
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
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = _multiply(grad, weight.t()) if needs_x else None
        grad_weight = (
            _multiply(grad.flatten(0, -2).t(), x.flatten(0, -2).t()) if needs_weight else None
        )
        return grad_x, grad_weight
