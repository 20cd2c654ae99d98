"""Large weights as a factorised linear function of small ones.

A Kronecker factorisation (Wang et al. 2023, arXiv:2303.00980, equation 8): layers are blended at
the small width, then every grown axis is mapped by the one matrix that all tensors with that axis
share. Only heads have three, for query, key and value; what reads heads shares the last.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from typing_extensions import override

from baselines.parts.factors import flat_size, kind_of
from benchmark.growth import Transfer, Weights
from benchmark.model import ModelConfig, Transformer


class FactorisedMap(Transfer):
    """Large weights for the factors as they are when asked.

    Args:
        small: model whose weights are mapped; they stay as they are.
        target: sizes of the large model.
        factors: by axis, a matrix (new, old); for "n_head" three of them. By tensor of a block,
            such as "blocks.*.o.weight", its blend of layers (new, old); one for each part of a
            fused tensor.
    """

    def __init__(self, small: Transformer, target: ModelConfig, factors: dict[str, Tensor]) -> None:
        self.factors, self.shell = factors, small.shell(target)
        axes, layers = small.axes(), dict[str, list[Tensor]]()
        for name, weight in small.named_parameters():
            shape = [flat_size(axis, small.config) for axis in axes[name].names]
            layers.setdefault(kind_of(name), []).append(weight.detach().view(shape))
        self.layers = {kind: torch.stack(weights) for kind, weights in layers.items()}
        self.axes = {kind: axes[kind.replace("*", "0")].names for kind in layers}
        self.buffers = {name: b for name, b in small.named_buffers() if name == "rotation"}

    def parameters(self) -> Weights:
        """Every parameter of the large model; adds its cost, forward and backward, to `flops`."""
        grown = Weights()
        for kind, layers in self.layers.items():
            for layer, weight in enumerate(self._map(kind, layers).unbind()):
                name = kind.replace("*", str(layer))
                flat = weight.reshape(self.shell.get_parameter(name).shape)
                # aligned memory of its own, as a module's, gives products the same rounding
                grown[name] = flat.clone(memory_format=torch.contiguous_format)
        return grown

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Of the large model, as a function of the factors."""
        return functional_call(self.shell, self.parameters() | self.buffers, (ids_BT,))

    def _map(self, kind: str, x: Tensor) -> Tensor:
        if kind in self.factors:
            x = self._product(self.factors[kind], x, 0)
        for dim, axis in enumerate(self.axes[kind], start=1):
            if axis in self.factors:
                matrix = self.factors[axis]
                reads_heads = axis == "n_head" and "qkv" not in self.axes[kind]
                x = self._product(matrix[-1] if reads_heads else matrix, x, dim)
        return x

    def _product(self, matrix: Tensor, x: Tensor, dim: int) -> Tensor:
        """`matrix` along dimension `dim` of x; if it is 3-D, one per part, along dimension 1."""
        n_backward = (matrix.requires_grad + x.requires_grad) * torch.is_grad_enabled()
        self.flops += 2 * x.numel() * matrix.shape[-2] * (1 + n_backward)
        old, part = "lpabc"[: x.ndim], "p" * (matrix.ndim - 2)
        return torch.einsum(f"{part}n{old[dim]},{old}->{old.replace(old[dim], 'n')}", matrix, x)

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return fresh | self.parameters()

    @override
    def needs_fresh(self, name: str) -> bool:
        return kind_of(name) not in self.layers

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        some = next(iter(small.values()))
        return {name: some.new_zeros(p.shape) for name, p in self.shell.named_parameters()}

    @override
    def is_new(self) -> Weights:
        named = self.shell.named_parameters()
        return {name: torch.ones(p.shape, dtype=torch.bool) for name, p in named}
