"""bert2BERT (Chen et al. 2022, arXiv:2110.07143): widen by FPI or AKI, then stack.

AKI, advanced knowledge initialisation, differs from FPI (fpi.py) in that what is new comes from the
layer above, and loses the function. It has been read in two ways. "literal": every new row is the
next layer's, residual writes included, and columns are this layer's, as in LEMON's comparison
(YiteWang/lemon-pytorch, commit a73f0b6). "hidden": new heads and units of the next layer bring
their own columns of the residual writes, as in the MindSpore port. No official code is known.

Deviations: those of FPI. The last layer has none above it and keeps FPI. Two-stage training, whose
first stage trains sub-models, is not here: all methods train alike.
"""

import re
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from baselines.parts.fpi import FPI
from baselines.stacking import RepeatBlocks
from benchmark.baseline import Baseline
from benchmark.errors import ConfigError
from benchmark.growth import Resources, Transfer, Weights, WidthTransfer, along
from benchmark.model import Kind, ModelConfig, Transformer

READINGS = ("literal", "hidden")


@dataclass(frozen=True)
class AKI(FPI):
    """As FPI, with new units of the next layer."""

    preserves_function = False
    reading: str = "literal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reading not in READINGS:
            raise ConfigError(f"reading must be one of {list(READINGS)}, got {self.reading!r}")

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        return _FromTheNextLayer.of(self, small, target, resources)


class _FromTheNextLayer(WidthTransfer):
    operator: AKI

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight = super().weight(name, small, fresh)
        above = re.sub(r"^blocks\.(\d+)", lambda match: f"blocks.{int(match[1]) + 1}", name)
        if above == name or above not in small or self.axes[name].kind is not Kind.MAP:
            return weight
        other = super().weight(name, {name: small[above]}, fresh)
        for dim, axis, side, axis_map in self.sides(name):
            if side == "out" if self.operator.reading == "literal" else axis != "d_model":
                is_new = along(axis_map.is_new, dim, other).bool()
                weight = other.where(is_new, weight)
        return weight


class Bert2Bert(Baseline):
    """Grow widths by FPI, or by AKI if a reading of it is given, and depth by stacking."""

    def __init__(self, reading: str | None = None, map: str = "random") -> None:
        super().__init__()
        widen = FPI(map=map) if reading is None else AKI(map=map, reading=reading)
        self.operators = (widen, RepeatBlocks())
