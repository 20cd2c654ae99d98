"""How training is set up: batches, the part of them that a process takes, a trainer, a process."""

import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.data.stream import ByteStream
from benchmark.plan.spec import StageSpec
from benchmark.training.memory import keep_freed_memory

N_STEPS_AT_ONCE = 32
"""Steps for which Lightning does its own work once."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that a process takes, and in how many pieces."""

    rank: int = 0
    n_ranks: int = 1
    """Processes, each with a device of its own, that take equal parts of a batch."""

    n_micro: int = 1
    """Micro-batches that such a part is cut into, as memory allows; their gradients add up."""

    @property
    def n_pieces(self) -> int:
        """Micro-batches of a whole batch."""
        return self.n_ranks * self.n_micro


class Batches:
    """The next `n_steps` batches of a stream, several of them in what Lightning takes for one.

    Of each batch a process gets its own share, cut into micro-batches: a function of the seed, the
    cursor and the rank. Items are int64 (S, M, B, T + 1), for S steps of M micro-batches of B rows;
    the last may be for fewer steps.
    """

    def __init__(self, stream: ByteStream, n_steps: int, share: Share = Share()) -> None:
        self.stream, self.share = stream, share
        self.spans = [
            range(first, min(first + N_STEPS_AT_ONCE, n_steps))
            for first in range(0, n_steps, N_STEPS_AT_ONCE)
        ]

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.stack([self._of_step(step) for step in span]) for span in self.spans)

    def _of_step(self, step: int) -> Tensor:
        size, n_micro = self.stream.batch_size, self.share.n_micro
        n_rows = size // self.share.n_pieces
        window = self.stream.first_window + step * size + self.share.rank * n_micro * n_rows
        return self.stream.rows_at(window, n_micro * n_rows).unflatten(0, (n_micro, n_rows))


class GrowthBatches(Iterator[Tensor]):
    """Batches for an operator that learns, counted as they are read, until growth is over."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self.n_windows, self.is_closed = stream, 0, False

    def close(self) -> None:
        """Let nothing be read that would not be charged."""
        self.is_closed = True

    @override
    def __next__(self) -> Tensor:
        if self.is_closed:
            raise GrowthError("batches for growth are read after it; only growth is charged them")
        batch = self.stream.batch_at(self.stream.first_window + self.n_windows)
        self.n_windows += len(batch)
        return batch


def make_trainer(
    spec: StageSpec,
    device: str,
    share: Share = Share(),
) -> pl.Trainer:
    """A Lightning trainer: the loop, devices and precision, and nothing else."""
    return pl.Trainer(
        accelerator="cuda" if device.startswith("cuda") else "cpu",
        devices=share.n_ranks,
        strategy=_strategy(share),
        plugins=[LightningEnvironment()] if share.n_ranks == 1 else None,  # no look for a cluster
        precision="32-true" if spec.precision == "tf32" else spec.precision,  # type: ignore[arg-type]
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(share: Share) -> Strategy | str:
    """How processes that have met share their gradients; buffers are the same in all of them."""
    if share.n_ranks == 1:
        return "auto"
    return DDPStrategy(cluster_environment=LightningEnvironment(), broadcast_buffers=False)


def prepare_process(threads: int) -> None:
    """Make this process deterministic, quiet, as parallel as asked; before it uses a GPU.

    It keeps the memory that it frees.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():  # cuBLAS refuses to be deterministic without
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="pytorch_lightning|lightning_fabric|torch.utils._pytree"
    )


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, before a clock stops."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
