"""A method as a LightningModule, which is what Fabric trains."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from typing_extensions import override

from benchmark.training.baseline import Baseline


class LightningMethod(pl.LightningModule):
    """Wraps a method that has begun a fit.

    The method itself is a plain module, so that whoever only plans or lists methods does not wait
    for Lightning.
    """

    def __init__(self, baseline: Baseline) -> None:
        super().__init__()
        self.baseline = baseline

    @override
    def forward(self, batch: Tensor) -> Tensor:
        """Mean loss of token ids, int64 (B, T + 1), in nats per predicted one."""
        loss: Tensor = self.baseline(batch)
        return loss

    @override
    def training_step(self, batch: Tensor, batch_idx: int = 0) -> Tensor:
        """The same, for one micro-batch of a step."""
        return self.forward(batch)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The method's optimizer, whose step is the method's `update`."""
        return self.baseline.optimizer
