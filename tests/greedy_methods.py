"""Methods for which memory is short; no test lives here."""

import torch
from torch import Tensor
from typing_extensions import override

from baselines.scratch import Scratch
from benchmark.model.transformer import Transformer


class Narrow(Transformer):
    """Has memory for one window at a time in training, and for three when it is scored."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if len(ids_BT) > (1 if self.training else 3):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(ids_BT)


class Hopeless(Transformer):
    """Has no memory to train with."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(ids_BT)


class Modest(Scratch):
    """Never grow, with memory enough."""


class Greedy(Scratch):
    """Never grow."""

    model_class = Narrow


class Insatiable(Scratch):
    """Never grow."""

    model_class = Hopeless
