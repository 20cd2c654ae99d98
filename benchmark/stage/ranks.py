"""Processes that train stages together, one for each device; when one dies, all end.

The process that starts them keeps them from stage to stage, and keeps the store in which they meet.
Rank 0 sends messages and the result; the others send only that they are done, or have failed.
"""

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from benchmark.base.errors import ConfigError, RankError
from benchmark.base.processes import death, follow_parent
from benchmark.training.shortage import is_out_of_memory

HOST = "127.0.0.1"
FOREVER = timedelta(days=365)
PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another one's gradients before it takes it to hang."""

GRACE_SECONDS = 1.0
"""How long after an error to look for a death that may have caused it."""

OnMessage = Callable[[Any], None]

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Meeting:
    """Where one rank meets the others."""

    rank: int
    n_ranks: int
    device: str
    """Kind of device, "cpu" or "cuda"; on the latter each rank has the GPU of its number."""

    port: int
    task: int = 0
    """Number of the task they are at."""

    def await_first(self) -> None:
        """Wait until rank 0 joins, without a time limit."""
        self._store().wait([self._sign], FOREVER)

    def join(self) -> None:
        """Enter the process group; rank 0 comes first and thereby releases the others."""
        store = self._store()
        if self.rank == 0:
            store.set(self._sign, "ready")
        if not dist.is_initialized():
            is_gpu = self.device == "cuda"
            dist.init_process_group(
                "nccl" if is_gpu else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.n_ranks,
                timeout=PATIENCE,
                device_id=torch.device("cuda", self.rank) if is_gpu else None,
            )

    @property
    def _sign(self) -> str:
        return f"rank 0 is ready for task {self.task}"

    def _store(self) -> TCPStore:
        return TCPStore(HOST, self.port, is_master=False, timeout=FOREVER)


class Work(Protocol):
    """What every rank does; importable by name, as it runs in another process."""

    def __call__(self, meeting: Meeting, send: Callable[[object], None], *args: Any) -> object:  # noqa: ANN401 - any work
        """Do a rank's part; what rank 0 returns is the result."""


def run_on_ranks(
    n_ranks: int, device: str, work: Work, args: Sequence[object], on_message: OnMessage
) -> object:
    """Call `work` in several processes that train together, and return rank 0's result.

    Args:
        n_ranks: number of processes.
        device: kind of device, "cpu" or "cuda".
        work: what each does.
        args: of the work.
        on_message: called with every message that rank 0 sends.

    Raises:
        ConfigError: there are not as many GPUs.
        MemoryError: one has run out of memory.
        RankError: one has failed, or died.
    """
    if device == "cuda" and n_ranks > (found := torch.cuda.device_count()):
        raise ConfigError(f"run.devices is {n_ranks}, GPUs found: {found}")
    team = _team(n_ranks, device)
    try:
        return team.do(work, args, on_message)
    except BaseException:
        _team.cache_clear()
        team.stop()
        raise


@dataclass(frozen=True)
class _Message:
    content: object


@dataclass(frozen=True)
class _Result:
    value: object


@dataclass(frozen=True)
class _Failure:
    words: str
    trace: str = ""
    is_out_of_memory: bool = False


class _Rank:
    """This end of one of the processes."""

    def __init__(self, meeting: Meeting) -> None:
        self.name = f"rank {meeting.rank}"
        self.pipe, there = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(there, meeting), daemon=True)
        self.process.start()
        there.close()

    def message(self) -> _Message | _Result | _Failure:
        """The next thing that it sends; a failure if it is dead."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return _Failure(f"{self.name}: {death(self.process.exitcode)}")

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass
class _Team:
    """The processes, and the store in which they meet."""

    store: TCPStore
    ranks: list[_Rank] = field(default_factory=list[_Rank])
    n_tasks: int = 0

    def do(self, work: Work, args: Sequence[object], on_message: OnMessage) -> object:
        """Call `work` in every rank and wait for all."""
        self.n_tasks += 1
        for rank in self.ranks:
            with suppress(OSError):  # `message` reports that it is dead
                rank.pipe.send((work, self.n_tasks, args))
        results = dict[_Rank, object]()
        while busy := [rank for rank in self.ranks if rank not in results]:
            there = wait([rank.pipe for rank in busy])
            for rank in busy:
                if rank.pipe not in there:
                    continue
                match rank.message():
                    case _Message(content):
                        on_message(content)
                    case _Result(value):
                        results[rank] = value
                    case _Failure() as failure:
                        raise _cause(self.ranks, failure)
        return results[self.ranks[0]]

    def stop(self) -> None:
        """End all processes."""
        for rank in self.ranks:
            rank.stop()


@cache
def _team(n_ranks: int, device: str) -> _Team:
    """The processes that this one keeps; they end when it does."""
    team = _Team(TCPStore(HOST, 0, is_master=True, wait_for_workers=False))
    port = team.store.port
    team.ranks.extend(_Rank(Meeting(rank, n_ranks, device, port)) for rank in range(n_ranks))
    return team


def _cause(ranks: Iterable[_Rank], failure: _Failure) -> Exception:
    """The exception to raise: the death of a rank explains the errors of the others."""
    if failure.is_out_of_memory:
        error: Exception = MemoryError(failure.words)
    else:
        wait([rank.process.sentinel for rank in ranks], timeout=GRACE_SECONDS)
        deaths = [f"{rank.name}: {death(code)}" for rank in ranks
                  if (code := rank.process.exitcode) is not None]  # fmt: skip
        error = RankError(*deaths[:1] or [failure.words])
    error.add_note(failure.trace)
    return error


def _serve(pipe: "Connection[Any, Any]", meeting: Meeting) -> None:
    """Work on request and send the outcome; stay after a failure."""
    threading.Thread(target=follow_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(meeting.rank)  # so Lightning starts no processes of its own
    with suppress(EOFError, OSError):  # the process at the other end is gone
        while True:
            _work_once(pipe, meeting)


def _work_once(pipe: "Connection[Any, Any]", meeting: Meeting) -> None:
    work, task, args = pipe.recv()
    try:
        if meeting.device == "cuda":
            torch.cuda.set_device(meeting.rank)
        result = work(
            replace(meeting, task=task), lambda content: pipe.send(_Message(content)), *args
        )
    except Exception as error:  # noqa: BLE001 - sent to the process that started this one
        words = " ".join(f"rank {meeting.rank}: {type(error).__name__}: {error}".split())
        pipe.send(_Failure(words, traceback.format_exc(), is_out_of_memory(error)))
    else:
        pipe.send(_Result(result if meeting.rank == 0 else None))
