"""HyperCloning (Samragh et al. 2024, arXiv:2409.12903): tile every weight matrix.

Compared with the authors' code (apple/ml-hypercloning, commit 7c4e80b).

After growth: published with a fresh optimizer and the schedule of a model from scratch, its warm-up
included; so here. `hypercloning_asymmetric` keeps the moments of old entries instead, at an
unchanged rate.

Deviations: noise is on by default, because without dropout exact clones never separate; it is
centred over all copies of a coordinate rather than paired, so that it cancels for odd multiples
too; a tied head is compensated in the last norm's gain instead of a wrapper around the head.
"""

import math

from baselines.parts.copies import Copies
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class HyperCloning(Baseline):
    """Grow widths by whole multiples.

    Args:
        snr_db: ratio of the readers to the noise on them, in dB; None adds no noise.
    """

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(self, snr_db: float | None = 10.0) -> None:
        super().__init__()
        if snr_db is not None and not math.isfinite(snr_db):
            raise ConfigError(f"snr_db must be finite or null, got {snr_db}")
        self.operators = (Copies(0.0 if snr_db is None else 10 ** (-snr_db / 20)),)
