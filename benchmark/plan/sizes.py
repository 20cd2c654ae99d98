"""What sizes a method passes through on its way to the target, refused before anything trains."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from benchmark.base.errors import ConfigError, GrowthError, SizeError
from benchmark.growth.depth import DepthOperator
from benchmark.growth.grow import check_reach, enlargements
from benchmark.growth.operator import GrowthOperator
from benchmark.growth.width import WidthOperator
from benchmark.model.transformer import ModelConfig
from benchmark.plan.config import MethodConfig
from benchmark.training.baseline import Baseline


def rungs(target: ModelConfig, method: MethodConfig, baseline: Baseline) -> list[ModelConfig]:
    """All sizes from a method's source to its target.

    Raises:
        ConfigError: the method names sizes that the model does not have.
        SizeError: the ladder does not divide the target, or the operators cannot climb it.
    """
    where = f"method.{method.name}"
    known = target.size_names().union(baseline.own_sizes)
    if unknown := sorted(method.sizes.keys() - known):
        raise ConfigError(f"{where}.sizes {unknown} are not among {sorted(known)}")
    try:
        found = method.ladder.rungs(target.resized(method.sizes))
        for small, large in pairwise(found):
            check_reach(small, large, baseline.operators)
            _check_maps(small, large, baseline.operators)
    except (ConfigError, GrowthError) as error:
        raise SizeError(f"{where}: {error}") from error
    return found


def _check_maps(
    small: ModelConfig, large: ModelConfig, operators: Sequence[GrowthOperator]
) -> None:
    """Ask every operator that maps axes or blocks whether it can at these sizes.

    Raises:
        GrowthError: one cannot, as when copies are even and the sizes no multiples.
    """
    random = torch.Generator().manual_seed(0)
    for operator, reached in enlargements(small, large, operators):
        if isinstance(operator, WidthOperator):
            for axis in sorted(operator.grows & reached.sizes().keys()):
                if reached.size(axis) > small.size(axis):
                    operator.axis_map(axis, small.size(axis), reached.size(axis), random)
        elif isinstance(operator, DepthOperator):
            for layer in range(reached.n_layer):
                operator.source(layer, small.n_layer, reached.n_layer)
        small = reached
