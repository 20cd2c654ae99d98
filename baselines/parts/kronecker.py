"""Large weights as a factorised linear function of small ones.

A Kronecker factorisation (Wang et al. 2023, arXiv:2303.00980, equation 8): every grown axis is
mapped by the one matrix that all tensors with that axis share, then layers are blended. Only heads
have three matrices, for query, key and value (one more for each further query); what reads heads
shares the last. The released code
blends first: the same map, but it widens every large layer instead of every small one.
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
        factors: by axis, a matrix (new, old); for "n_head" one for each slot of the axis "qkv". By
            tensor of a block, such as "blocks.*.o.weight", its blend of layers (new, old); one for
            each part of a fused tensor.
    """

    def __init__(self, small: Transformer, target: ModelConfig, factors: dict[str, Tensor]) -> None:
        self.factors, self.shell = factors, small.shell(target)
        self.axes, layers = dict[str, list[str]](), dict[str, list[Tensor]]()
        axes_of = small.axes()
        for name, weight in small.named_parameters():
            names = axes_of[name].names  # a head's coordinates are mapped as one axis, n_head
            axes = [axis for axis in names if axis != "d_head" or "n_head" not in names]
            shape = [flat_size(axis, small.config) for axis in axes]
            layers.setdefault(kind_of(name), []).append(weight.detach().view(shape))
            self.axes[kind_of(name)] = axes
        self.layers = {kind: torch.stack(weights) for kind, weights in layers.items()}
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

    @property
    def fixed(self) -> frozenset[str]:
        """Large tensors that no factor enters."""
        entered = {kind for kind, axes in self.axes.items() if self.factors.keys() & {kind, *axes}}
        named = self.shell.named_parameters()
        return frozenset(name for name, _ in named if kind_of(name) not in entered)

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Of the large model, as a function of the factors."""
        return functional_call(self.shell, self.parameters() | self.buffers, (ids_BT,))

    def _map(self, kind: str, x: Tensor) -> Tensor:
        """Large layers of one kind of tensor; the longest axis first, which costs least."""
        axes = self.axes[kind]
        grown = [axis for axis in axes if axis in self.factors]
        for axis in sorted(grown, key=lambda axis: -self.factors[axis].shape[-2]):
            reads_heads = axis == "n_head" and "qkv" not in axes
            matrix = self.factors[axis][-1] if reads_heads else self.factors[axis]
            self._charge(matrix, x)
            dim = axes.index(axis) - len(axes)
            x = x @ matrix.mT if dim == -1 else (matrix @ x.movedim(dim, -2)).movedim(-2, dim)
        if (blend := self.factors.get(kind)) is None:
            return x
        self._charge(blend, x)
        if blend.shape[:-2]:  # one blend for each part of a fused tensor
            return (blend @ x.transpose(0, 1).flatten(2)).unflatten(2, x.shape[2:]).transpose(0, 1)
        return (blend @ x.flatten(1)).unflatten(1, x.shape[1:])

    def _charge(self, matrix: Tensor, x: Tensor) -> None:
        """Count the product that is about to be made of all of x, and those of its backward."""
        n_backward = (matrix.requires_grad + x.requires_grad) * torch.is_grad_enabled()
        self.flops += 2 * x.numel() * matrix.shape[-2] * (1 + n_backward)

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
        return {name: torch.ones(p.shape, dtype=torch.bool, device="cpu") for name, p in named}
