"""A transformer whose linear maps are products of two thin matrices, W = U V.

Each query, key, value, gate and up is a product of its own. A map of m x n becomes one dense matrix
at rank r = m n / (m + n), where two factors cost as much: whether it has factors is a function of
the config. Embeddings, norms and head are dense.
"""

import math

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.pairs import Pair
from benchmark.model import Axes, FixedAxis, ModelConfig, Part, Transformer, draw_map


class LowRankLinear(Pair):
    """A linear map of low rank; `write` is U, `read` is V."""

    def __init__(self, config: ModelConfig, ends: Axes) -> None:
        super().__init__(config, ends, ("rank",))
        self.ends = ends

    @override
    def between(self, hidden: Tensor) -> Tensor:
        return hidden

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """The best approximation of a dense map's initial weights, spread evenly over U and V."""
        rank = self.write.shape[1]
        dense = self.write.new_empty(len(self.write), self.read.shape[1])
        draw_map(dense, self.ends, generator, n_layer)
        left, values, right = torch.linalg.svd(
            dense.unflatten(0, (self.n_group, -1)), full_matrices=False
        )
        root = values[:, :rank].sqrt()
        with torch.no_grad():
            self.write.copy_((left[..., :rank] * root[:, None]).flatten(0, 1))
            self.read.copy_((right[:, :rank] * root[..., None]).flatten(0, 1))


class LowRankTransformer(Transformer):
    """Token ids to logits through factors, as long as they are cheaper than matrices."""

    own_sizes = {"rank": 4}  # noqa: RUF012 - a mapping that nobody changes

    @override
    def linear(self, config: ModelConfig, out: tuple[str, ...], into: tuple[str, ...]) -> Part:
        m = math.prod(config.size(axis) for axis in out if not isinstance(axis, FixedAxis))
        n = math.prod(config.size(axis) for axis in into)
        is_thin = config.size("rank") * (m + n) < m * n
        return (
            LowRankLinear(config, Axes(out, into)) if is_thin else super().linear(config, out, into)
        )
