"""Runs a suite on this machine: single-threaded processes work through the stages."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait

from benchmark.checkpoint import StageStore
from benchmark.executors.track import Failure, Track
from benchmark.executors.worker import Worker
from benchmark.plan import Run, StageResult, StageSpec
from benchmark.runner import Context, Tick

REFRESH_SECONDS = 0.25


class LocalExecutor:
    """Trains every stage of the runs once; several runs may wait for the same one.

    Args:
        context: where stages run.
        workers: stages that run at once.
        retries: attempts at a stage after the first, unless that took too long.
        timeout: seconds that an attempt may take.
        cache_bytes: what checkpoints of finished stages may take; what is needed stays.
    """

    def __init__(
        self,
        context: Context,
        workers: int,
        retries: int = 1,
        timeout: float = math.inf,
        cache_bytes: float = math.inf,
    ) -> None:
        self.context, self.n_workers, self.retries = context, workers, retries
        self.timeout, self.cache_bytes = timeout, cache_bytes
        self.store = StageStore(context.cache)
        self.attempts = Counter[str]()
        self.workers: list[Worker] = []

    def run(
        self,
        runs: Iterable[Run],
        on_change: Callable[[list[Track]], None],
        on_finished: Callable[[Track], None],
    ) -> list[Track]:
        """Work until every run has ended, in whatever way.

        Args:
            runs: what to train.
            on_change: called about four times a second while stages run.
            on_finished: called once for every run that reached its end, whatever that was.
        """
        self.tracks, self.on_finished = [Track(run) for run in runs], on_finished
        for track in self.tracks:
            self._advance(track)
        self._make_room()
        shown = -math.inf
        try:
            while any(track.waiting_for for track in self.tracks):
                self._assign()
                wait([worker.pipe for worker in self.workers], timeout=REFRESH_SECONDS)
                for worker in list(self.workers):
                    self._hear(worker)
                if time.monotonic() - shown >= REFRESH_SECONDS:
                    on_change(self.tracks)
                    shown = time.monotonic()
        finally:
            for worker in self.workers:
                worker.stop()
            self.workers.clear()
        return self.tracks

    def _advance(self, track: Track) -> None:
        """Take every stage that is already finished, up to the first that is not."""
        track.tick, track.done = None, self.store.usable(track.run)
        has_stopped = track.done and track.done[-1][1].status != "done"
        track.waiting_for = None if has_stopped else track.run.next_stage(track.done)
        if track.waiting_for is None:
            self.on_finished(track)

    def _assign(self) -> None:
        """Give every worker something to do, the run with most FLOPs left first."""
        busy = {worker.spec.id for worker in self.workers if worker.spec is not None}
        idle = [worker for worker in self.workers if worker.spec is None]
        ready = sorted(
            (track for track in self.tracks if track.waiting_for is not None),
            key=lambda track: track.position.flops - track.run.budget,
        )
        for track in ready:
            spec = track.waiting_for
            if spec is None or spec.id in busy or len(busy) == self.n_workers:
                continue
            (idle.pop() if idle else self._hire()).begin(spec)
            busy.add(spec.id)

    def _hire(self) -> Worker:
        self.workers.append(Worker(self.context, self.timeout))
        return self.workers[-1]

    def _hear(self, worker: Worker) -> None:
        """Take what a worker says; after a failure a fresh one takes its place."""
        for message in worker.news():
            if isinstance(message, Tick):
                for track in self._waiting_for(message.stage):
                    track.tick = message
                continue
            spec, worker.spec = worker.spec, None
            if isinstance(message, Failure):
                worker.stop()
                self.workers.remove(worker)
            if spec is not None:
                self._settle(spec, message)
            return

    def _waiting_for(self, stage: str) -> list[Track]:
        return [t for t in self.tracks if t.waiting_for is not None and t.waiting_for.id == stage]

    def _settle(self, spec: StageSpec, outcome: StageResult | Failure) -> None:
        """Let the runs that waited for a stage go on, try again or fail."""
        self.attempts[spec.id] += 1
        can_retry = self.attempts[spec.id] <= self.retries
        for track in self._waiting_for(spec.id):
            if isinstance(outcome, StageResult) or (can_retry and outcome.status != "timeout"):
                self._advance(track)
            else:
                track.fail(outcome)
                self.on_finished(track)
        self._make_room()

    def _make_room(self) -> None:
        """Drop checkpoints that no run of this suite goes on from."""
        waiting = (track.waiting_for for track in self.tracks)
        needed = {spec.parent for spec in waiting if spec is not None and spec.parent is not None}
        self.store.evict(self.cache_bytes, needed)
