"""Works through the stages of a suite, wherever they run: who goes next, who tries again."""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from benchmark.base.errors import RecordError
from benchmark.executors.track import Failure, Track
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

REFRESH_SECONDS = 0.25
MAX_IN_VAIN = 5
"""Workers that may end one after another before they are given a stage."""

Train = Callable[[StageSpec, Context], StageResult]
"""What a worker does with a stage: `runner.execute`, but when the scheduler itself is measured."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What stages may take."""

    retries: int = 1
    """Attempts at a stage after the first, unless that took too long."""

    timeout: float = math.inf
    """Seconds that an attempt may take."""

    cache_bytes: float = math.inf
    """What checkpoints of finished stages may take on disk; what is needed stays."""


class AnyWorker(Protocol):
    """This side of something that executes one stage at a time, here or elsewhere."""

    spec: StageSpec | None
    """The stage it works on."""

    @property
    def is_ready(self) -> bool:
        """Whether it has come up; a stage is given to no other."""

    def begin(self, spec: StageSpec) -> None:
        """Start on a stage; `news` tells what becomes of it."""

    def news(self) -> Iterator[Tick | StageResult | Failure]:
        """What has come since the last time; a result or a failure is the stage's last."""

    def stop(self) -> None:
        """End it, whatever it does; a stage goes on from its checkpoint some day."""


Worker = TypeVar("Worker", bound=AnyWorker)


class Executor(ABC, Generic[Worker]):
    """Trains every stage of the runs once; several runs may wait for the same one.

    Args:
        context: where the records and checkpoints of stages are gathered.
        limits: what stages may take.
        train: what is done with a stage.
    """

    def __init__(
        self, context: Context, limits: Limits | None = None, train: Train = execute
    ) -> None:
        self.context, self.limits, self.train = context, limits or Limits(), train
        self.store = StageStore(context.cache)
        self.attempts = Counter[str]()
        self.workers: list[Worker] = []
        self.in_vain = 0

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """Stages that may run at once, now."""

    @abstractmethod
    def hire(self) -> Worker:
        """One more worker, which may take its time to come up."""

    @abstractmethod
    def wait(self, seconds: float) -> Iterable[Worker]:
        """Workers that may have news, as soon as there is one, or after so many seconds."""

    def connected(self) -> AbstractContextManager[object]:
        """What has to be held while there are workers."""
        return nullcontext()

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

        Raises:
            RecordError: no worker comes up.
        """
        self.tracks, self.on_finished = [Track(run) for run in runs], on_finished
        for track in self.tracks:
            self._advance(track)
        self._make_room()
        if any(track.waiting_for for track in self.tracks):
            with self.connected():
                self._work(on_change)
            self._make_room()
        return self.tracks

    def _work(self, on_change: Callable[[list[Track]], None]) -> None:
        shown, tidied = -math.inf, self.attempts.total()
        try:
            while any(track.waiting_for for track in self.tracks):
                self._assign()
                if self.attempts.total() > tidied:  # only now, when nobody waits for a stage
                    self._make_room()
                    tidied = self.attempts.total()
                for worker in self.wait(REFRESH_SECONDS):
                    self._hear(worker)
                if time.monotonic() - shown >= REFRESH_SECONDS:
                    on_change(self.tracks)
                    shown = time.monotonic()
        finally:
            for worker in self.workers:
                worker.stop()
            self.workers.clear()

    def _advance(self, track: Track) -> None:
        """Take every stage that is already finished, up to the first that is not."""
        track.tick, track.done = None, self.store.usable(track.run)
        has_stopped = track.done and track.done[-1][1].status != "done"
        track.waiting_for = None if has_stopped else track.run.next_stage(track.done)
        if track.waiting_for is None:
            self.on_finished(track)

    def _assign(self) -> None:
        """Give every worker something to do; one that is still to come up keeps nothing waiting."""
        free = [worker for worker in self.workers if worker.spec is None]
        free.sort(key=lambda worker: worker.is_ready)
        for spec in self._to_begin():
            if free:
                worker = free.pop()
            elif len(self.workers) < self.n_workers:
                worker = self.hire()
                self.workers.append(worker)
            else:
                return
            if worker.is_ready:
                worker.begin(spec)

    def _to_begin(self) -> Iterator[StageSpec]:
        """Stages that nobody works on, the most urgent first."""
        taken = {worker.spec.id for worker in self.workers if worker.spec is not None}
        waiting = (track for track in self.tracks if track.waiting_for is not None)
        for track in sorted(waiting, key=_urgency):
            spec = track.waiting_for
            if spec is not None and spec.id not in taken:
                taken.add(spec.id)
                yield spec

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
            elif isinstance(message, Failure):
                self._count_in_vain(message)
            return

    def _count_in_vain(self, failure: Failure) -> None:
        self.in_vain += 1
        if self.in_vain > MAX_IN_VAIN:
            raise RecordError(f"workers end before they are given anything to do: {failure.error}")

    def _waiting_for(self, stage: str) -> list[Track]:
        return [t for t in self.tracks if t.waiting_for is not None and t.waiting_for.id == stage]

    def _settle(self, spec: StageSpec, outcome: StageResult | Failure) -> None:
        """Let the runs that waited for a stage go on, try again or fail."""
        self.in_vain = 0
        self.attempts[spec.id] += 1
        can_retry = self.attempts[spec.id] <= self.limits.retries
        for track in self._waiting_for(spec.id):
            if isinstance(outcome, StageResult) or (can_retry and outcome.status != "timeout"):
                self._advance(track)
            else:
                track.fail(outcome)
                self.on_finished(track)

    def _make_room(self) -> None:
        """Drop checkpoints that no run of this suite goes on from."""
        waiting = (track.waiting_for for track in self.tracks)
        needed = {spec.parent for spec in waiting if spec is not None and spec.parent is not None}
        self.store.evict(self.limits.cache_bytes, needed)


def _urgency(track: Track) -> tuple[bool, float]:
    """Sorts controls first, then what is nearest its end: an interrupted suite has whole runs."""
    return track.run.method.role == "method", track.run.budget - track.position.flops
