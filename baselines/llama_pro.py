"""LLaMA Pro block expansion (Wu et al. 2024, arXiv:2401.02415).

After each group of blocks comes a copy of the group's top block whose residual writes are zero.
Compared with the released script (TencentARC/LLaMA-Pro, commit bead657).

Deviations: all weights train on; freezing the old ones is the paper's choice for continual
learning, not for pretraining. Groups may differ by one block where the depths do not divide.
"""

from dataclasses import dataclass

from typing_extensions import override

from baselines.identity_depth import IdentityBlocks
from benchmark.baseline import Baseline


@dataclass(frozen=True)
class BlockExpansion(IdentityBlocks):
    """0 1 2 3 -> 0 1 1' 2 3 3': copies of the top block of each group."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return ((layer + 1) * n_small - 1) // n_large


class LlamaPro(Baseline):
    """Grow n_layer by copies that start as identities."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (BlockExpansion(),)
