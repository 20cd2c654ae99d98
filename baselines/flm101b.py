"""The growth recipe of FLM-101B (Li et al. 2023, arXiv:2309.03852), scaled down.

Masked growth in three stages, 16B, 51B and 101B parameters there, of 79, 13 and 9 % of the tokens
or 48, 23 and 29 % of the compute; all widths grow, then depth doubles. No official code is known;
the masks are those of MSG.

After growth: the rate at the start of the second stage is 0.85 and of the third 0.5 of the first
one's, each after a short warm-up. Moments are treated as MSG does.

Deviations: the rates are factors on the protocol's curve; the paper's are read off one cosine.
Blocks have an eighth, a half and all of the parameters, nearest to 16 : 51 : 101 that doubling
gives; that depth doubles last follows from the published sizes. Warm-up lasts 1 % of C*; there,
0.15 % of the tokens.
"""

from baselines.msg import MSG
from benchmark.training.optim import Rewarm


class FLM101B(MSG):
    """MSG with a lower rate after every growth."""

    rewarm = Rewarm(which="all", ratios=[0.85, 0.5], length=0.01)

    def __init__(self, ramp: float = 0.03) -> None:
        super().__init__(ramp)
