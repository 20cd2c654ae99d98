"""HyperCloning (Samragh et al. 2024, arXiv:2409.12903): tile every weight matrix.

Compared with the authors' code (apple/ml-hypercloning, commit 7c4e80b).

Deviations: noise is on by default, because without dropout exact clones never separate; it is
centred over all copies of a coordinate rather than paired, so that it cancels for odd multiples
too; a tied head is compensated in the last norm's gain instead of a wrapper around the head.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from baselines.net2net import tiled
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError
from benchmark.growth import AxisMap, WidthOperator, add_split_noise


@dataclass(frozen=True)
class Clone(WidthOperator):
    """Repeat every coordinate equally often; break the symmetry with noise.

    Args:
        snr_db: signal-to-noise ratio of the readers in dB; None adds no noise.
    """

    preserves_function = True
    snr_db: float | None = 10.0

    def __post_init__(self) -> None:
        if self.snr_db is not None and not math.isfinite(self.snr_db):
            raise ConfigError(f"snr_db must be finite or null, got {self.snr_db}")

    @property
    @override
    def moments_are_exact(self) -> bool:
        return self.snr_db is None

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(tiled(axis, old, new))

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        if self.snr_db is None:
            return weight
        return add_split_noise(weight, repeated, 10 ** (-self.snr_db / 20), generator)


class HyperCloning(Baseline):
    """Grow widths by whole multiples."""

    def __init__(self, snr_db: float | None = 10.0) -> None:
        super().__init__()
        self.operators = (Clone(snr_db),)
