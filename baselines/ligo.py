"""LiGO, learned linear growth (Wang et al. 2023, arXiv:2303.00980).

A factorised map from small to large weights (kronecker.py) learns for 100 steps from the large
model's loss, on batches of the run whose bytes and FLOPs are charged; then training starts with a
fresh optimizer. The function is not preserved.

Deviations from the released code (VITA-Group/LiGO, commit 68e657d): a matrix is shared by all
layers and learned as a whole, as in the paper; the code has one per large layer and fixes the part
that repeats old coordinates. Adam has no weight decay, which would shrink that part, and a rate
tuned on suite `cpu` (1e-3 to 1e-2, seeds 100 to 102; 2e-4 there), warmed up in 10 steps; the
released command warms up for 10,000 of its 100 steps and hardly moves the map. Products of weights
are charged per step; the authors' counter charges them per sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from baselines.parts.factors import InitialFactors
from baselines.parts.kronecker import FactorisedMap
from benchmark.baseline import Baseline
from benchmark.cost import training_flops_per_token
from benchmark.errors import GrowthError
from benchmark.growth import GrowthOperator, Resources, StatePolicy, Transfer
from benchmark.model import ModelConfig, Transformer

N_WARMUP = 10


@dataclass(frozen=True, kw_only=True)
class LearnedMap(GrowthOperator):
    """A factorised map that learns for `n_steps`, at a rate that falls linearly to zero."""

    grows = frozenset({"d_model", "n_head", "d_ff", "n_layer"})
    n_steps: int = 100
    rate: float = 3e-3
    initial: InitialFactors = field(default_factory=InitialFactors)

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        drawn, like = self.initial.draw(small, target, resources.generator), small.embed.weight
        factors = {name: factor.to(like).requires_grad_() for name, factor in drawn.items()}
        learned = FactorisedMap(small, target, factors)
        self.train(learned, resources.batches)
        return learned

    def train(self, learned: FactorisedMap, batches: Iterator[Tensor]) -> None:
        """Fit the factors in place."""
        factors = list(learned.factors.values())
        optimizer = torch.optim.Adam(factors, fused=True)
        for step in range(self.n_steps):
            if (batch := next(batches, None)) is None:
                raise GrowthError(
                    f"a map learns from {self.n_steps} batches, there are only {step}"
                )
            ids = batch.to(factors[0].device)
            loss = F.cross_entropy(learned.logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(factors, 1.0)
            warmed_up = min(1.0, (step + 1) / N_WARMUP)
            optimizer.param_groups[0]["lr"] = self.rate * warmed_up * (1 - step / self.n_steps)
            optimizer.step()
            learned.flops += ids[:, 1:].numel() * training_flops_per_token(learned.shell)


class LiGO(Baseline):
    """Grow every size by a map that is learned first."""

    state_policy = StatePolicy.RESET

    def __init__(
        self, n_steps: int = 100, rate: float = 3e-3, rows: str = "random", order: str = "whole"
    ) -> None:
        super().__init__()
        initial = InitialFactors(rows=rows, order=order)
        self.operators = (LearnedMap(n_steps=n_steps, rate=rate, initial=initial),)
