"""LiGO, learned linear growth (Wang et al. 2023, arXiv:2303.00980).

A factorised map from small to large weights (kronecker.py) learns for 100 steps from the large
model's loss on batches of the run, charged with their bytes and FLOPs; then training starts with a
fresh optimizer. The loss is not preserved. Compared with the released code (VITA-Group/LiGO, commit
68e657d), from which the initial values are.

Deviations: a matrix is shared by all layers and learned as a whole, as in the paper; the code has
one per large layer and fixes the part that repeats old coordinates. Adam has no weight decay, which
would shrink that part, and a rate tuned on suite `cpu` (1e-3 to 1e-1), warmed up in 10 steps; the
released command warms up for 10,000 of its 100 steps and hardly moves the map. Products of weights
are charged per step, not per sample as by the authors' counter.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch.func import functional_call
from typing_extensions import override

from baselines.kronecker import FactorisedMap, Initial, Learned
from benchmark.baseline import Baseline
from benchmark.cost import training_flops_per_token
from benchmark.errors import GrowthError
from benchmark.growth import GrowthOperator, Resources, StatePolicy, Transfer, Weights
from benchmark.model import ModelConfig, Transformer

N_WARMUP = 10


@dataclass(frozen=True, kw_only=True)
class LearnedMap(GrowthOperator):
    """A factorised linear map, trained on the large model's loss.

    Args:
        n_steps: of training the map, a batch each.
        rate: peak learning rate of the map; it falls linearly to zero.
        initial: where the map starts.
    """

    grows = frozenset({"d_model", "n_head", "d_ff", "n_layer"})
    n_steps: int = 100
    rate: float = 1e-2
    initial: Initial = Initial()

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        grown = FactorisedMap(small, target, self.initial, resources.generator)
        optimizer = torch.optim.Adam(grown.factors.values(), fused=True)
        n_tokens = 0
        for step in range(self.n_steps):
            ids = next(resources.batches, torch.empty(0)).to(small.device)
            if not len(ids):
                raise GrowthError(f"a map learns from {self.n_steps} batches, there are only {step}")
            loss = grown.loss(ids)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(grown.factors.values(), 1.0)
            warmed_up = min(1.0, (step + 1) / N_WARMUP)
            optimizer.param_groups[0]["lr"] = self.rate * warmed_up * (1 - step / self.n_steps)
            optimizer.step()
            n_tokens += ids[:, 1:].numel()
        with torch.no_grad():
            weights = grown()
        return _Learned(...)
