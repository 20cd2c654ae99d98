"""The transformer of masked structural growth: new coordinates sit behind masks that open.

A mask is 1 along old coordinates and m along new ones; m goes from 0 to 1. Old logits at m = 0 need
a mask only where a reader could see a new coordinate: in the statistics and the output of every
norm (nothing reads the residual stream but through one), on the heads' outputs, on the MLP's hidden
features after the activation, and on what a new block adds. At m = 1 masks are skipped and the
model is the plain `Transformer` bit for bit.

The released code of Yao et al. 2024 (arXiv:2305.02869; cofe-ai/MSG, commit 1b97183) masks a
post-norm BERT: the embeddings and every write to the residual stream as well, queries and keys as
well, and the MLP before the activation, which is exact only if activation(0) = 0.

Shape suffixes: B batch, T time, D d_model, H n_head, K d_head, F d_ff.
"""

import math

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.model import Axes, Block, FreePart, Kind, ModelConfig, Norm, Part, Transformer


class Mask(FreePart):
    """One factor per coordinate of `axes` (a scalar if there are none), saved with the weights."""

    value: Tensor

    def __init__(self, config: ModelConfig, *axes: str) -> None:
        super().__init__()
        self.axes = {"value": Axes(axes, kind=Kind.CONSTANT)}
        shape = [math.prod(config.size(axis) for axis in axes)] if axes else []
        self.register_buffer("value", torch.ones(shape))
        self.is_open = True  # whether all of `value` is 1, read without a device sync
        self.register_load_state_dict_post_hook(Mask._read)  # type: ignore[no-untyped-call]

    def _read(self, _: object) -> None:
        self.is_open = bool((self.value == 1).all())

    def open(self, m: float) -> None:
        """Set the factor of new coordinates, which are those below 1: what is open stays open."""
        if not self.is_open:
            self.value.masked_fill_(self.value < 1, m)
            self.is_open = m == 1

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """Nothing to draw: a mask starts open."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x if self.is_open else x * self.value.to(x.dtype)


class MaskedNorm(Norm):
    """RMSNorm or LayerNorm whose statistics weigh each feature by its mask."""

    def __init__(self, config: ModelConfig, *, feeds_tied_head: bool = False) -> None:
        super().__init__(config, feeds_tied_head=feeds_tied_head)
        self.mask = Mask(config, "d_model")

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.mask.is_open:
            return super().forward(x_BTD)
        mask_D = self.mask.value.to(x_BTD.dtype)
        share_D = mask_D / mask_D.sum()
        if not self.is_rms:
            x_BTD = x_BTD - (x_BTD * share_D).sum(-1, keepdim=True)
        mean_square_BT1 = (x_BTD.square() * share_D).sum(-1, keepdim=True)
        return x_BTD * (mean_square_BT1 + self.epsilon).rsqrt() * (self.weight * mask_D)


class MaskedBlock(Block):
    """A block whose new heads, new hidden features and, if it is new, whole effect are masked."""

    def __init__(self, make: Transformer, config: ModelConfig) -> None:
        super().__init__(make, config)
        self.mask_heads = Mask(config, *config.heads)
        self.mask_hidden = Mask(config, "d_ff")
        self.mask_block = Mask(config)

    @override
    def attend(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        return self.mask_heads(super().attend(x_BTD, rotation_Tk2))

    @override
    def activate(self, up: Tensor) -> Tensor:
        return self.mask_hidden(super().activate(up))

    @override
    def forward(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        y_BTD = super().forward(x_BTD, rotation_Tk2)
        if self.mask_block.is_open:
            return y_BTD
        return x_BTD.lerp(y_BTD, self.mask_block.value.to(x_BTD.dtype))


class MaskedTransformer(Transformer):
    """A transformer with masks; as it is made, all of them are open."""

    @override
    def norm(self, config: ModelConfig, *, feeds_tied_head: bool = False) -> Part:
        return MaskedNorm(config, feeds_tied_head=feeds_tied_head)

    @override
    def block(self, config: ModelConfig) -> Block:
        return MaskedBlock(self, config)

    @property
    def masks(self) -> dict[str, Mask]:
        """Every mask, by the name of its tensor in `state_dict`."""
        return {f"{name}.value": part for name, part in self.parts() if isinstance(part, Mask)}

    def open(self, m: float) -> None:
        """Set the factor of all new coordinates."""
        for mask in self.masks.values():
            mask.open(m)

    @property
    def is_open(self) -> bool:
        """Whether this is the plain transformer."""
        return all(mask.is_open for mask in self.masks.values())

    @classmethod
    def hide(cls, small: ModelConfig, large: ModelConfig) -> dict[str, Tensor]:
        """Masks of a large model that hide all that a small one does not have.

        A new block is hidden as a whole, and nothing in it by itself.
        """
        hidden: dict[str, Tensor] = {}
        for name, mask in cls.shell(large).masks.items():
            axes, value = mask.axes["value"], torch.zeros(mask.value.shape, device="cpu")
            if not is_new_block(name, small):
                corner(value, axes, small, large).fill_(1.0)
            elif axes.names:
                value.fill_(1.0)
            hidden[name] = value
        return hidden


def corner(tensor: Tensor, axes: Axes, small: ModelConfig, large: ModelConfig) -> Tensor:
    """View of the coordinates of a large tensor that a small one has, unflattened."""
    return tensor.view(axes.shape(large))[tuple(slice(size) for size in axes.shape(small))]


def is_new_block(name: str, small: ModelConfig) -> bool:
    """Whether the tensor belongs to a block that a small model does not have."""
    return name.startswith("blocks.") and int(name.split(".")[1]) >= small.n_layer
