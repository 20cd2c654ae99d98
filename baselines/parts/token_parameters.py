"""The architecture of TokenFormer (Wang et al. 2025, arXiv:2410.23168): attention to parameters.

Every linear map of a block is y = Theta(x K^T) V with n_token rows of keys K and of values V; the
whole MLP is one such map with four times as many. The temperature in Theta is tau = sqrt(n); or,
where the size `zoom_dim` is given, its root, as with the option of that name in the authors' TPU
code, so that tau stays while tokens are added.

`activation` and `d_ff` of a config have no meaning for this architecture.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from baselines.parts.pairs import Pair
from benchmark.model import Axes, Block, FixedAxis, ModelConfig, Part, Transformer

TOKEN_GROUP = FixedAxis("token_group", 4, n_maps=1)
"""The MLP has this many times the tokens of another map."""

EPS = 1e-6
"""Added to the mean square of a row of scores; the paper divides by its root as it is."""


def l2_norm_gelu(scores: Tensor, tau2: int) -> Tensor:
    """Scores gelu(tau A / |A|): what every released configuration uses."""
    return _NormGelu.apply(scores, tau2)  # type: ignore[no-untyped-call]


def gelu_l2_norm(scores: Tensor, tau2: int) -> Tensor:
    """Scores tau gelu(A) / |gelu(A)|."""
    return _GeluNorm.apply(scores, tau2)  # type: ignore[no-untyped-call]


def softmax(scores: Tensor, tau2: int) -> Tensor:
    """Scores tau^2 exp(A) / sum exp(A)."""
    return tau2 * scores.softmax(-1, dtype=_wide(scores)).to(scores.dtype)


def _wide(x: Tensor) -> torch.dtype:
    """What sums over a row of `x` are made in."""
    return torch.promote_types(x.dtype, torch.float32)


def _normalise(x: Tensor, tau2: int) -> tuple[Tensor, Tensor]:
    """Rows of length tau, and what they were multiplied by, which is never narrow."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_wide(x))
    scale = norm.square_().div_(tau2).add_(EPS).rsqrt_()
    return (x * scale).to(x.dtype), scale


def _unnormalise(grad: Tensor, y: Tensor, scale: Tensor, tau2: int) -> Tensor:
    """The gradient before `_normalise`, in the memory of that after it unless it is narrow."""
    wide, y_wide = grad.to(scale.dtype), y.to(scale.dtype)
    along = (wide * y_wide).sum(-1, keepdim=True).div_(-tau2)
    return wide.addcmul_(y_wide, along).mul_(scale).to(y.dtype)


class _NormGelu(torch.autograd.Function):
    """Composed of PyTorch's operations it takes twice as long, most of it to go back."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, tau2: int) -> Tensor:
        z, scale = _normalise(x, tau2)
        ctx.save_for_backward(z, scale)
        ctx.tau2 = tau2
        return F.gelu(z)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        z, scale = ctx.saved_tensors
        return _unnormalise(torch.ops.aten.gelu_backward(grad, z), z, scale, ctx.tau2), None


class _GeluNorm(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, tau2: int) -> Tensor:
        y, scale = _normalise(F.gelu(x), tau2)
        ctx.save_for_backward(x, y, scale)
        ctx.tau2 = tau2
        return y

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y, scale = ctx.saved_tensors
        grad = _unnormalise(grad.clone(), y, scale, ctx.tau2)
        return torch.ops.aten.gelu_backward(grad, x), None


THETAS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "l2_norm_gelu": l2_norm_gelu,
    "gelu_l2_norm": gelu_l2_norm,
    "softmax": softmax,
}
"""Activations of token-parameter attention, given tau squared."""


class Pattention(Pair):
    """Attention of the features `ends.into` to tokens; `read` holds the keys, `write` the values.

    Args:
        config: of the model.
        ends: features that go in and come out.
        tokens: axes whose product is the number of tokens.
        make: the model that it is a part of.
    """

    def __init__(
        self, config: ModelConfig, ends: Axes, tokens: tuple[str, ...], make: "TokenFormer"
    ) -> None:
        super().__init__(config, ends, tokens)
        self.theta = THETAS[make.theta]
        counted = (make.counted if axis == "n_token" else axis for axis in tokens)
        self.tau2 = math.prod(map(config.size, counted))

    @override
    def between(self, hidden: Tensor) -> Tensor:
        return self.theta(hidden, self.tau2)

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """Normal, variance 1 / fan-in, as the authors' TPU code; residual writes are no smaller."""
        for weight in (self.read, self.write):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)


class TokenBlock(Block):
    """A block without an MLP: the whole of it is one token-parameter attention."""

    def __init__(self, make: "TokenFormer", config: ModelConfig) -> None:
        super().__init__(make, config)
        del self.up, self.down
        stream = Axes(("d_model",), ("d_model",))
        self.mlp = make.attention(config, stream, (TOKEN_GROUP, "n_token"))

    @override
    def forward(self, x_BTD: Tensor, rotation_2T1k: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.o(self.attend(self.norm_attn(x_BTD), rotation_2T1k))
        return x_BTD + self.mlp(self.norm_mlp(x_BTD))


class TokenFormer(Transformer):
    """Token ids to logits through `l2_norm_gelu`, which every released configuration uses."""

    own_sizes = {"n_token": 6}  # noqa: RUF012 - a mapping that nobody changes
    theta: ClassVar[str] = "l2_norm_gelu"
    counted: ClassVar[str] = "n_token"
    """The size whose root is tau; of the MLP, the root of four times this size."""

    def attention(self, config: ModelConfig, ends: Axes, tokens: tuple[str, ...]) -> Part:
        """Make one attention to tokens."""
        return Pattention(config, ends, tokens, self)

    @override
    def linear(self, config: ModelConfig, out: tuple[str, ...], into: tuple[str, ...]) -> Part:
        return self.attention(config, Axes(out, into), ("n_token",))

    @override
    def block(self, config: ModelConfig) -> TokenBlock:
        return TokenBlock(self, config)


class GeluFirstTokenFormer(TokenFormer):
    """The same with the activation before the norm."""

    theta = "gelu_l2_norm"


class SoftmaxTokenFormer(TokenFormer):
    """The same with a softmax times the number of tokens."""

    theta = "softmax"


class ZoomedTokenFormer(TokenFormer):
    """The same with a temperature that does not follow the tokens."""

    own_sizes = {"n_token": 6, "zoom_dim": 6}  # noqa: RUF012 - a mapping that nobody changes
    counted = "zoom_dim"


class ZoomedGeluFirstTokenFormer(ZoomedTokenFormer):
    """Both."""

    theta = "gelu_l2_norm"


class ZoomedSoftmaxTokenFormer(ZoomedTokenFormer):
    """Both."""

    theta = "softmax"


MODELS: dict[str, type[TokenFormer]] = {
    model.theta: model for model in (TokenFormer, GeluFirstTokenFormer, SoftmaxTokenFormer)
}
"""Models whose temperature rises with the tokens, by the name of their activation."""

ZOOMED: dict[str, type[TokenFormer]] = {
    model.theta: model
    for model in (ZoomedTokenFormer, ZoomedGeluFirstTokenFormer, ZoomedSoftmaxTokenFormer)
}
"""Models whose temperature stays, likewise."""
