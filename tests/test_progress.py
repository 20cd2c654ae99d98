"""How far a suite has come and how long the rest takes, on a clock of the test's own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import prepare
from typing_extensions import override

from benchmark.cli.progress import Progress
from benchmark.executors.executor import Executor, Message
from benchmark.executors.track import Track
from benchmark.model.cost import Position, affordable_steps
from benchmark.plan.config import ExecutionConfig, load_suite
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.session.session import Session
from benchmark.stage.context import Context, Tick

FLOPS_PER_SECOND = 1e6


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Track]:
    """Three runs of which nothing is trained."""
    monkeypatch.chdir(prepare(tmp_path))
    suite = replace(load_suite("tiny.yaml", ["protocol.seeds=[0,1,2]"]), methods=["scratch"])
    return [Track(run, waiting_for=run.next_stage([])) for run in Session(suite).runs]


def advance(track: Track, flops: float) -> None:
    """Let a run be so far in the stage that it is at."""
    assert track.waiting_for is not None
    start = track.done[-1][1].end if track.done else Position()
    track.tick = Tick(track.waiting_for.id, start.after(flops=flops, tokens=100), None)


def finish(track: Track, seconds: float) -> None:
    """Let a run finish the stage that it is at."""
    spec, result = track.run.predicted(track.done)[len(track.done)]
    done: StageResult = replace(result, executed_seconds=seconds)
    track.done, track.tick = [*track.done, (spec, done)], None
    track.waiting_for = track.run.next_stage(track.done)


def test_flops_count_for_stages_that_are_done_and_for_those_at_work(tracks: list[Track]) -> None:
    progress = Progress([track.run for track in tracks])
    finish(tracks[0], 1.0)
    advance(tracks[0], 1e7)
    advance(tracks[1], 2e7)
    progress.update(tracks)
    assert progress.executed == tracks[0].done[0][1].end.flops + 3e7
    assert progress.total == pytest.approx(sum(t.run.predicted()[-1][1].end.flops for t in tracks))


def test_a_stage_that_several_runs_wait_for_counts_once(tracks: list[Track]) -> None:
    twice = [tracks[0], Track(tracks[0].run, waiting_for=tracks[0].waiting_for)]
    for track in twice:
        advance(track, 1e7)
    progress = Progress([track.run for track in twice])
    progress.update(twice)
    assert progress.executed == 1e7
    assert progress.total == pytest.approx(tracks[0].run.predicted()[-1][1].end.flops)


def test_the_start_of_the_workers_does_not_count_for_the_pace(tracks: list[Track]) -> None:
    clock = Clock()
    progress = Progress([track.run for track in tracks], clock)
    progress.update(tracks)
    assert progress.seconds_left is None
    clock.now += 1000  # until the first sign of life
    for seconds in (0, 10):
        for track in tracks[:2]:
            advance(track, 1e6 + seconds * FLOPS_PER_SECOND)
        clock.now += seconds
        progress.update(tracks)
    left = progress.total - progress.executed
    assert progress.seconds_left == pytest.approx(left / FLOPS_PER_SECOND / 2)
    assert progress.tokens_per_second(tracks[2]) != progress.tokens_per_second(tracks[2])  # nan


def test_what_was_trained_before_tells_the_pace_and_the_longest_run_bounds_it(
    tracks: list[Track],
) -> None:
    progress = Progress([track.run for track in tracks])
    progress.most_at_work = 100
    finish(tracks[0], tracks[0].run.predicted()[0][1].end.flops / FLOPS_PER_SECOND)
    progress.update(tracks)
    whole = tracks[1].run.predicted()[-1][1].end.flops
    assert progress.seconds_left == pytest.approx(whole / FLOPS_PER_SECOND)


class Simulated(Executor):
    """Two workers on a clock that runs ahead to the next sign of life.

    A stage takes `SETUP` seconds, then trains at a rate that falls with the size of its steps, and
    is scored in a time of its own: each part is unlike what a mean rate would say.
    """

    SETUP, SCORING, TICK = 3.0, 10.0, 2.0
    n_slots = 2

    def __init__(self, session: Session, clock: Clock, fastest: float) -> None:
        context = Context(corpus=session.suite.workload.corpus, cache=session.cache)
        super().__init__(context, ExecutionConfig())
        self.clock, self.fastest = clock, fastest
        self.begun = dict[str, tuple[StageSpec, float, Position]]()

    @override
    def begin(self, spec: StageSpec) -> None:
        before = None if spec.parent is None else self.store.result(spec.parent)
        self.begun[spec.id] = spec, self.clock.now, Position() if before is None else before.end

    @override
    def news(self, seconds: float) -> Iterator[tuple[StageSpec, Message]]:
        self.clock.now += self.TICK
        for spec, started, start in list(self.begun.values()):
            flops = affordable_steps(start.flops, spec.until, spec.step_flops) * spec.step_flops
            spent = self.clock.now - started
            trained = max(0.0, spent - self.SETUP) * self._rate(spec)
            end = start.after(flops=flops, tokens=1000)
            if spent >= self.SETUP + flops / self._rate(spec) + self.SCORING * bool(spec.splits):
                del self.begun[spec.id]
                result = StageResult(status="done", end=end, executed_seconds=spent)
                self.store.folder(spec.id).mkdir(parents=True)
                self.store.checkpoint(spec.id).touch()
                self.store.write_result(spec.id, result)
                yield spec, result
            else:
                yield spec, Tick(spec.id, start.after(flops=min(trained, flops)), None)

    def _rate(self, spec: StageSpec) -> float:
        is_small = spec.model["n_layer"] == 1 or spec.model["d_model"] < 32
        return self.fastest / (2.5 if is_small else 1.0)

    @override
    def stop(self) -> None:
        """Nothing is at work."""


@pytest.mark.parametrize("fastest", [3e6, pytest.param(3e5, marks=pytest.mark.slow)])
def test_after_a_minute_the_time_left_is_right_within_a_factor_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: float
) -> None:
    """Whether the suite takes half an hour or half a day."""
    monkeypatch.chdir(prepare(tmp_path))
    methods = "methods=[scratch,scratch_half,scratch_small,restart_only,stacking,net2net,msg]"
    session = Session(load_suite("tiny.yaml", [methods, "protocol.seeds=[0,1]"]))
    clock = Clock()
    executor, progress = Simulated(session, clock, fastest), Progress(session.runs, clock)
    told = dict[float, float | None]()

    def show(tracks: list[Track]) -> None:
        progress.update(tracks)
        told[clock.now] = progress.seconds_left

    monkeypatch.setattr("benchmark.executors.executor.REFRESH_SECONDS", 0.0)
    started = clock.now
    tracks = executor.run(session.runs, show, lambda _: None)
    assert {track.status for track in tracks} == {"done"}
    took = clock.now - started
    assert took > 600
    for now, left in told.items():
        if 60 <= now - started <= 0.9 * took:
            right = clock.now - now
            assert left is not None
            assert right / 2 < left < 2 * right, (now - started, left, right)
