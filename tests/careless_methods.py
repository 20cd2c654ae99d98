"""Stacking by an operator that changes a setting of its process and leaves it so. No test."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from baselines.parts.block_orders import RepeatBlocks
from benchmark.baseline import Baseline
from benchmark.model import Axes


def _put_back() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


def _raise() -> None:
    torch.set_default_dtype(torch.float64)
    raise RuntimeError("in the middle")


CARELESS: dict[str, Callable[[], object]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's determinism": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "torch's random state": lambda: torch.rand(1),
    "numpy's random state": np.random.rand,
    "Python's random state": random.random,
    "the working folder": lambda: os.chdir(Path("/")),
}
"""What each does to its process."""

OTHERS: dict[str, Callable[[], object]] = {"nothing": _put_back, "and raises": _raise}


@dataclass(frozen=True)
class _Change(RepeatBlocks):
    what: str = "nothing"

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        (CARELESS | OTHERS)[self.what]()
        return weight


class Careless(Baseline):
    """Grow n_layer."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.operators = (_Change(what=what),)
