"""A map from small to large weights that learns from the large model's loss, then is applied."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from baselines.parts.factors import InitialFactors
from baselines.parts.kronecker import FactorisedMap
from benchmark.base.errors import GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer
from benchmark.model import ModelConfig, Transformer
from benchmark.model.cost import training_flops_per_token

N_WARMUP = 10


@dataclass(frozen=True, kw_only=True)
class LearnedMap(GrowthOperator):
    """A factorised map that learns for `n_steps`, at a rate that falls linearly to zero.

    A step is charged the large model's training step, less the gradients of tensors that no factor
    enters (all have one if d_model grows), and the products of weights, forward and backward.
    """

    grows = frozenset({"d_model", "n_head", "d_ff", "n_layer"})
    n_steps: int = 100
    rate: float = 3e-3
    initial: InitialFactors = field(default_factory=InitialFactors)

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        drawn, like = self.initial.draw(small, target, resources.generator), small.embed.weight
        factors = {name: factor.to(like).requires_grad_() for name, factor in drawn.items()}
        learned = FactorisedMap(small, target, factors)
        self.train(learned, resources)
        return learned

    def train(self, learned: FactorisedMap, resources: Resources) -> None:
        """Fit the factors in place."""
        factors = list(learned.factors.values())
        optimizer = torch.optim.Adam(factors, fused=True)
        for step in range(self.n_steps):
            if (batch := next(resources.batches, None)) is None:
                raise GrowthError(
                    f"a map learns from {self.n_steps} batches, there are only {step}"
                )
            ids = batch.to(factors[0].device)
            optimizer.zero_grad()
            before = learned.flops
            for part in ids.chunk(resources.n_micro):
                learned.flops = before  # the large weights are charged once, however often made
                loss = _loss(learned, part) * (len(part) / len(ids))
                loss.backward()
            torch.nn.utils.clip_grad_norm_(factors, 1.0)
            warmed_up = min(1.0, (step + 1) / N_WARMUP)
            optimizer.param_groups[0]["lr"] = self.rate * warmed_up * (1 - step / self.n_steps)
            optimizer.step()
            n_tokens, fixed = ids[:, 1:].numel(), learned.fixed
            charged = n_tokens * training_flops_per_token(learned.shell, fixed)
            whole = n_tokens * training_flops_per_token(learned.shell, fixed, causal=False)
            learned.flops += charged
            learned.flops_masked += whole - charged


def _loss(learned: FactorisedMap, ids: Tensor) -> Tensor:
    """Mean nats of windows, int64 (B, T + 1)."""
    return F.cross_entropy(learned.logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
