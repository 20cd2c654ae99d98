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

from baselines.masking import MaskedTransformer, corner, is_new_block
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError, GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer, Weights
from benchmark.model import ModelConfig, Transformer


@dataclass(frozen=True)
class MaskedGrowth(GrowthOperator):
    """Old weights in the corner of each tensor, ordinary random ones around it, behind masks.

    New blocks repeat the old stack; where it does not fit as a whole, its last blocks.
    """

    grows = frozenset({"d_model", "n_head", "d_ff", "n_layer"})
    preserves_function = True

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        if isinstance(small, MaskedTransformer) and not small.is_open:
            raise GrowthError("masks of the last growth are not open: shorten ramp, or grow later")
        return _Corner(small.config, target)


@dataclass(frozen=True)
class _Corner(Transfer):
    small: ModelConfig
    large: ModelConfig

    def _origin(self, name: str) -> str:
        if not name.startswith("blocks."):
            return name
        layer, rest = name.removeprefix("blocks.").split(".", 1)
        i, n_small, n_large = int(layer), self.small.n_layer, self.large.n_layer
        source = i % n_small if i < n_large // n_small * n_small else n_small - n_large + i
        return f"blocks.{source}.{rest}"

    def _place(self, small: Weights, large: Weights) -> Weights:
        axes = MaskedTransformer.shell(self.large).axes()
        for name, tensor in large.items():
            if (origin := self._origin(name)) in small:
                old = corner(tensor, axes[name], self.small, self.large)
                old.copy_(small[origin].view(old.shape))
        return large

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        grown = self._place(small, {name: tensor.clone() for name, tensor in fresh.items()})
        return grown | MaskedTransformer.hide(self.small, self.large)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        new, some = self.is_new(), next(iter(small.values()))
        grown = self._place(small, {name: some.new_zeros(mask.shape) for name, mask in new.items()})
        return {n: moment.masked_fill(new[n].to(moment.device), 0.0) for n, moment in grown.items()}

    @override
    def is_new(self) -> Weights:
        named = Transformer.shell(self.large).named_parameters()
        new = {name: torch.ones(like.shape, dtype=torch.bool) for name, like in named}
        axes = Transformer.shell(self.large).axes()
        for name, mask in new.items():
            corner(mask, axes[name], self.small, self.large).fill_(is_new_block(name, self.small))
        return new


class MSG(Baseline):
    """Grow every size behind masks that open within a fraction `ramp` of C*."""

    model_class: ClassVar[type[Transformer]] = MaskedTransformer
    source_class: ClassVar[type[Transformer] | None] = Transformer

    def __init__(self, ramp: float = 0.05) -> None:
        super().__init__()
        if ramp <= 0:
            raise ConfigError(f"ramp must be above 0, got {ramp}")
        self.ramp = ramp
        self.operators = (MaskedGrowth(),)

    @override
    def on_progress(self, since_growth: float) -> None:
        assert isinstance(self.model, MaskedTransformer)
        self.model.open(min(1.0, since_growth / self.ramp))
