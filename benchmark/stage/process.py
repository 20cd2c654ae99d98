"""The process that trains: what it sets once, and how it waits for its device."""

import logging
import os
import warnings

import torch

from benchmark.training.memory import keep_freed_memory


def prepare_process(threads: int) -> None:
    """Make this process deterministic and quiet, before it uses a GPU.

    It keeps the memory that it frees.

    Args:
        threads: how many PyTorch computes with.
    """
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


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, before a clock stops."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
