"""Growth into masks: old weights in the corner of each tensor, new ones hidden around them."""

from dataclasses import dataclass

import torch
from typing_extensions import override

from baselines.parts.masking import MaskedTransformer, corner, is_new_block
from benchmark.base.errors import GrowthError
from benchmark.growth import GrowthOperator, Moments, Resources, Transfer, Weights
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
        self._copy(small, fresh)
        return fresh | MaskedTransformer.hide(self.small, self.large)

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        some, shell = next(iter(small.values())), Transformer.shell(self.large)
        grown = {name: some.new_zeros(like.shape) for name, like in shell.named_parameters()}
        old = {name: grown[name] for name in grown if not is_new_block(name, self.small)}
        self._copy(small, old)
        return grown

    @override
    def steps(self, small: Moments) -> dict[str, float]:
        named = Transformer.shell(self.large).named_parameters()
        return {
            name: 0.0 if is_new_block(name, self.small) else small.step[self._origin(name)]
            for name, _ in named
        }

    @override
    def first_images(self, small: Weights) -> Weights:
        return self.moments(small, 0)

    def _copy(self, small: Weights, large: Weights) -> None:
        """Write what each large tensor repeats into its corner, in place."""
        axes = MaskedTransformer.shell(self.large).axes()
        for name, tensor in large.items():
            if (origin := self._origin(name)) in small:
                old = corner(tensor, axes[name], self.small, self.large)
                old.copy_(small[origin].view(old.shape))

    @override
    def is_new(self) -> Weights:
        shell, new = Transformer.shell(self.large), Weights()
        axes = shell.axes()
        for name, like in shell.named_parameters():
            new[name] = torch.ones(like.shape, dtype=torch.bool, device="cpu")
            old = corner(new[name], axes[name], self.small, self.large)
            old.fill_(is_new_block(name, self.small))
        return new
