"""The architecture of TokenFormer (Wang et al. 2025, arXiv:2410.23168): attention to parameters.

Every linear map of a block is y = Theta(x K^T) V with n_token rows of keys K and of values V; the
whole MLP is one such map with four times as many. What the number of tokens sets in the paper, the
temperature tau = sqrt(n) inside Theta, is state of each map here: growth decides whether it follows.

`activation` and `d_ff` of a config have no meaning for this architecture.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from baselines.pairs import Pair
from benchmark.model import Axes, Block, Kind, ModelConfig, Part, Transformer, draw_map

EPS = 1e-6
"""Added to the mean square of a row of scores; the paper divides by its root as it is."""


class _Normalise(torch.autograd.Function):
    """Rows scaled to the norm tau; F.rms_norm is five times as slow on CPUs, forward and back."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, tau2: int) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = (norm.square_() / tau2 + EPS).rsqrt_().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        ctx.tau2 = tau2
        return y

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        radial = (grad * y).sum(-1, keepdim=True) / -ctx.tau2
        return torch.addcmul(grad, y, radial).mul_(scale), None


def normalise(x: Tensor, tau2: int) -> Tensor:
    """Rows of x scaled to mean square 1 over tau2 coordinates."""
    return _Normalise.apply(x, tau2)  # type: ignore[no-any-return, no-untyped-call]


THETAS = {
    "l2_norm_gelu": lambda scores, tau2: F.gelu(normalise(scores, tau2)),
    "gelu_l2_norm": lambda scores, tau2: normalise(F.gelu(scores), tau2),
    "softmax": lambda scores, tau2: tau2 * scores.softmax(-1),
}
