"""MSG, masked structural growth (Yao et al. 2024, arXiv:2305.02869).

New weights are drawn like any others, new blocks copy old ones, and masks (masking.py) hide all of
it, then open linearly. New weights have gradients of exactly zero until the masks leave zero.

Deviations from the released code (cofe-ai/MSG, commit 1b97183): masks sit where a pre-norm model
needs them; they are saved, and follow the FLOPs spent instead of the micro-batches seen, with m = 0
in the first step and, in an evaluation, the m of the step that follows; the learning rate is the
protocol's, not rewound; sizes may grow together. As there, masks must be open before more growth.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from baselines.masking import MaskedTransformer
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError, GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer, Weights
from benchmark.model import ModelConfig, Transformer


@dataclass(frozen=True)
class MaskedGrowth(GrowthOperator):
    """Old weights in the corner of each tensor, ordinary random ones around it, behind masks.

    Args:
        copies_blocks: whether new blocks repeat the old stack, and its last blocks where it does
            not fit as a whole; they are random otherwise.
    """

    grows = frozenset({"d_model", "n_head", "d_ff", "n_layer"})
    preserves_function = True
    copies_blocks: bool = True

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        if isinstance(small, MaskedTransformer) and not all(
            m.is_open for m in small.masks.values()
        ):
            raise GrowthError("masks of the last growth are not open: shorten ramp, or grow later")
        return _Corner(small.config, MaskedTransformer.shell(target), self.copies_blocks)


@dataclass(frozen=True)
class _Corner(Transfer):
    small: ModelConfig
    large: MaskedTransformer
    copies_blocks: bool

    def _origin(self, name: str) -> tuple[str, bool]:
        """Small tensor that a large one starts from, and whether it is part of a new block."""
        if not name.startswith("blocks."):
            return name, False
        layer, rest = name.removeprefix("blocks.").split(".", 1)
        i, n_small, n_large = int(layer), self.small.n_layer, self.large.config.n_layer
        source = i % n_small if i < n_large // n_small * n_small else n_small - n_large + i
        return f"blocks.{source}.{rest}", i >= n_small

    def _place(self, small: Weights, large: Weights, *, copies_blocks: bool) -> Weights:
        for name, tensor in large.items():
            origin, is_new = self._origin(name)
            if origin in small and (copies_blocks or not is_new):
                axes = self.large.axes()[name]
                old = tuple(slice(size) for size in axes.shape(self.small))
                corner = tensor.view(axes.shape(self.large.config))[old]
                corner.copy_(small[origin].view(corner.shape))
        return large

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        copies = {name: tensor.clone() for name, tensor in fresh.items()}
        grown = self._place(small, copies, copies_blocks=self.copies_blocks)
        return grown | MaskedTransformer.hide(self.small, self.large.config)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        some = next(iter(small.values()))
        zeros = {name: some.new_zeros(p.shape) for name, p in self.large.named_parameters()}
        return self._place(small, zeros, copies_blocks=False)

    @override
    def is_new(self) -> Weights:
        small = Transformer.shell(self.small).named_parameters()
        ones = {name: torch.ones(parameter.shape) for name, parameter in small}
        return {name: moment == 0 for name, moment in self.moments(ones, 0).items()}


class MSG(Baseline):
    """Grow every size behind masks that open within a fraction `ramp` of C*."""

    model_class: ClassVar[type[Transformer]] = MaskedTransformer
    source_class: ClassVar[type[Transformer] | None] = Transformer

    def __init__(self, ramp: float = 0.05, *, copies_blocks: bool = True) -> None:
        super().__init__()
        if ramp <= 0:
            raise ConfigError(f"ramp must be above 0, got {ramp}")
        self.ramp = ramp
        self.operators = (MaskedGrowth(copies_blocks),)

    @override
    def on_progress(self, since_growth: float) -> None:
        assert isinstance(self.model, MaskedTransformer)
        self.model.open(min(1.0, since_growth / self.ramp))
