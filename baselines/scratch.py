"""The controls: models whose size never changes, and growth that happens too early or not at all.

`Scratch` trains one size from a random start. `RestartOnly` does to a small model all that a
growing method does, except growing. `FreezeOnly` asks of LLaMA Pro (llama_pro.py) whether it is the
new blocks or the freezing: it freezes what that method freezes, and trains the blocks that it would
have copied. Their configurations give the sizes and the times. No official code: controls are what
others are compared with.

Deviations: none.
"""

from typing_extensions import override

from baselines.parts.freezing import block_of
from baselines.parts.identity_blocks import BlockExpansion
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.model import ModelConfig
from benchmark.training.optim import Rewarm


class Scratch(Baseline):
    """One size from the first step to the last."""


class RestartOnly(Baseline):
    """Stops where others grow, drops the optimizer's state, re-warms the rate, keeps the size."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")


class FreezeOnly(Baseline):
    """Stops where LLaMA Pro grows, keeps the size, trains on what that would have copied.

    Args:
        factor: by which LLaMA Pro would have deepened the model.
    """

    def __init__(self, factor: float = 4 / 3) -> None:
        super().__init__()
        self.factor, self.expansion = factor, BlockExpansion()

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        n_small, n_large = large.n_layer, round(large.n_layer * self.factor)
        copied = {
            self.expansion.source(layer, n_small, n_large)
            for layer in range(n_large)
            if self.expansion.is_repeat(layer, n_small, n_large)
        }
        return block_of(name) in copied
