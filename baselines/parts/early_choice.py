"""Growth by the best of several operators, as their losses tell after a few steps of training.

A trial is charged its steps, and the forward passes that score it.
"""

from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from baselines.parts.block_orders import RepeatBlocks
from benchmark.base.errors import GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer, grown_model
from benchmark.model import ModelConfig, Transformer
from benchmark.model.cost import forward_flops_per_token, training_flops_per_token

N_SCORED = 5
"""Batches of training text on which a trial is scored."""


@dataclass(frozen=True, kw_only=True)
class EarlyChoice(GrowthOperator):
    """Grows n_layer by each of some orders, trains each, and keeps the growth of the best."""

    grows = frozenset({"n_layer"})
    orders: tuple[str, ...]
    n_steps: int
    rate: float

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        n_batches = self.n_steps + N_SCORED
        batches = [ids.to(small.device) for ids in islice(resources.batches, n_batches)]
        if len(batches) < n_batches:
            raise GrowthError(f"a choice takes {n_batches} batches, there are {len(batches)}")
        tries = [RepeatBlocks(order).prepare(small, target, resources) for order in self.orders]
        losses = [
            self._loss(grown_model(small, each, target, resources), batches, resources.n_micro)
            for each in tries
        ]
        chosen, spent = tries[losses.index(min(losses))], self._flops(small.shell(target), batches)
        object.__setattr__(chosen, "flops", spent)
        masked = self._flops(small.shell(target), batches, causal=False) - spent
        object.__setattr__(chosen, "flops_masked", masked)
        return chosen

    @torch.enable_grad()
    def _loss(self, large: Transformer, batches: list[Tensor], n_micro: int) -> float:
        """Train a grown model, and score it on the batches that are left."""
        optimizer = torch.optim.AdamW(large.parameters(), lr=self.rate, betas=(0.9, 0.95))
        for ids in batches[: self.n_steps]:
            for part in ids.chunk(n_micro):
                (_nats(large, part) * (len(part) / len(ids))).backward()
            torch.nn.utils.clip_grad_norm_(large.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            return sum(float(_nats(large, ids)) for ids in batches[self.n_steps :])

    def _flops(self, shell: Transformer, batches: list[Tensor], *, causal: bool = True) -> float:
        """What all trials take."""
        trained, scored = (
            sum(ids[:, 1:].numel() for ids in part)
            for part in (batches[: self.n_steps], batches[self.n_steps :])
        )
        one = trained * training_flops_per_token(shell, causal=causal)
        one += scored * forward_flops_per_token(shell, causal=causal)
        return len(self.orders) * one


def _nats(model: Transformer, ids: Tensor) -> Tensor:
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
