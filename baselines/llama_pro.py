"""LLaMA Pro block expansion (Wu et al. 2024, arXiv:2401.02415).

After each group of blocks comes a copy of the group's top block whose residual writes are zero.
Compared with the released script (TencentARC/LLaMA-Pro, commit bead657).

After growth: published as post-pretraining of a finished model, with everything that was there
frozen, embeddings and head included, and a new schedule with a warm-up: `llama_pro_frozen`, with
`train="new"`. What rests has no gradient, update or decay, and the ledger charges what is left to
compute. New blocks start from moments of zero either way.

Deviations: by default all weights train on, at an unchanged rate, for freezing is a choice for
continual learning, not for pretraining. A target of 4, 8 or 12 blocks grows from three quarters of
them, where 40 grow from 32, and at half of the run, where the source is finished. Groups may differ
by one block where the depths do not divide.
"""

from typing_extensions import override

from baselines.parts.freezing import learns_with_new_blocks
from baselines.parts.identity_blocks import BlockExpansion
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.model import ModelConfig

TRAIN = ("all", "new")


class LlamaPro(Baseline):
    """Grow n_layer by copies that start as identities; train them alone, or all weights."""

    def __init__(self, train: str = "all") -> None:
        super().__init__()
        if train not in TRAIN:
            raise ConfigError(f"train must be one of {list(TRAIN)}, got {train!r}")
        self.expansion, self.freezes = BlockExpansion(), train == "new"
        self.operators = (self.expansion,)

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return not self.freezes or learns_with_new_blocks(name, self.expansion, small, large)
