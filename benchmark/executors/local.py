"""Runs a suite on this machine: single-threaded processes work through the stages."""

import math
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

import torch
from typing_extensions import override

from benchmark.executors.executor import Executor, Message, Train
from benchmark.executors.track import Failure
from benchmark.executors.worker import Worker
from benchmark.plan.config import ExecutionConfig
from benchmark.plan.spec import StageSpec
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute


class LocalExecutor(Executor):
    """Executes stages in processes of this machine, each on a core, or on a GPU, of its own.

    A process goes from stage to stage; after one that fails, a fresh process takes its place.

    The first arguments are those of every executor.

    Args:
        workers: stages that run at once.
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES has them; each worker sees one.
    """

    def __init__(
        self,
        context: Context,
        settings: ExecutionConfig,
        workers: int,
        *,
        gpus: Sequence[str] = (),
        train: Train = execute,
    ) -> None:
        super().__init__(context, settings, train=train)
        self.most, self.gpus = workers, gpus
        self.busy: dict[Worker, StageSpec] = {}
        self.idle: list[Worker] = []

    @property
    @override
    def n_slots(self) -> int:
        return self.most

    @override
    def begin(self, spec: StageSpec) -> None:
        worker = self.idle.pop() if self.idle else self._start_worker()
        self.busy[worker] = spec
        worker.begin(spec, self.context)

    @override
    def news(self, seconds: float) -> Iterator[tuple[StageSpec, Message]]:
        wait([worker.pipe for worker in self.busy], timeout=seconds)
        for worker, spec in list(self.busy.items()):  # one that says nothing may take too long
            for message in worker.news():
                if isinstance(message, Tick):
                    yield spec, message
                    continue
                del self.busy[worker]
                if isinstance(message, Failure):
                    worker.stop()
                else:
                    self.idle.append(worker)
                yield spec, message
                break

    @override
    def stop(self) -> None:
        for worker in (*self.busy, *self.idle):
            worker.stop()
        self.busy.clear()
        self.idle.clear()

    def _start_worker(self) -> Worker:
        used = [worker.gpu for worker in (*self.busy, *self.idle)]
        gpu = min(self.gpus, key=used.count, default=None)
        return Worker(self.train, self.settings.timeout_seconds or math.inf, gpu)


def visible_gpus() -> list[str]:
    """GPUs of this machine that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
