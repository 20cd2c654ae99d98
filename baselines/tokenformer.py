"""TokenFormer (Wang et al. 2025, arXiv:2410.23168): a model grows by key-value tokens.

Compared with the authors' code (Haiyang-W/TokenFormer, commit 4d56c73). What it releases is mode
`paper`: the small model's tokens come first in a model of the new size, whose other tokens stay as
they were drawn; tau, the root of the number of tokens, rises; the optimizer is fresh. So the
function jumps. The paper proves that zero keys change nothing, which takes a tau that stays: mode
`exact`. `rotated` and `duplicate` are exact although tau rises. `noise` perturbs the old tokens,
as the authors suggest in their issue 11 (they name no scale), `frozen` lets them rest, which their
issue 15 finds a little worse; `dead` is a control without gradient. All tokens share one norm, so
exactness is for the moment of growth: new keys soon shrink the old scores. Their TPU loader has two
options more: `zoom_dim` (`tau="kept"` in any mode), and `load_parameters_zero_init`, where keys and
values are padded with zeros: `dead`, `tau="rises"`.

After growth: released with a fresh optimizer, a warm-up of 1 % and a whole cosine to a tenth of an
unchanged peak, on a source of 0.75 d tokens that has ended such a schedule; `tokenformer` has all
of this. `tokenformer_paper` grows a running source under the schedule that all share. Other modes
keep old tokens' moments, and new ones start from zero.

Deviations: the source takes half of the compute, and tokens double (theirs: 71 to 83 %, 2.3 times);
the paper's study ends its cosine at zero. Norms in blocks are the suite's, with gains, a factor of
keys (theirs: LayerNorm without), as are head (theirs: tied) and positions (theirs: rotary on a
quarter of a head on GPUs, none on TPUs). Theta has an epsilon of 1e-6. Initial weights are as on
TPUs, 1 / fan-in (GPUs: keys 0.02, values 2 / (n_layer sqrt(d))), all normal. Where moments are
kept, new tokens have old ones' step count.
"""

from typing_extensions import override

from baselines.parts.resting_tokens import RestingTokenFormer, TokensApart
from baselines.parts.token_growth import (
    CopiedTokens,
    DeadTokens,
    NoisyTokens,
    RandomTokens,
    RotatedKeys,
    ZeroKeys,
)
from baselines.parts.token_parameters import MODELS, ZOOMED, TokenFormer
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.model import ModelConfig
from benchmark.training.optim import Rewarm

MODES: dict[str, type[RandomTokens]] = {
    "paper": RandomTokens,
    "noise": NoisyTokens,
    "exact": ZeroKeys,
    "rotated": RotatedKeys,
    "duplicate": CopiedTokens,
    "dead": DeadTokens,
}
TAUS = ["", "rises", "kept"]


class TokenFormerGrowth(Baseline):
    """Grow n_token."""

    rewarm = Rewarm(which="all")

    def __init__(self, mode: str = "paper", theta: str = "l2_norm_gelu", tau: str = "") -> None:
        super().__init__()
        asked = (("mode", mode, list(MODES)), ("theta", theta, list(MODELS)), ("tau", tau, TAUS))
        for name, value, allowed in asked:
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}, got {value!r}")
        keeps_tau = tau == "kept" if tau else MODES[mode].suits_kept_tau
        self.model_class = (ZOOMED if keeps_tau else MODELS)[theta]
        self.is_dead = mode == "dead" and theta != "softmax"
        self.operators = (MODES[mode](theta=theta, keeps_tau=keeps_tau),)

    @property
    @override
    def leaves_dead_entries(self) -> bool:
        return self.is_dead


class FrozenTokens(Baseline):
    """Grow n_token by random tokens, while all the old ones rest."""

    model_class = RestingTokenFormer
    source_class = TokenFormer
    rewarm = Rewarm(which="all")

    def __init__(self) -> None:
        super().__init__()
        self.operators = (TokensApart(),)

    @override
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return not name.endswith((".read", ".write"))
