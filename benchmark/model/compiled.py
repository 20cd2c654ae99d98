"""Training through `torch.compile`: what it needs, and what it takes.

Only the loss of a training step is compiled, model included; growth, evaluation and the optimizer
run as they always do. Code that was made is kept on disk and found again by later stages.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from benchmark.base.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as one graph, made anew when it is first called with tensors of other shapes.

    What was compiled before is forgotten, its time too: PyTorch gives up on a function of too many
    models.

    Returns:
        A function of the same arguments.
    """
    torch.compiler.reset()
    return torch.compile(function, dynamic=False, fullgraph=True)


def compile_seconds() -> float:
    """What this process has spent on compiling since `compiled` was last called."""
    spent = importlib.import_module("torch._dynamo.utils").calculate_time_spent()
    return float(spent["total_wall_time"])


def keep_code(folder: Path) -> None:
    """Keep what is compiled in `folder`, and compile in this process, unless told otherwise.

    The variables of the environment that PyTorch reads say otherwise.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def require_compiler() -> None:
    """Check that code can be compiled here.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    builder = importlib.import_module("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except RuntimeError as error:
        raise ConfigError(
            "run.compile needs a C++ compiler, such as g++, and found none; install one, name it "
            "in the environment variable CXX, or set run.compile to false"
        ) from error
