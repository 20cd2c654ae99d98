"""Training new blocks alone, while all that was there before rests."""

import re

from benchmark.growth import DepthOperator
from benchmark.model import ModelConfig


def block_of(name: str) -> int | None:
    """Number of the block that a parameter is in, if it is in one."""
    match = re.match(r"blocks\.(\d+)\.", name)
    return int(match[1]) if match else None


def learns_with_new_blocks(
    name: str, operator: DepthOperator, small: ModelConfig, large: ModelConfig
) -> bool:
    """Whether a parameter is in a block that `operator` has added; if it has added none, any is."""
    if large.n_layer == small.n_layer:
        return True
    block = block_of(name)
    return block is not None and operator.is_repeat(block, small.n_layer, large.n_layer)
