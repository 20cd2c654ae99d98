"""How weights and optimizer state of a small model become those of a larger one, and when.

operator.py  what an operator is: one map, applied to weights and to both Adam moments
depth.py     blocks that start from others
width.py     axes that repeat coordinates or add new ones
axis_map.py  where the coordinates of a widened axis come from
noise.py     telling copies apart without changing a sum over them
grow.py      operators applied to a model, one after the other
schedule.py  what sizes a run passes through, and when it takes the next one
"""

from benchmark.growth.axis_map import AxisMap
from benchmark.growth.depth import DepthOperator, DepthTransfer
from benchmark.growth.grow import Unchanged, grown_model
from benchmark.growth.noise import add_split_noise
from benchmark.growth.operator import (
    GrowthOperator,
    Moments,
    Resources,
    Side,
    StatePolicy,
    Transfer,
    Weights,
    is_residual_write,
)
from benchmark.growth.width import Fill, WidthOperator, WidthTransfer

__all__ = [
    "AxisMap",
    "DepthOperator",
    "DepthTransfer",
    "Fill",
    "GrowthOperator",
    "Moments",
    "Resources",
    "Side",
    "StatePolicy",
    "Transfer",
    "Unchanged",
    "Weights",
    "WidthOperator",
    "WidthTransfer",
    "add_split_noise",
    "grown_model",
    "is_residual_write",
]
