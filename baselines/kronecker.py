"""Large weights as a factorised linear function of small ones.

A tensor of large block k is W'_k = B (sum over l of w_kl W_l) A', the Kronecker factorisation of
Wang et al. 2023 (arXiv:2303.00980), equation 8: layers are blended at the small width, then every
grown axis is mapped by the one matrix that all tensors with that axis share.
"""

import re

import torch
from torch import Tensor

from benchmark.growth import Weights
from benchmark.model import Axes, ModelConfig, Transformer

VALUE = 2
"""Position of the value among query, key and value."""


class FactorisedMap:
    """Large weights for the factors as they are when it is called.

    Args:
        small: model whose weights are mapped; they stay as they are.
        target: sizes of the large model.
        factors: by axis, a matrix (new, old); for "n_head" three of them, for query, key and value,
            over all coordinates of all heads. By tensor of a block, such as "blocks.*.o.weight",
            its blend of layers (new, old); one each for the parts of a fused tensor.
    """

    def __init__(
        self, small: Transformer, target: ModelConfig, factors: dict[str, Tensor]
    ) -> None:
        self.factors, self.shell, self.macs = factors, small.shell(target), 0
        axes, layers = small.axes(), dict[str, list[Tensor]]()
        for name, weight in small.named_parameters():
            shape = flat_shape(axes[name], small.config)
            layers.setdefault(kind_of(name), []).append(weight.detach().view(shape))
        self.layers = {kind: torch.stack(weights) for kind, weights in layers.items()}
        self.axes = {kind: axes[kind.replace("*", "0")] for kind in layers}

    def __call__(self) -> Weights:
        """Every parameter of the large model."""
        grown = Weights()
        for kind, x in self.layers.items():
            names = self.axes[kind].names
            if kind in self.factors:
                x = self._product(self.factors[kind], x, 0)
            for dim, axis in enumerate(names, start=1):
                if (matrix := self.factors.get(axis)) is not None:
                    is_one = matrix.ndim > 2 and "qkv" not in names
                    x = self._product(matrix[VALUE] if is_one else matrix, x, dim)
            for layer, weight in enumerate(x.unbind()):
                name = kind.replace("*", str(layer))
                like = self.shell.get_parameter(name)
                grown[name] = weight.reshape(like.shape).contiguous()
        return grown

    def _product(self, matrix: Tensor, x: Tensor, dim: int) -> Tensor:
        """`matrix` along dimension `dim` of x; one matrix per part of a fused tensor if it is 3-D.

        Counts the multiply-accumulates, those of the coming backward pass included.
        """
        self.macs += x.numel() * matrix.shape[-2] * (1 + matrix.requires_grad + x.requires_grad)
        old = "lpabc"[: x.ndim]
        part = "p" * (matrix.ndim - 2)
        return torch.einsum(f"{part}n{old[dim]},{old}->{old.replace(old[dim], 'n')}", matrix, x)


def kind_of(name: str) -> str:
    """Name of a tensor with the number of its block, if it is in one, replaced by a star."""
    return re.sub(r"^blocks\.\d+\.", "blocks.*.", name)


def flat_shape(axes: Axes, config: ModelConfig) -> list[int]:
    """Shape with all coordinates of all heads along the axis n_head."""
    flat = {"n_head": config.n_head * config.d_head, "d_head": 1}
    return [flat.get(axis) or config.size(axis) for axis in axes.names]
