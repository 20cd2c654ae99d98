"""Methods for which memory is short, or that fail on one device of several; no test lives here."""

import os

import torch
from torch import Tensor
from typing_extensions import override

from baselines.scratch import Scratch
from benchmark.model.transformer import Transformer


def on_second_device() -> bool:
    """Whether this process is rank 1 of several."""
    return os.environ.get("LOCAL_RANK") == "1"


class Narrow(Transformer):
    """Has memory for one window at a time in training, and for three when it is scored."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if len(ids_BT) > (1 if self.training else 3):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(ids_BT)


class NarrowOnSecondDevice(Transformer):
    """Has memory for one window at a time on rank 1, for all elsewhere."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training and len(ids_BT) > 1 and on_second_device():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().forward(ids_BT)


class Hopeless(Transformer):
    """Has no memory to train with."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(ids_BT)


class Greedy(Scratch):
    """Never grow."""

    model_class = Narrow


class GreedyOnSecondDevice(Scratch):
    """Never grow."""

    model_class = NarrowOnSecondDevice


class Insatiable(Scratch):
    """Never grow."""

    model_class = Hopeless


class Slippery(Transformer):
    """Fails in training, on rank 1."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training and on_second_device():
            raise ValueError("a mistake of the method")
        return super().forward(ids_BT)


class Clumsy(Scratch):
    """Never grow."""

    model_class = Slippery
