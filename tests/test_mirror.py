"""TensorBoard shows every run's records once, while it trains; the records are what they were."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="TensorBoard is in growbench[tensorboard], not here")
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_suite import finish, prepare

from benchmark.base.errors import ConfigError
from benchmark.executors.track import Track
from benchmark.plan.config import Logger, load_suite
from benchmark.records.events import Event, read_events
from benchmark.records.folder import load_suite as load_suite_records
from benchmark.session.mirror import Mirror
from benchmark.session.session import Session
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

CURVES = {"train/nats_per_byte": ("train", "loss"), "train/learning_rate": ("train", "lr"),
          "held_out/bpb": ("evaluation", "bpb"), "final/test_bpb": ("final", "bpb")}  # fmt: skip


class Interrupted(Exception):  # noqa: N818 - not an error
    """Stands for a kill."""


def interrupt(_: Tick) -> None:
    raise Interrupted


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(prepare(tmp_path))
    return Session(load_suite("tiny.yaml", ["methods=[stacking]"]))


@pytest.fixture
def context(session: Session) -> Context:
    return Context(corpus=session.suite.workload.corpus, cache=session.cache)


@pytest.fixture
def mirror(session: Session) -> Iterator[Mirror]:
    made = Mirror("tensorboard", session.cache / "logs" / "tiny", StageStore(session.cache))
    yield made
    made.close()


def shown(session: Session) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(session.cache / "logs/tiny/stacking/0"), size_guidance={"scalars": 0, "tensors": 0}
    )
    return accumulator.Reload()


def recorded(session: Session, track: Track) -> list[Event]:
    store = StageStore(session.cache)
    folders = [store.folder(spec.id) for spec, _ in track.done]
    return [event for folder in folders for event in read_events(folder / "events.jsonl")]


def test_a_run_is_shown_once_from_its_first_record_to_its_last(
    session: Session, context: Context, mirror: Mirror
) -> None:
    """Also if it is watched in the middle of a stage, and goes on from before that."""
    (run,) = session.runs
    first = run.next_stage([])
    assert first is not None
    waiting = Track(run, waiting_for=first)
    mirror.update([waiting])
    assert not (session.cache / "logs").exists()
    with pytest.raises(Interrupted):
        execute(first, replace(context, on_tick=interrupt))
    waiting.tick = Tick(first.id, waiting.position, None)
    mirror.update([waiting])
    assert len(mirror.copies) == 1
    track = Track(run, finish(run, context))
    mirror.update([track])
    mirror.update([track])
    assert not mirror.copies
    events, board = recorded(session, track), shown(session)
    for name, (kind, field) in CURVES.items():
        expected = [
            (round(event["flops"]), pytest.approx(event[field], rel=1e-6))
            for event in events
            if event["kind"] == kind and event.get("split", "curve") in ("curve", "test")
        ]
        assert [(point.step, point.value) for point in board.Scalars(name)] == expected, name
    (growth,) = [event for event in events if event["kind"] == "growth"]
    for name in ("bpb_before", "bpb_after", "n_params_to"):
        (point,) = board.Scalars(f"growth/{name}")
        assert (point.step, point.value) == (
            round(growth["flops"]), pytest.approx(growth[name], rel=1e-6)
        )  # fmt: skip


def test_a_later_command_writes_the_copy_anew(session: Session, context: Context) -> None:
    (run,) = session.runs
    track = Track(run, finish(run, context))
    for _ in range(2):
        mirror = Mirror("tensorboard", session.cache / "logs" / "tiny", StageStore(session.cache))
        mirror.update([track])
    steps = [point.step for point in shown(session).Scalars("held_out/bpb")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_named_before_anything_trains(
    session: Session, monkeypatch: pytest.MonkeyPatch, logger: Logger
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    session.suite = replace(session.suite, run=replace(session.suite.run, logger=logger))
    with pytest.raises(ConfigError, match=rf"pip install 'growbench\[{logger}\]'"):
        session.execute(lambda _: None)
    assert not session.results.exists()


@pytest.mark.parametrize("fault", ["log_metrics", "finalize", "__init__"])
def test_a_logger_that_fails_is_named_once(
    session: Session,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    def fail(board: TensorBoardLogger, *_: object, **__: object) -> None:
        if getattr(board, "_experiment", None) is not None:
            board.experiment.close()  # and with it its thread
        raise ConnectionError("no route\nto host")

    (run,) = session.runs
    monkeypatch.setattr(TensorBoardLogger, fault, fail)
    mirror = Mirror("tensorboard", session.cache / "logs", StageStore(session.cache))
    track = Track(run, finish(run, context))
    for _ in range(2):
        mirror.update([track])
    mirror.close()
    assert capsys.readouterr().err == (
        "growbench: run.logger=tensorboard fails and copies nothing more, the records go on: "
        "ConnectionError: no route to host\n"
    )


@pytest.mark.slow
def test_training_goes_on_without_a_logger_that_fails(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.suite = replace(session.suite, run=replace(session.suite.run, logger="tensorboard"))
    session.cache.mkdir()
    (session.cache / "logs").write_text("a file where TensorBoard wants its folder")
    (track,) = session.execute(lambda _: None)
    assert track.status == "done"
    assert load_suite_records(session.results).runs[0].status == "done"
    assert capsys.readouterr().err.count("growbench: run.logger=tensorboard fails") == 1


@pytest.mark.slow
def test_a_session_shows_its_runs_if_it_is_told_to(session: Session) -> None:
    session.suite = replace(session.suite, run=replace(session.suite.run, logger="tensorboard"))
    (track,) = session.execute(lambda _: None)
    found = [point.value for point in shown(session).Scalars("final/test_bpb")]
    (final,) = [event["bpb"] for event in recorded(session, track)
                if event["kind"] == "final" and event["split"] == "test"]  # fmt: skip
    assert found == [pytest.approx(final, rel=1e-6)]
    session.execute(lambda _: None)  # nothing is left to train
    assert [point.value for point in shown(session).Scalars("final/test_bpb")] == found
