"""Depth growth by copies in mirrored order: 0 1 -> 0 1 1 0. Change `source` to your own rule."""

from dataclasses import dataclass

from benchmark.baseline import Baseline
from benchmark.growth import DepthOperator


@dataclass(frozen=True)
class Mirrored(DepthOperator):
    """Large block i copies small block i, then backwards."""

    def source(self, layer: int, n_small: int, n_large: int) -> int:
        """Number of the small block that a large one starts from; -1 for a fresh one."""
        position = layer % (2 * n_small)
        return min(position, 2 * n_small - 1 - position)


class Method(Baseline):
    """Grow n_layer by mirrored copies."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (Mirrored(),)
