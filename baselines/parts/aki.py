"""AKI, advanced knowledge initialisation (bert2BERT: Chen et al. 2022, arXiv:2110.07143).

It differs from FPI (fpi.py) in that what is new comes from the layer above, and loses the function.
It has been read in two ways. "literal": every new row is the next layer's, residual writes
included, and columns are this layer's, as in LEMON's comparison (YiteWang/lemon-pytorch, commit
a73f0b6). "hidden": new heads and units of the next layer bring their own columns of the residual
writes, as in the MindSpore port. The last layer has none above it and keeps FPI.
"""

import re
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from baselines.parts.fpi import FPI
from benchmark.base.errors import ConfigError
from benchmark.growth import Weights, WidthTransfer
from benchmark.model import Kind

READINGS = ("literal", "hidden")


class _FromTheNextLayer(WidthTransfer):
    operator: "AKI"

    @override
    def image(self, name: str, small: Weights) -> Tensor:
        image = super().image(name, small)
        above = re.sub(r"^blocks\.(\d+)", lambda match: f"blocks.{int(match[1]) + 1}", name)
        if above == name or above not in small or self.axes[name].kind is not Kind.MAP:
            return image
        other = super().image(name, {name: small[above]})
        for dim, axis, side, _ in self.sides(name):
            if side == "out" if self.operator.reading == "literal" else axis != "d_model":
                n_old = self.small.size(axis)  # what comes after them is new
                n_new = image.shape[dim] - n_old
                image.narrow(dim, n_old, n_new).copy_(other.narrow(dim, n_old, n_new))
        return image


@dataclass(frozen=True)
class AKI(FPI):
    """As FPI, with new units of the next layer."""

    preserves_function = False
    transfer = _FromTheNextLayer
    reading: str = "literal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reading not in READINGS:
            raise ConfigError(f"reading must be one of {list(READINGS)}, got {self.reading!r}")
