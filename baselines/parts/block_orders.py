"""Which small block every block of a deeper model copies.

Named orders of copies; none keeps the function. Where the whole stack does not fit, the rest is
filled from its top, as bert2BERT does; where groups do not divide the depth, the middle one starts
at a whole number of groups. From one block to two all orders are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.growth import DepthOperator


def whole(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 -> 0 1 2 0 1 2; a rest is the top of the stack."""
    n_repeated = n_large // n_small * n_small
    return layer % n_small if layer < n_repeated else n_small - n_large + layer


def interleaved(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 -> 0 0 1 1 2 2."""
    return layer * n_small // n_large


def last(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 -> 0 1 2 2 2 2."""
    return min(layer, n_small - 1)


def gradual(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 3 -> 0 1 2 3 2 3."""
    group = min(n_large - n_small, n_small)
    return layer if layer < n_small else n_small - group + (layer - n_small) % group


def middle(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 3 4 5 -> 0 1 2 3 2 3 4 5: the group of blocks, of as many as are new, in the middle."""
    n_new = n_large - n_small
    n_groups, group = max(n_small // n_new, 1), min(n_new, n_small)
    return _repeated(layer, (n_groups - 1) // 2 * group, group, n_new)


def central(layer: int, n_small: int, n_large: int) -> int:
    """0 1 2 3 -> 0 1 2 1 2 3: as many blocks as are new around the middle, whatever the groups."""
    n_new = n_large - n_small
    group = min(n_new, n_small)
    return _repeated(layer, (n_small - group) // 2, group, n_new)


def _repeated(layer: int, start: int, group: int, n_new: int) -> int:
    """Source of a block where `group` blocks from `start` on are followed by `n_new` copies."""
    if layer < start + group:
        return layer
    return start + (layer - start) % group if layer < start + group + n_new else layer - n_new


ORDERS: Mapping[str, Callable[[int, int, int], int]] = {
    order.__name__: order for order in (whole, interleaved, last, gradual, middle, central)
}
"""Small block that a large block starts from, given both depths."""


@dataclass(frozen=True)
class RepeatBlocks(DepthOperator):
    """Large blocks are copies of small ones, in one of `ORDERS`."""

    order: str = "whole"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"order must be one of {list(ORDERS)}, got {self.order!r}")

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return ORDERS[self.order](layer, n_small, n_large)
