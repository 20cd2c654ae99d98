"""A process that executes stages, one after another, with a pipe of its own to its parent."""

import gc
import math
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from benchmark.base.processes import (
    CONTEXT,
    death,
    follow_parent,
    interrupts_held_back,
    start_server,
)
from benchmark.executors.executor import Message, Train
from benchmark.executors.track import Failure
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import atomic_write_text
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.stage.process import prepare_process
from benchmark.training.shortage import is_out_of_memory


class Worker:
    """The parent's end of a process; if that dies, only the stage it works on is lost.

    Args:
        train: what is done with a stage.
        timeout: seconds that an attempt at a stage may take.
        gpu: the only GPU that the process sees, as CUDA_VISIBLE_DEVICES names it.
    """

    def __init__(self, train: Train, timeout: float = math.inf, gpu: str | None = None) -> None:
        self.timeout, self.gpu, self.deadline = timeout, gpu, math.inf
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        self.pipe, there = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(there, os.environ | visible, train))
        start_server()
        with interrupts_held_back():
            self.process.start()
        there.close()

    def begin(self, spec: StageSpec, context: Context) -> None:
        """Start on a stage; `news` tells what becomes of it."""
        self.deadline = math.inf
        with suppress(OSError):  # a dead process is found by `news`
            self.pipe.send((spec, context))

    def news(self) -> Iterator[Message]:
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
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: "Connection[Any, Any]", environment: dict[str, str], train: Train) -> None:
    """Execute what comes through the pipe; the server's environment may not be the parent's."""
    threading.Thread(target=follow_parent, daemon=True).start()
    os.environ.update(environment)  # CUDA looks at it when it is first used
    prepare_process(threads=1)
    with suppress(EOFError, OSError):  # nobody is at the other end any more
        while True:
            spec, context = pipe.recv()
            pipe.send(None)
            pipe.send(_attempt(train, spec, replace(context, on_tick=pipe.send)))


def _attempt(train: Train, spec: StageSpec, context: Context) -> StageResult | Failure:
    """Execute a stage; what it raises becomes text, as not all can be pickled.

    Whatever it leaves in memory goes, cycles too: a model on a GPU would be in the next one's way.
    """
    try:
        return train(spec, context)
    except BaseException as error:  # noqa: BLE001 - a method that exits, too, ends its run alone
        trace = StageStore(context.cache).folder(spec.id) / "traceback.txt"
        with suppress(OSError):  # such as a full disk, which the error itself may come from
            atomic_write_text(trace, traceback.format_exc())
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Failure("out of memory" if is_out_of_memory(error) else "failed", words)
    finally:
        gc.collect()
