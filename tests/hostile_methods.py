"""Methods that cheat: each wins if nobody looks. No test lives here."""

import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.block_orders import RepeatBlocks
from benchmark.growth.operator import GrowthOperator, Resources, Transfer
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.baseline import Baseline


class _Grows(Baseline):
    """Stacking, for what is done beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (RepeatBlocks(),)


class FollowsItsBatches(Baseline):
    """Follows its training batches back to the text they are cut from, and reads beyond its end."""

    found = 0

    def __init__(self) -> None:
        super().__init__()
        self.operators = (_FollowBatches(),)


class _FollowBatches(GrowthOperator):
    grows = frozenset({"n_layer"})

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        text = resources.batches.stream.text  # type: ignore[attr-defined]
        FollowsItsBatches.found = text.untyped_storage().nbytes()
        return RepeatBlocks().prepare(small, target, resources)


class _PeeksWhenScored(Transformer):
    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_BTV = super().forward(ids_BT)
        if not self.training:  # no trace of this in the training loss
            following = torch.nn.functional.one_hot(ids_BT[:, 1:], self.config.vocab_size)
            logits_BTV[:, :-1] += 9 * following
        return logits_BTV


class LeaksTheFuture(_Grows):
    """Predicts each byte of a text that is scored from the byte itself."""

    model_class = _PeeksWhenScored


class RepeatsItsData(_Grows):
    """Takes every batch twice."""

    @override
    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(torch.cat([batch, batch]))


class TrainsMore(_Grows):
    """Takes a second step with each batch, hung on the instance."""

    def __init__(self) -> None:
        super().__init__()
        self.update = self._again  # type: ignore[misc,method-assign]

    def _again(self) -> None:
        self.optimizer.step()
        Baseline.update(self)


class _Cheaper(Transformer):
    @property
    @override
    def linear_macs(self) -> int:
        return super().linear_macs // (1 if self.config.n_layer > 2 else 4)


class HidesItsSourceCost(_Grows):
    """States a quarter of what its small model costs."""

    model_class = _Cheaper
