"""Who goes next, who tries again, and where: the same for every executor."""

import gc
import os
import re
import signal
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from tiny_suite import prepare
from typing_extensions import override

from benchmark.executors.executor import Executor, Message, Train
from benchmark.executors.local import LocalExecutor
from benchmark.executors.track import Failure, Track
from benchmark.executors.worker import _attempt
from benchmark.growth.schedule import GrowthSchedule, Point, Progress
from benchmark.plan.config import ExecutionConfig, load_suite
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.session.session import Session
from benchmark.stage.context import Context
from tools.perf.stub_stage import sleep

RAISES = """
name: raises
target: "baselines.stacking:Stacking"
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "test_scheduling:RaisesLater"}
"""


class Inside(Executor):
    """Executes stages in this process, one at a time, when it is asked for news."""

    def __init__(self, session: Session, *failures: str, retries: int = 1) -> None:
        super().__init__(context_of(session), ExecutionConfig(retries=retries))
        self.begun, self.failures = list[StageSpec](), list(failures)
        self.waiting: StageSpec | None = None

    n_slots = 1

    @override
    def begin(self, spec: StageSpec) -> None:
        assert self.waiting is None
        self.waiting = spec
        self.begun.append(spec)

    @override
    def news(self, seconds: float) -> Iterator[tuple[StageSpec, Message]]:
        if (spec := self.waiting) is not None:
            self.waiting = None
            yield spec, self._end(spec)

    def _end(self, spec: StageSpec) -> StageResult | Failure:
        if self.failures:
            return Failure("failed", self.failures.pop(0))
        result = sleep(spec, self.context)
        result = replace(result, points=(Point(result.end.flops, 8.0, spec.n_grown),))
        self.store.write_result(spec.id, result)
        return result

    @override
    def stop(self) -> None:
        self.waiting = None


