"""The process that trains: what the harness sets in it, and that methods leave it as it was.

One process serves many methods. A setting that outlives a stage, such as torch's default dtype,
would move the numbers of the next method, so a stage that leaves one changed fails.
"""

import importlib
import logging
import os
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch

from benchmark.base.digest import science
from benchmark.base.errors import MethodError
from benchmark.training.memory import keep_freed_memory


def prepare_process(threads: int) -> None:
    """Make this process deterministic and quiet, before it uses a GPU.

    It keeps the memory that it frees, and notes the harness's code that it has loaded.

    Args:
        threads: how many PyTorch computes with.
    """
    import_fabric()
    science()
    keep_freed_memory()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():  # cuBLAS refuses to be deterministic without
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="pytorch_lightning|lightning_fabric|torch.utils._pytree"
    )


def import_fabric() -> None:
    """Import what trains, which takes seconds and changes filters of warnings."""
    importlib.import_module("benchmark.training.lightning")
    importlib.import_module("lightning_fabric")


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, before a clock stops."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (
        torch.get_default_device,
        lambda _: torch.set_default_device(None),
    ),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's determinism": (
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    "torch's precision of float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch's random state": (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "numpy's random state": (
        lambda: pickle.dumps(np.random.get_state()),  # noqa: NPY002 - others may draw from it
        lambda state: np.random.set_state(pickle.loads(state)),  # noqa: NPY002
    ),
    "Python's random state": (random.getstate, random.setstate),
    "the working folder": (os.getcwd, os.chdir),
}
"""What outlives a stage and could move the next one's numbers: how to read and how to set it.

Grad mode and inference mode are not here: left wrong, they end the next stage instead of moving it.
"""


class ProcessState:
    """Settings of this process as they are when this is made; put back at the end of the block."""

    def __init__(self) -> None:
        self.before = {name: read() for name, (read, _) in _SETTINGS.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._changed():
            _SETTINGS[name][1](self.before[name])

    def check(self, method: str) -> None:
        """Refuse what has changed.

        Args:
            method: the class to blame.

        Raises:
            MethodError: a setting is not what it was.
        """
        if changed := self._changed():
            raise MethodError(
                f"{method} has changed {' and '.join(map(self._described, changed))}, which other "
                "methods share; a method must leave the process as it was"
            )

    def _changed(self) -> list[str]:
        return [name for name, (read, _) in _SETTINGS.items() if read() != self.before[name]]

    def _described(self, name: str) -> str:
        """The setting with both values, unless these are long."""
        before, now = self.before[name], _SETTINGS[name][0]()
        if isinstance(before, bytes | tuple):
            return name
        return f"{name} ({before} to {now})"
