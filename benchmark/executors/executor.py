"""Works through the stages of a suite, wherever they run: who goes next, who tries again."""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

from benchmark.base.errors import BenchmarkError, RecordError
from benchmark.executors.track import Failure, Track
from benchmark.plan.config import ExecutionConfig
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

REFRESH_SECONDS = 0.25

Train = Callable[[StageSpec, Context], StageResult]
"""What is done with a stage: `stage.execute`, but when the scheduler itself is measured."""

Message = Tick | StageResult | Failure
"""What comes from a stage at work; its last is a result or a failure."""


class Executor(ABC):
    """Trains every stage of the runs once; several runs may wait for the same one.

    Args:
        context: where the records and checkpoints of stages are gathered.
        settings: what stages may take, how often they are tried again, and where they run.
        train: what is done with a stage.
    """

    def __init__(
        self, context: Context, settings: ExecutionConfig, *, train: Train = execute
    ) -> None:
        self.context, self.settings, self.train = context, settings, train
        self.store = StageStore(context.cache)
        self.attempts = Counter[str]()
        self.at_work = set[str]()

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """Stages that may run at once, now."""

    @abstractmethod
    def begin(self, spec: StageSpec) -> None:
        """Start on a stage; `news` tells what becomes of it."""

    @abstractmethod
    def news(self, seconds: float) -> Iterable[tuple[StageSpec, Message]]:
        """What stages at work have said, as soon as one has, or nothing after so many seconds."""

    @abstractmethod
    def stop(self) -> None:
        """End all that is at work; a stage goes on from its checkpoint some day."""

    def connected(self) -> AbstractContextManager[object]:
        """What has to be held while stages run."""
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
            RecordError: what lies in the cache is damaged.
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
        last_change, tidied = -math.inf, self.attempts.total()
        try:
            while any(track.waiting_for for track in self.tracks):
                self._fill_slots()
                if self.attempts.total() > tidied:  # only now, when nobody waits for a stage
                    self._make_room()
                    tidied = self.attempts.total()
                for spec, message in self.news(REFRESH_SECONDS):
                    self._take(spec, message)
                if time.monotonic() - last_change >= REFRESH_SECONDS:
                    on_change(self.tracks)
                    last_change = time.monotonic()
        finally:
            self.stop()
            self.at_work.clear()

    def _advance(self, track: Track) -> None:
        """Take every stage that is already finished, up to the first that is not.

        What comes next may be for the method's own code to say; if that fails, so has the run.
        """
        track.tick = track.waiting_for = None
        try:
            track.done = self.store.usable(track.run)
            if not track.done or track.done[-1][1].status == "done":
                track.waiting_for = track.run.next_stage(track.done)
        except RecordError:  # of a damaged cache, which nobody should go on with
            raise
        except BenchmarkError as error:
            track.fail(Failure("failed", str(error)))
        if track.waiting_for is None:
            self.on_finished(track)

    def _fill_slots(self) -> None:
        """Begin on stages that nobody works on, the most urgent first."""
        n_slots = self.n_slots
        waiting = (track for track in self.tracks if track.waiting_for is not None)
        for track in sorted(waiting, key=_urgency):
            spec = track.waiting_for
            if spec is not None and spec.id not in self.at_work and len(self.at_work) < n_slots:
                self.at_work.add(spec.id)
                self.begin(spec)

    def _take(self, spec: StageSpec, message: Message) -> None:
        """Let the runs that wait for a stage know of it; at its end they go on, or have failed."""
        waiting = [track for track in self.tracks if track.waiting_for == spec]
        if isinstance(message, Tick):
            for track in waiting:
                track.tick = message
            return
        self.at_work.discard(spec.id)
        self.attempts[spec.id] += 1
        n, retries = self.attempts[spec.id], self.settings.retries
        if isinstance(message, Failure) and (n > retries or message.status == "timeout"):
            for track in waiting:
                track.fail(message)
                self.on_finished(track)
            return
        if isinstance(message, Failure) and waiting:
            waiting[0].setbacks.append(f"{message.error}; trying again, {n} of {retries}")
        for track in waiting:
            self._advance(track)

    def _make_room(self) -> None:
        """Drop checkpoints that no run of this suite goes on from."""
        waiting = (track.waiting_for for track in self.tracks)
        needed = {spec.parent for spec in waiting if spec is not None and spec.parent is not None}
        self.store.evict(self.settings.cache_gigabytes * 1e9, needed)


def _urgency(track: Track) -> tuple[bool, float]:
    """Sorts controls first, then what is nearest its end: an interrupted suite has whole runs."""
    return track.run.method.role == "method", track.run.budget - track.position.flops
