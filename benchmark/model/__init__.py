"""The transformer that every method trains; what a method or another architecture builds on.

transformer.py  sizes, named axes, parts and the model itself
cost.py         floating-point operations by formula
size_rule.py    learning rates and initial weights by sizes, tensor by tensor
kernels.py      the operations that PyTorch's CPU build does slowly, done faster
compiled.py     training through `torch.compile`
"""

from benchmark.model.transformer import (
    Axes,
    Block,
    Embedding,
    FixedAxis,
    FreePart,
    Kind,
    Linear,
    ModelConfig,
    Norm,
    Part,
    Transformer,
    draw_map,
)

__all__ = [
    "Axes",
    "Block",
    "Embedding",
    "FixedAxis",
    "FreePart",
    "Kind",
    "Linear",
    "ModelConfig",
    "Norm",
    "Part",
    "Transformer",
    "draw_map",
]
