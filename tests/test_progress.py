"""How far a suite has come and how long the rest takes, on a clock of the test's own."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import prepare

from benchmark.cli.progress import Progress
from benchmark.executors.track import Track
from benchmark.model.cost import Position
from benchmark.plan.config import load_suite
from benchmark.plan.spec import StageResult
from benchmark.session.session import Session
from benchmark.stage.context import Tick

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
