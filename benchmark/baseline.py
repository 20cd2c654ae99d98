"""The class that a growth method subclasses, where methods import it from."""

from benchmark.training.baseline import Baseline
from benchmark.training.optim import Optimizer, Rewarm

__all__ = ["Baseline", "Optimizer", "Rewarm"]
