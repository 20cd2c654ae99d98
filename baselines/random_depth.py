"""RaPTr, random path training (Panigrahi et al. 2024, arXiv:2402.05913): the path grows.

The model has its full size throughout. A step runs a path of its blocks (random_path.py), the
first, the last and as many between as its stage has, drawn anew for every step; stages have ever
longer paths, and the last one runs all blocks. The length is known beforehand and the draws follow
from the run's seed, so a step costs what is charged. The opening of the paper and accounts of it
were read; no official code is known.

After growth of the path: nothing becomes of the weights or of Adam's moments, and the rate stays.

Deviations: a block that is not on the path has no gradient, update or decay in that step, and what
is on it is not scaled up; whether the paper does either could not be read. Three stages of equally
many steps from half of the depth on, where there are four. Each micro-batch of a step has a path of
its own.
"""

from dataclasses import dataclass

from typing_extensions import override

from baselines.parts.random_path import RandomPathTransformer
from benchmark.base.errors import GrowthError
from benchmark.baseline import Baseline
from benchmark.growth import GrowthOperator, Resources, StatePolicy, Transfer, Unchanged
from benchmark.model import ModelConfig, Transformer


@dataclass(frozen=True)
class LongerPath(GrowthOperator):
    """Nothing changes but how many blocks a step runs."""

    grows = frozenset({"n_path"})
    preserves_function = True

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        if target.n_path > target.n_layer:
            raise GrowthError(f"n_path must be at most n_layer={target.n_layer}")
        return Unchanged(small)


class RandomDepth(Baseline):
    """Train random paths of growing length."""

    model_class = RandomPathTransformer
    state_policy = StatePolicy.CARRY

    def __init__(self) -> None:
        super().__init__()
        self.operators = (LongerPath(),)