def quiet(_: object) -> None:
    """Nobody looks."""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The tiny suite with a run that costs half of the others, named first."""
    monkeypatch.chdir(prepare(tmp_path))
    monkeypatch.setattr("tools.perf.stub_stage.MEAN_SECONDS", 0.0)
    return Session(load_suite("tiny.yaml", ["methods=[scratch_half,scratch_small,stacking]"]))


def context_of(session: Session) -> Context:
    return Context(corpus=session.suite.workload.corpus, cache=session.cache)


def local(session: Session, train: Train, gpus: Sequence[str] = ()) -> LocalExecutor:
    return LocalExecutor(context_of(session), ExecutionConfig(), 2, gpus=gpus, train=train)


def first_stage(session: Session) -> StageSpec:
    spec = session.runs[0].next_stage([])
    assert spec is not None
    return spec


class Cycle:
    """Memory that nothing but itself refers to."""

    def __init__(self) -> None:
        self.itself = self
        self.weight = torch.ones(1)


def test_a_stage_leaves_nothing_in_the_memory_of_its_process(session: Session) -> None:
    left: list[weakref.ref[Cycle]] = []

    def hoard(spec: StageSpec, context: Context) -> StageResult:
        left.append(weakref.ref(Cycle()))
        return sleep(spec, context)

    gc.disable()  # it would come by sooner or later; a GPU may not have room until then
    try:
        _attempt(hoard, first_stage(session), context_of(session))
    finally:
        gc.enable()
    assert left[0]() is None


def test_controls_go_first_and_a_run_that_has_begun_ends_before_the_next(session: Session) -> None:
    executor = Inside(session)
    runs = session.runs[::-1]
    tracks = executor.run(runs, quiet, quiet)
    assert {track.status for track in tracks} == {"done"}
    half, small, stacking = ([spec.id for spec, _ in run.predicted()] for run in session.runs)
    begun = [spec.id for spec in executor.begun]
    assert begun[: len(half)] == half
    assert begun == list(dict.fromkeys([*half, *small, *stacking]))


def test_an_attempt_that_failed_is_told_by_one_run_and_tried_again(session: Session) -> None:
    executor = Inside(session, "killed", retries=1)
    tracks = executor.run(session.runs, quiet, quiet)
    assert {track.status for track in tracks} == {"done"}
    assert [words for track in tracks for words in track.setbacks] == [
        "killed; trying again, 1 of 1"
    ]
    assert executor.begun[0] == executor.begun[1]


def test_when_no_attempt_is_left_the_run_has_failed_and_the_others_go_on(session: Session) -> None:
    executor = Inside(session, "killed", "killed again", retries=1)
    ended = list[Track]()
    tracks = executor.run(session.runs, quiet, ended.append)
    assert [track.status for track in tracks] == ["failed", "done", "done"]
    assert tracks[0].error == "killed again"
    assert sorted(map(id, ended)) == sorted(map(id, tracks))


class RaisesLater(GrowthSchedule):
    """Not when a suite is planned, as nothing is evaluated then."""

    @override
    def due(self, progress: Progress) -> bool:
        return sys.exit("no idea") if progress.history else progress.spent > 0.5


def test_a_schedule_that_raises_costs_its_own_runs_only(session: Session) -> None:
    Path("raises.yaml").write_text(RAISES)
    suite = replace(session.suite, methods=["scratch", "raises.yaml"])
    for _ in range(2):  # the second time what is finished is looked at, and planned again
        session = Session(suite)
        scratch, raises = Inside(session).run(session.runs, quiet, quiet)
        assert (scratch.status, raises.status) == ("done", "failed")
        assert raises.error is not None
        place = r"\(\S*test_scheduling\.py, line \d+\)"
        assert re.fullmatch(rf"method\.raises: it exits with code no idea {place}", raises.error)


def tell_gpu(spec: StageSpec, context: Context) -> StageResult:
    """Say in an error what the process sees."""
    raise ValueError(os.environ["CUDA_VISIBLE_DEVICES"])


def first_words(executor: LocalExecutor, n: int) -> list[str]:
    """The errors of so many stages."""
    until, errors = time.monotonic() + 60, list[str]()
    while len(errors) < n:
        assert time.monotonic() < until
        for _, message in executor.news(1.0):
            assert isinstance(message, Failure)
            errors.append(message.error)
    return errors


@pytest.mark.slow
def test_each_process_of_a_machine_with_gpus_sees_one_of_its_own(session: Session) -> None:
    executor = local(session, tell_gpu, gpus=["3", "5"])
    spec = first_stage(session)
    try:
        executor.begin(spec)
        executor.begin(spec)
        assert sorted(first_words(executor, 2)) == ["ValueError: 3", "ValueError: 5"]
    finally:
        executor.stop()


def leave(spec: StageSpec, context: Context) -> StageResult:
    """End the process, as a method may that thinks itself a script."""
    sys.exit(0)


@pytest.mark.slow
def test_a_method_that_exits_and_a_traceback_that_cannot_be_written_are_told(
    session: Session,
) -> None:
    executor = local(session, leave)
    session.cache.mkdir(exist_ok=True)
    (session.cache / "stages").write_text("not a folder")
    try:
        executor.begin(first_stage(session))
        assert first_words(executor, 1) == ["SystemExit: 0"]
    finally:
        executor.stop()


def look_around(spec: StageSpec, context: Context) -> StageResult:
    """Say in an error what the process has inherited."""
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    server = psutil.Process().parent()
    assert server is not None
    raise ValueError(
        f"{blocked} {server.num_threads()} {torch.cuda.is_initialized()} "
        f"{os.environ['SET_JUST_NOW']} {Path.cwd()}"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies of a server on Linux only")
def test_a_worker_is_a_copy_of_one_thread_that_used_no_gpu_and_hears_no_interrupt(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_JUST_NOW", "yes")
    executor = local(session, look_around)
    try:
        executor.begin(first_stage(session))
        assert first_words(executor, 1) == [f"ValueError: True 1 False yes {Path.cwd()}"]
    finally:
        executor.stop()
