"""Runs a suite on this machine: a pool of single-threaded processes works through the stages."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.queues import Queue

from benchmark.checkpoint import StageStore
from benchmark.cost import Position
from benchmark.plan import Run, StageResult, StageSpec
from benchmark.records import atomic_write_text
from benchmark.runner import Context, Tick, execute, prepare_process


@dataclass
class Track:
    """One run on its way."""

    run: Run
    done: list[tuple[StageSpec, StageResult]] = field(default_factory=list)
    waiting_for: StageSpec | None = None
    error: str | None = None
    tick: Tick | None = None

    @property
    def status(self) -> str:
        """One of waiting, running, done, diverged, failed."""
        if self.error is not None:
            return "failed"
        if self.done and self.done[-1][1].status != "done":
            return self.done[-1][1].status
        if self.waiting_for is None:
            return "done"
        return "running" if self.tick is not None else "waiting"

    @property
    def position(self) -> Position:
        """How far the run has come."""
        if self.tick is not None:
            return self.tick.position
        return self.done[-1][1].end if self.done else Position()

    @property
    def bpb(self) -> float | None:
        """Newest evaluation."""
        if self.tick is not None and self.tick.bpb is not None:
            return self.tick.bpb
        points = [point for _, result in self.done for point in result.points]
        return points[-1].bpb if points else None


class StageError(Exception):
    """What a stage raised, in words."""


class LocalExecutor:
    """Trains every stage of the runs once; several runs may wait for the same one."""

    def __init__(self, context: Context, workers: int, retries: int = 1) -> None:
        self.context, self.workers, self.retries = context, workers, retries
        self.store = StageStore(context.cache)
        self.attempts: dict[str, int] = {}
        self.process_context = multiprocessing.get_context("spawn")
        self.ticks: Queue[Tick] = self.process_context.Queue()

    def run(
        self,
        runs: Iterable[Run],
        on_change: Callable[[list[Track]], None],
        on_finished: Callable[[Track], None],
    ) -> list[Track]:
        """Work until every run is done, diverged or failed.

        Args:
            runs: what to train.
            on_change: called about four times a second while stages run.
            on_finished: called once for every run that reached its end, whatever that was.
        """
        self.tracks = [Track(run) for run in runs]
        self.on_finished = on_finished
        for track in self.tracks:
            self._advance(track)
        pending: dict[Future[StageResult], StageSpec] = {}
        pool = self._pool()
        try:
            while any(track.waiting_for for track in self.tracks):
                self._submit(pool, pending)
                finished, _ = wait(pending, timeout=0.25, return_when=FIRST_COMPLETED)
                self._take_ticks()
                for future in finished:
                    if isinstance(future.exception(), BrokenProcessPool):
                        pool.shutdown(wait=False)
                        pool = self._pool()
                    self._settle(pending.pop(future), future)
                on_change(self.tracks)
        finally:
            self._stop(pool)
        return self.tracks

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers,
            mp_context=self.process_context,
            initializer=_start_worker,
            initargs=(self.ticks,),
        )

    def _stop(self, pool: ProcessPoolExecutor) -> None:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if any(track.waiting_for for track in self.tracks):
            for process in processes:  # an interrupted suite resumes from its checkpoints
                process.terminate()

    def _advance(self, track: Track) -> None:
        """Take every stage that is already finished, up to the first that is not."""
        while True:
            track.tick = None
            spec = track.run.next_stage(track.done)
            track.waiting_for = spec
            result = self.store.result(spec.id) if spec is not None else None
            if spec is None or result is None:
                break
            track.done.append((spec, result))
            if result.status != "done":
                track.waiting_for = None
                break
        if track.waiting_for is None:
            self.on_finished(track)

    def _submit(
        self, pool: ProcessPoolExecutor, pending: dict[Future[StageResult], StageSpec]
    ) -> None:
        """Fill the pool, the run with most FLOPs left first."""
        busy = {spec.id for spec in pending.values()}
        ready = sorted(
            (track for track in self.tracks if track.waiting_for is not None),
            key=lambda track: track.position.flops - track.run.budget,
        )
        for track in ready:
            spec = track.waiting_for
            if spec is not None and spec.id not in busy and len(busy) < self.workers:
                with _interrupts_held_back():  # the first submission starts the processes
                    pending[pool.submit(_work, spec, self.context)] = spec
                busy.add(spec.id)

    def _take_ticks(self) -> None:
        while True:
            try:
                tick = self.ticks.get_nowait()
            except queue.Empty:
                return
            for track in self.tracks:
                if track.waiting_for is not None and track.waiting_for.id == tick.stage:
                    track.tick = tick

    def _settle(self, spec: StageSpec, future: Future[StageResult]) -> None:
        error = future.exception()
        waiting = [t for t in self.tracks if t.waiting_for and t.waiting_for.id == spec.id]
        if error is not None:
            self.attempts[spec.id] = self.attempts.get(spec.id, 0) + 1
            if self.attempts[spec.id] <= self.retries:
                return
        for track in waiting:
            if error is None:
                self._advance(track)
            else:
                track.waiting_for = None
                track.error = str(error) if isinstance(error, StageError) else _in_words(error)
                self.on_finished(track)


_ticks: "Queue[Tick] | None" = None


def _start_worker(ticks: "Queue[Tick]") -> None:
    global _ticks  # noqa: PLW0603 - the pool gives its processes nothing else to keep
    _ticks = ticks
    threading.Thread(target=_follow_parent, daemon=True).start()
    prepare_process(threads=1)


def _follow_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(spec: StageSpec, context: Context) -> StageResult:
    """Execute a stage; what it raises reaches the parent as text, as not all can be pickled."""
    assert _ticks is not None
    try:
        return execute(spec, replace(context, on_tick=_ticks.put))
    except Exception as error:
        trace = StageStore(context.cache).folder(spec.id) / "traceback.txt"
        atomic_write_text(trace, traceback.format_exc())
        raise StageError(_in_words(error)) from error


def _in_words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let SIGINT wait; processes that start meanwhile never get it: the parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
