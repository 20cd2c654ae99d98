"""Training new blocks alone, while all that was there before rests."""

import re

from benchmark.growth import DepthOperator
from benchmark.model import ModelConfig


def learns_with_new_blocks(
    name: str, operator: DepthOperator, small: ModelConfig, large: ModelConfig
) -> bool:
    """Whether a parameter is in a block that `operator` has added; if it has added none, any is."""
    block = re.match(r"blocks\.(\d+)\.", name)
    is_new = block and operator.is_repeat(int(block[1]), small.n_layer, large.n_layer)
    return bool(is_new) or large.n_layer == small.n_layer
