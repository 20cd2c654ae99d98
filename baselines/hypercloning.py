"""HyperCloning (Samragh et al. 2024, arXiv:2409.12903): tile every weight matrix.

Compared with the authors' code (apple/ml-hypercloning, commit 7c4e80b). Noise, if asked for, is
normal, in the blocks alone and drawn anew for every row: of two tiles that read copies one gains it
and the other loses it; the last of an odd number is left as it is.

After growth: published with a fresh optimizer and the schedule of a model from scratch, its warm-up
included; so here. `hypercloning_asymmetric` keeps the moments of old entries instead, at an
unchanged rate.

Deviations: noise of 10 dB, the example in the authors' code, is on by default, because without
dropout exact clones never separate (`snr_db: null` is their default); a tied head is compensated in
the last norm's gain instead of a wrapper around the head. The source there is a finished model;
here it has read, at a quarter of the compute, what the target from scratch reads in all.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import Copies
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import AxisMap, StatePolicy, WidthTransfer
from benchmark.training.optim import Rewarm


class _Tiled(WidthTransfer):
    @override
    def repeated(self, name: str) -> dict[int, AxisMap]:
        return super().repeated(name) if name.startswith("blocks.") else {}


@dataclass(frozen=True)
class NoisyTiles(Copies):
    """Tiles with noise that cancels over pairs of them, in the blocks alone."""

    transfer = _Tiled

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        for dim, axis_map in repeated.items():
            scale = self.noise * float(weight.detach().norm()) / math.sqrt(weight.numel())
            tiles = weight.unflatten(dim, (-1, len(axis_map.firsts)))
            n_paired = tiles.shape[dim] // 2 * 2
            gains, loses = (
                tiles.narrow(dim, 0, n_paired).unflatten(dim, (-1, 2)).select(dim + 1, i)
                for i in range(2)
            )
            noise = torch.randn(gains.shape, generator=generator, device="cpu").to(weight)
            gains.add_(noise, alpha=scale)
            loses.sub_(noise, alpha=scale)
        return weight


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
        self.operators = (NoisyTiles(0.0 if snr_db is None else 10 ** (-snr_db / 20)),)
