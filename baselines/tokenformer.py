"""TokenFormer (Wang et al. 2025, arXiv:2410.23168): a model grows by key-value tokens.

Compared with the authors' code (Haiyang-W/TokenFormer, commit 4d56c73). The paper proves that zero
keys change nothing while the temperature tau is fixed; the code draws them at random, and its tau,
the root of the number of tokens, jumps. The modes are both of these, two growths that are exact
although tau follows the tokens, and a control that has no gradient. All tokens share one norm, so
exactness is for the moment of growth: new keys soon shrink the old scores.

After growth: published with a fresh optimizer and a new schedule, which `tokenformer_paper` has. In
the other modes old tokens keep their moments and new ones start from zero; in all of them the rate
is warmed up again.

Deviations: block norms keep their gain, a diagonal factor of the keys behind it; Theta has an
epsilon of 1e-6; positions, head and initial scales are the benchmark's (1 / fan-in, as in the
authors' TPU code); new tokens share Adam's step count with old ones.
"""

from typing_extensions import override

from baselines.parts.token_growth import (
    CopiedTokens,
    DeadTokens,
    RandomTokens,
    RotatedKeys,
    ZeroKeys,
)
from baselines.parts.token_parameters import MODELS
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.training.optim import Rewarm

MODES: dict[str, type[RandomTokens]] = {
    "paper": RandomTokens,
    "exact": ZeroKeys,
    "rotated": RotatedKeys,
    "duplicate": CopiedTokens,
    "dead": DeadTokens,
}


class TokenFormerGrowth(Baseline):
    """Grow n_token."""

    rewarm = Rewarm(which="all")

    def __init__(self, mode: str = "exact", theta: str = "l2_norm_gelu") -> None:
        super().__init__()
        for name, value, allowed in (("mode", mode, MODES), ("theta", theta, MODELS)):
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {list(allowed)}, got {value!r}")
        self.model_class = MODELS[theta]
        self.operators = (MODES[mode](theta),)

    @property
    @override
    def leaves_dead_entries(self) -> bool:
        return self.preserves_function and isinstance(self.operators[0], DeadTokens)
