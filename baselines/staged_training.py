"""Staged training (Shen et al. 2022, arXiv:2203.06211): the optimizer's state grows as well.

Width: two models side by side; tables and norms repeat, and the last norm divides by the number of
copies. Depth: an identity layer after each old one.

After growth: first and second moments grow by 1 / k and 1 / k^2, as gradients do: in all k * k
blocks of a matrix, or on the diagonal only, as released (allenai/staged-training, commit 6c0cf4e).
The learning rate ramps up again.

Deviations: an untied head, not the last norm, divides by k. Identity layers are copies whose
residual writes are zero, not eyes under norms of zero, which without biases leave a SwiGLU dead for
ever; they have no moments. Noise that cancels tells copies apart, where the paper relied on
dropout: with `noise=0`, as published, they stay equal for ever. The learning rate is a function of
the budget, so its counter is not set back to S / rho.
"""

from typing_extensions import override

from baselines.parts.block_diagonal import SideBySide
from baselines.parts.identity_blocks import BlockExpansion
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class StagedTraining(Baseline):
    """Grow widths by whole multiples and add identity blocks."""

    state_policy = StatePolicy.SCALED
    rewarm = Rewarm(which="all")

    def __init__(self, noise: float = 0.05, *, released: bool = False) -> None:
        super().__init__()
        self.has_noise = noise > 0
        self.operators = (SideBySide(noise, released), BlockExpansion())

    @property
    @override
    def leaves_copies_equal(self) -> bool:
        return not self.has_noise
