"""One run on its way: what is done, what it waits for, and how it ended."""

from dataclasses import dataclass, field

from benchmark.model.cost import Position
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.folder import RunRecord
from benchmark.stage.context import Tick

PUBLISHED = "published"
"""Status of a run that was trained and published before."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt at a stage came to nothing."""

    status: str
    """One of failed, timeout, out of memory."""

    error: str


@dataclass
class Track:
    """One run on its way."""

    run: Run
    done: list[tuple[StageSpec, StageResult]] = field(default_factory=list)
    waiting_for: StageSpec | None = None
    tick: Tick | None = None
    failure: Failure | None = None
    failed_at: StageSpec | None = None
    record: RunRecord | None = None
    """Of a run that is published: nothing is left to do."""

    setbacks: list[str] = field(default_factory=list[str])
    """Failed attempts at its stages that were tried again; of a shared one, one run tells."""

    @property
    def status(self) -> str:
        """One of waiting, running, done, published, diverged, failed, timeout, out of memory."""
        if self.record is not None:
            return PUBLISHED
        if self.failure is not None:
            return self.failure.status
        if self.done and self.done[-1][1].status != "done":
            return self.done[-1][1].status
        if self.waiting_for is None:
            return "done"
        return "running" if self.tick is not None else "waiting"

    @property
    def error(self) -> str | None:
        """What went wrong, if something did."""
        if self.failure is not None:
            return self.failure.error
        return self.done[-1][1].error if self.done else None

    @property
    def position(self) -> Position:
        """How far the run has come."""
        if self.record is not None:
            end = self.record.events[-1]
            return Position(**{key: end[key] for key in ("step", "tokens", "flops", "seconds")})
        if self.tick is not None:
            return self.tick.position
        return self.done[-1][1].end if self.done else Position()

    @property
    def bpb(self) -> float | None:
        """Newest evaluation."""
        if self.tick is not None and self.tick.bpb is not None:
            return self.tick.bpb
        if self.record is not None:
            return float(self.record.of("evaluation")[-1]["bpb"])
        points = [point for _, result in self.done for point in result.points]
        return points[-1].bpb if points else None

    def fail(self, failure: Failure) -> None:
        """End the run at the stage it waits for."""
        self.failed_at, self.waiting_for, self.tick = self.waiting_for, None, None
        self.failure = failure
