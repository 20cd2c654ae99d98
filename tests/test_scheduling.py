"""Who goes next, who tries again, and where: the same for every executor."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from tiny_suite import prepare
from typing_extensions import override

from benchmark.base.errors import RecordError
from benchmark.executors.executor import Executor, Limits
from benchmark.executors.local import LocalExecutor
from benchmark.executors.track import Failure
from benchmark.executors.transfer import CHECKPOINT, RECORDS, pack, unpack
from benchmark.executors.worker import Worker
from benchmark.plan.config import load_suite
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.session.session import Session
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from tools.perf.stub_stage import sleep


@dataclass
class Here:
    """Executes stages in this process, when it is asked for news."""

    context: Context
    begun: list[StageSpec]
    is_ready: bool = True
    is_dead: bool = False
    spec: StageSpec | None = None
    stopped: list[bool] = field(default_factory=list)

    def begin(self, spec: StageSpec) -> None:
        """Take a stage."""
        self.spec = spec
        self.begun.append(spec)

    def news(self) -> Iterator[StageResult | Failure]:
        """Execute it."""
        if self.is_dead:
            yield Failure("failed", "no such place")
        elif self.spec is not None:
            yield sleep(self.spec, self.context)

    def stop(self) -> None:
        """Note that this was called."""
        self.stopped.append(True)


class Inside(Executor[Here]):
    """An executor without processes."""

    def __init__(self, context: Context, kinds: Sequence[Callable[..., Here]]) -> None:
        super().__init__(context)
        self.kinds, self.begun, self.hired = list(kinds), list[StageSpec](), list[Here]()

    @property
    @override
    def n_workers(self) -> int:
        return len(self.kinds)

    @override
    def hire(self) -> Here:
        kind = self.kinds[len(self.hired) % len(self.kinds)]
        self.hired.append(kind(self.context, self.begun))
        return self.hired[-1]

    @override
    def wait(self, seconds: float) -> list[Here]:
        return list(self.workers)


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


def test_controls_go_first_and_a_run_that_has_begun_ends_before_the_next(session: Session) -> None:
    executor = Inside(context_of(session), [Here])
    runs = session.runs[::-1]
    tracks = executor.run(runs, quiet, quiet)
    assert {track.status for track in tracks} == {"done"}
    half, small, stacking = ([spec.id for spec, _ in run.predicted()] for run in session.runs)
    begun = [spec.id for spec in executor.begun]
    assert begun[: len(half)] == half
    assert begun == list(dict.fromkeys([*half, *small, *stacking]))


def test_a_worker_that_is_still_coming_up_keeps_no_stage_waiting(session: Session) -> None:
    executor = Inside(context_of(session), [partial(Here, is_ready=False), Here])
    tracks = executor.run(session.runs, quiet, quiet)
    assert {track.status for track in tracks} == {"done"}
    late, ready = executor.hired
    assert not late.is_ready
    assert late.spec is None
    assert late.stopped == ready.stopped == [True]


def test_workers_that_only_ever_die_end_the_command_in_one_line(session: Session) -> None:
    executor = Inside(context_of(session), [partial(Here, is_ready=False, is_dead=True)])
    with pytest.raises(RecordError, match="before they are given anything to do: no such place"):
        executor.run(session.runs, quiet, quiet)


def tell_gpu(spec: StageSpec, context: Context) -> StageResult:
    """Say in an error what the process sees."""
    raise ValueError(os.environ["CUDA_VISIBLE_DEVICES"])


def last_word(worker: Worker) -> Failure:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for message in worker.news():
            assert isinstance(message, Failure)
            return message
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.slow
def test_each_process_of_a_machine_with_gpus_sees_one_of_its_own(session: Session) -> None:
    executor = LocalExecutor(context_of(session), 2, Limits(), gpus=["3", "5"], train=tell_gpu)
    spec = session.runs[0].next_stage([])
    assert spec is not None
    try:
        for gpu in ("3", "5"):
            executor.workers.append(executor.hire())
            executor.workers[-1].begin(spec)
            assert executor.workers[-1].gpu == gpu
        errors = [last_word(worker).error for worker in executor.workers]
        assert errors == ["ValueError: 3", "ValueError: 5"]
    finally:
        for worker in executor.workers:
            worker.stop()


def test_what_a_stage_leaves_travels_and_the_result_comes_last(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    folder = StageStore(there).folder("s")
    folder.mkdir(parents=True)
    for name in ("result.json", "events.jsonl", CHECKPOINT, "lock", "progress.safetensors"):
        (folder / name).write_text(name)
    files = pack(there, "s", (CHECKPOINT, *RECORDS))
    assert list(files) == [f"s/{name}" for name in (CHECKPOINT, "events.jsonl", "result.json")]
    unpack(here, files)
    arrived = {path.name: path.read_text() for path in StageStore(here).folder("s").iterdir()}
    assert arrived == {name: name for name in ("result.json", "events.jsonl", CHECKPOINT)}
