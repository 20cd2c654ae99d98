"""MSG, masked structural growth (Yao et al. 2024, arXiv:2305.02869).

New weights are drawn like any others, new blocks repeat the old stack, and masks (masking.py) hide
them, then open linearly. New weights have gradients of exactly zero until the masks leave zero.

After growth: as published, old entries keep their moments and new ones start from zero.

Deviations from the released code (cofe-ai/MSG, commit 1b97183): masks sit where pre-norm needs
them, are saved, and follow FLOPs instead of micro-batches: the first step has m = 0, an evaluation
the m of the step after it. The rate is not rewound. Sizes grow together; theirs one after the
other, feed-forward units first (`msg_sequential`).
"""

from typing_extensions import override

from baselines.parts.masked_growth import MaskedGrowth
from baselines.parts.masking import MaskedTransformer
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.model import Transformer


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
