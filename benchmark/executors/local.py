"""Runs a suite on this machine: single-threaded processes work through the stages."""

import os
from collections.abc import Sequence
from multiprocessing.connection import wait

import torch
from typing_extensions import override

from benchmark.executors.executor import Executor, Limits, Train
from benchmark.executors.worker import Worker
from benchmark.stage.context import Context
from benchmark.stage.execute import execute


class LocalExecutor(Executor[Worker]):
    """Executes stages in processes of this machine, each on a core, or on a GPU, of its own.

    Args:
        context: where stages run.
        workers: stages that run at once.
        limits: what stages may take.
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES has them; each worker sees one.
        train: what is done with a stage.
    """

    def __init__(
        self,
        context: Context,
        workers: int,
        limits: Limits | None = None,
        *,
        gpus: Sequence[str] = (),
        train: Train = execute,
    ) -> None:
        super().__init__(context, limits, train)
        self.most, self.gpus = workers, gpus

    @property
    @override
    def n_workers(self) -> int:
        return self.most

    @override
    def hire(self) -> Worker:
        used = [worker.gpu for worker in self.workers]
        gpu = min(self.gpus, key=used.count, default=None)
        return Worker(self.context, self.limits.timeout, gpu=gpu, train=self.train)

    @override
    def wait(self, seconds: float) -> Sequence[Worker]:
        wait([worker.pipe for worker in self.workers], timeout=seconds)
        return list(self.workers)  # one that says nothing may have taken too long


def visible_gpus() -> list[str]:
    """GPUs of this machine that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
