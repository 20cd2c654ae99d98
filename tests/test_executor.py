"""A worker that dies, hangs or runs out of memory costs its own stage, and nobody else's."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_suite import STACKING, prepare

from benchmark.executors.local import LocalExecutor
from benchmark.executors.track import Track
from benchmark.plan.config import ExecutionConfig, load_suite
from benchmark.records.folder import RunRecord
from benchmark.records.folder import load_suite as load_records
from benchmark.report.files import write as write_report
from benchmark.session.session import Session
from benchmark.stage.context import Context

MODULE = '''
"""Methods that end their process, keep it for ever, or want more memory than there is."""

import os
import signal
import time
from pathlib import Path

import torch

from baselines.stacking import RepeatBlocks, Stacking


def wait_for(name):
    until = time.monotonic() + 60
    while not Path(name).exists():
        assert time.monotonic() < until, name
        time.sleep(0.01)


class _Acts(RepeatBlocks):
    def adapt(self, weight, axes):
        self.act()
        return weight


class _Kill(_Acts):
    def act(self):
        wait_for("bystander")
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


class _StandBy(_Acts):
    def act(self):
        Path("bystander").touch()
        wait_for("killed")
        time.sleep(0.01)


class _KillOnce(_Acts):
    def act(self):
        if not Path("once").exists():
            Path("once").touch()
            os.kill(os.getpid(), signal.SIGKILL)


class _Sleep(_Acts):
    def act(self):
        time.sleep(600)


class _Hoard(_Acts):
    def act(self):
        torch.empty(2**60, dtype=torch.uint8)


class _Exhaust(_Acts):
    def act(self):
        raise torch.OutOfMemoryError("CUDA out of memory")


def _method(operator):
    class Method(Stacking):
        """Grow n_layer."""

        def __init__(self):
            super().__init__()
            self.operators = (operator(),)

    return Method


Kills, StandsBy, KillsOnce = map(_method, (_Kill, _StandBy, _KillOnce))
Sleeps, Hoards, Exhausts = map(_method, (_Sleep, _Hoard, _Exhaust))
for _name in ("Kills", "StandsBy", "KillsOnce", "Sleeps", "Hoards", "Exhausts"):
    globals()[_name].__qualname__ = _name
'''
pytestmark = pytest.mark.slow  # every test starts processes

METHOD = """
name: {name}
target: "deadly:{name}"
ladder: {{shrink: {{n_layer: 2}}, n_growths: 1}}
schedule: {{target: "benchmark.growth.schedule:AtFractions", args: {{at: [{at}]}}}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tiny suite and the methods above."""
    monkeypatch.chdir(prepare(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deadly.py").write_text(MODULE)
    return tmp_path


def session_of(methods: Sequence[str], *settings: str, at: float = 0.3) -> Session:
    """The tiny suite with methods of the module above, or with named ones."""
    names = []
    for name in methods:
        if name[0].isupper():
            Path(f"{name}.yaml").write_text(METHOD.format(name=name, at=at))
            name = f"{name}.yaml"  # noqa: PLW2901 - a file instead of a name
        names.append(name)
    return Session(load_suite("tiny.yaml", [f"methods=[{','.join(names)}]", *settings]))


def outcome(tracks: Sequence[Track]) -> dict[str, str]:
    return {track.run.method.name: track.status for track in tracks}


def quiet(_: object) -> None:
    """Nobody looks."""


def records() -> dict[str, RunRecord]:
    return {run.method: run for run in load_records(Path("results/local/tiny")).runs}


@pytest.mark.usefixtures("here")
def test_a_process_that_dies_takes_no_other_stage_along() -> None:
    tracks = session_of(["Kills", "StandsBy"], "run.workers=2").execute(quiet)
    assert outcome(tracks) == {"Kills": "failed", "StandsBy": "done"}
    end = records()["Kills"].events[-1]
    assert "SIGKILL" in end["error"]


@pytest.mark.usefixtures("here")
def test_a_stage_whose_process_died_is_tried_again() -> None:
    session = session_of(["KillsOnce"])
    context = Context(corpus=session.suite.workload.corpus, cache=session.cache)
    executor = LocalExecutor(context, ExecutionConfig(retries=1), workers=1)
    (track,) = executor.run(session.runs, quiet, quiet)
    assert track.status == "done"
    assert track.setbacks == [
        "its process was ended by SIGKILL, as systems do that run out of memory; trying again, "
        "1 of 1"
    ]


@pytest.mark.usefixtures("here")
def test_a_run_that_hangs_or_wants_too_much_memory_is_a_row_and_the_others_go_on() -> None:
    names = ["scratch", "Sleeps", "Hoards", "Exhausts"]
    session = session_of(names, "run.workers=2", "run.timeout_seconds=8")
    expected = {
        "scratch": "done", "Sleeps": "timeout", "Hoards": "out of memory",
        "Exhausts": "out of memory",
    }  # fmt: skip
    assert outcome(session.execute(quiet)) == expected
    runs = records()
    assert {name: run.status for name, run in runs.items()} == expected
    assert runs["Sleeps"].events[-1]["error"] == "the stage took longer than 8 seconds"
    write_report(session.results)
    report = (session.results / "report.md").read_text()
    assert all(status in report for status in expected.values())


@pytest.mark.usefixtures("here")
def test_without_room_for_checkpoints_only_those_that_are_needed_stay() -> None:
    whole = session_of(["scratch", "stacking"], "run.cache=whole", "run.results=whole")
    tight = session_of(["scratch", "stacking"], "run.cache_gigabytes=0")
    for session in (whole, tight):
        assert set(outcome(session.execute(quiet)).values()) == {"done"}
    assert len(list(whole.cache.glob("stages/*/checkpoint.safetensors"))) > 3
    assert not list(tight.cache.glob("stages/*/checkpoint.safetensors"))
    stages = list(tight.cache.glob("stages/*"))
    assert all((stage / name).is_file() for stage in stages for name in ("events.jsonl",
               "result.json", "spec.json"))  # fmt: skip
    ends = {name: run.of("final")[-1]["bpb"] for name, run in records().items()}
    others = load_records(Path("whole/tiny")).runs
    assert ends == {run.method: run.of("final")[-1]["bpb"] for run in others}


@pytest.mark.usefixtures("here")
def test_a_later_run_trains_again_what_it_needs_and_has_been_deleted() -> None:
    text = STACKING.replace("name: stacking", "name: stacking_interleaved")
    Path("stacking_interleaved.yaml").write_text(f"{text}args: {{order: interleaved}}\n")
    first = session_of(["scratch", "stacking"], "run.cache_gigabytes=0")
    first.execute(quiet)
    before = {path: path.read_bytes() for path in first.cache.glob("stages/*/events.jsonl")}
    again = session_of(["scratch", "stacking", "stacking_interleaved"])
    n_known = len(again.runs[-1].predicted())
    assert set(outcome(again.execute(quiet)).values()) == {"done"}
    assert all(path.read_bytes() == content for path, content in before.items())
    added = set(again.cache.glob("stages/*/events.jsonl")) - before.keys()
    assert 0 < len(added) < n_known
    run = records()["stacking_interleaved"]
    seconds = [event["seconds"] for event in run.events if "step" in event]
    assert seconds == sorted(seconds)
    assert sum(e["seconds"] for e in run.of("charge")) == pytest.approx(seconds[-1])
