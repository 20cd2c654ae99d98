"""MSG, masked structural growth (Yao et al. 2024, arXiv:2305.02869).

New weights are drawn like any others, new blocks repeat the old stack, and masks (masking.py) hide
them, then open linearly. New weights have gradients of exactly zero until the masks leave zero.

Deviations from the released code (cofe-ai/MSG, commit 1b97183): masks sit where pre-norm needs
them, are saved, and follow FLOPs instead of micro-batches: the first step has m = 0, an evaluation
the m of the step after it. The rate is not rewound. Sizes may grow together.
"""

from dataclasses import dataclass

import torch
from typing_extensions import override

from baselines.parts.masking import MaskedTransformer, corner, is_new_block
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError, GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer, Weights
from benchmark.model import ModelConfig, Transformer


@dataclass(frozen=True)
class MaskedGrowth(GrowthOperator):
    """Old weights in the corner of each tensor, ordinary random ones around it, behind masks."""

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
        return f"blocks.{int(layer) % self.small.n_layer}.{rest}"

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        axes = MaskedTransformer.shell(self.large).axes()
        grown = {name: tensor.clone() for name, tensor in fresh.items()}
        for name, tensor in grown.items():
            if (origin := self._origin(name)) in small:
                old = corner(tensor, axes[name], self.small, self.large)
                old.copy_(small[origin].view(old.shape))
        return grown | MaskedTransformer.hide(self.small, self.large)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        some, new = next(iter(small.values())), self.is_new()
        grown = self.weights(
            small, {name: some.new_zeros(mask.shape) for name, mask in new.items()}
        )
        return {n: grown[n].masked_fill(mask.to(some.device), 0.0) for n, mask in new.items()}

    @override
    def is_new(self) -> Weights:
        shell, new = Transformer.shell(self.large), Weights()
        for name, like in shell.named_parameters():
            new[name] = torch.ones(like.shape, dtype=torch.bool)
            old = corner(new[name], shell.axes()[name], self.small, self.large)
            old.fill_(is_new_block(name, self.small))
        return new


class MSG(Baseline):
    """Grow every size behind masks that open within a fraction `ramp` of C*."""

    model_class = MaskedTransformer
    source_class = Transformer

    def __init__(self, ramp: float = 0.05) -> None:
        super().__init__()
        if ramp <= 0:
            raise ConfigError(f"ramp must be above 0, got {ramp}")
        self.ramp, self.operators = ramp, (MaskedGrowth(),)

    @override
    def on_progress(self, since_growth: float) -> None:
        assert isinstance(self.model, MaskedTransformer)
        self.model.open(min(1.0, since_growth / self.ramp))
