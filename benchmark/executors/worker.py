"""A process that executes stages, one after another, with a pipe of its own to its parent."""

import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from benchmark.base.processes import death, follow_parent
from benchmark.executors.executor import Train
from benchmark.executors.track import Failure
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import atomic_write_text
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute
from benchmark.stage.process import prepare_process
from benchmark.stage.watch import corpus_closed
from benchmark.training.shortage import is_out_of_memory

OUT_OF_MEMORY = "out of memory"
_SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """The parent's end of a process; if that dies, only the stage it works on is lost.

    Args:
        context: where stages run.
        timeout: seconds that an attempt at a stage may take.
        gpu: the only GPU that the process sees, or those, as CUDA_VISIBLE_DEVICES names them.
        train: what is done with a stage.
    """

    is_ready = True
    """What is sent while the process starts waits in the pipe."""

    def __init__(
        self,
        context: Context,
        timeout: float = math.inf,
        *,
        gpu: str | None = None,
        train: Train = execute,
    ) -> None:
        self.context, self.timeout, self.gpu = context, timeout, gpu
        self.spec: StageSpec | None = None
        self.deadline = math.inf
        self.pipe, there = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(there, gpu, train))
        with _interrupts_held_back():
            self.process.start()
        there.close()

    def begin(self, spec: StageSpec) -> None:
        """Start on a stage; `news` tells what becomes of it."""
        self.spec, self.deadline = spec, math.inf
        with suppress(OSError):  # a dead process is found by `news`
            self.pipe.send((spec, self.context))

    def news(self) -> Iterator[Tick | StageResult | Failure]:
        """What has come since the last time; a result or a failure is the stage's last."""
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if message is None:  # the time that the process took to start does not count
                    self.deadline = time.monotonic() + self.timeout
                else:
                    yield message
        except (EOFError, OSError):
            self.process.join()
            yield Failure("failed", death(self.process.exitcode))
            return
        if time.monotonic() > self.deadline:
            self.deadline = math.inf
            yield Failure("timeout", f"the stage took longer than {self.timeout:g} seconds")

    def stop(self) -> None:
        """End the process, whatever it does; a stage goes on from its checkpoint some day."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: "Connection[Any, Any]", gpu: str | None, train: Train) -> None:
    threading.Thread(target=follow_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA looks at it when it is first used
    prepare_process(threads=1)
    with suppress(EOFError, OSError):  # nobody is at the other end any more
        while True:
            spec, context = pipe.recv()
            pipe.send(None)
            pipe.send(_attempt(train, spec, replace(context, on_tick=pipe.send)))


def _attempt(train: Train, spec: StageSpec, context: Context) -> StageResult | Failure:
    """Execute a stage; what it raises becomes text, as not all can be pickled."""
    try:
        with corpus_closed(context.corpus, context.cache):
            return train(spec, context)
    except Exception as error:  # noqa: BLE001 - whatever a method raises ends its run alone
        trace = StageStore(context.cache).folder(spec.id) / "traceback.txt"
        atomic_write_text(trace, traceback.format_exc())
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Failure(OUT_OF_MEMORY if is_out_of_memory(error) else "failed", words)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let SIGINT wait; processes that start meanwhile never get it: the parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
