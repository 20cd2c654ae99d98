"""Training through `torch.compile`: what it needs, and what it takes.

Only the loss of a training step is compiled, model included; growth, evaluation and the optimizer
run as they always do. Code that was made is kept on disk and found again by later stages.
"""

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from benchmark.base.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


MOST_MODELS = 1024
"""Models that one process may compile; PyTorch's own limit is meant to find mistakes."""

MOST_THREADS = 8
"""Compiler processes for a stage on a GPU, where each kernel is compiled on its own."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as one graph for every model and shape that it is called with.

    A process keeps what it has compiled: the next stage of the same sizes begins at once. Numbers
    that are no tensors, such as the epsilon of a norm, are constants of the graph, or the second
    model's code would depend on which one was first.

    Returns:
        A function of the same arguments.
    """
    config: Any = importlib.import_module("torch._dynamo.config")
    config.recompile_limit = config.accumulated_recompile_limit = MOST_MODELS
    config.specialize_float = True
    return torch.compile(function, dynamic=False, fullgraph=True)


def compile_seconds() -> float:
    """What this process has spent on compiling since it started."""
    spent = importlib.import_module("torch._dynamo.utils").calculate_time_spent()
    return float(spent.get("total_wall_time", 0.0))


def keep_code(folder: Path, device: str) -> None:
    """Keep what is compiled in `folder`, and set how many processes compile, unless told otherwise.

    The variables of the environment that PyTorch reads say otherwise.

    Args:
        folder: for later processes, too.
        device: kind of device, "cpu" or "cuda"; for a CPU this process compiles alone.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        config: Any = importlib.import_module("torch._inductor.config")  # has read it already
        n_cores = os.cpu_count() or 1
        config.compile_threads = 1 if device == "cpu" else min(MOST_THREADS, n_cores)


def require_compiler(device: str) -> None:
    """Check that code can be compiled here.

    Raises:
        ConfigError: there is no C++ compiler, or for a GPU no Triton.
    """
    builder = importlib.import_module("torch._inductor.cpp_builder")
    missing = "Triton" if device == "cuda" and find_spec("triton") is None else ""
    try:
        builder.get_cpp_compiler()
    except RuntimeError:
        missing = "a C++ compiler, such as g++ (the environment variable CXX may name it)"
    if missing:
        raise ConfigError(
            f"run.compile needs {missing}, and found none; install it, or set run.compile=false"
        )
