"""The reporting card says everything, and a card with a gap fails the run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import finish, prepare

from benchmark.base.errors import RecordError
from benchmark.executors.track import Failure, Track
from benchmark.plan.config import load_suite
from benchmark.records.card import NONE, NOT_REACHED, Card, card
from benchmark.records.folder import RunRecord, load_run
from benchmark.session.session import Session
from benchmark.stage.context import Context

pytestmark = pytest.mark.slow  # whichever test is first trains a suite


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = prepare(tmp_path_factory.mktemp("card"))
    overrides = [
        f"run.cache={folder / 'cache'}",
        f"run.results={folder / 'results'}",
        f"workload.corpus.path={folder / 'letters.txt'}",
    ]
    return Session(load_suite(str(folder / "tiny.yaml"), overrides))


@pytest.fixture(scope="module")
def tracks(session: Session) -> dict[str, Track]:
    """Both runs of the tiny suite, trained."""
    context = Context(corpus=session.suite.workload.corpus, cache=session.cache)
    return {run.method.name: Track(run, finish(run, context)) for run in session.runs}


@pytest.fixture(scope="module")
def records(session: Session, tracks: dict[str, Track]) -> dict[str, RunRecord]:
    for track in tracks.values():
        session.recorder.write_run(track)
    return {name: load_run(session.results, track.run.id) for name, track in tracks.items()}


def test_a_card_says_what_was_grown_and_what_it_cost(records: dict[str, RunRecord]) -> None:
    record = records["stacking"]
    found = card(record)
    (growth,) = found["growth"]["events"]
    (event,) = record.of("growth")
    assert (growth["bpb_before"], growth["bpb_after"]) == (event["bpb_before"], event["bpb_after"])
    assert growth["from"]["n_layer"] == found["model"]["sizes_at_start"]["n_layer"] == 1
    assert growth["to"]["n_layer"] == found["model"]["sizes_at_end"]["n_layer"] == 2
    assert sum(found["model"]["parameters_by_tensor"].values()) == found["model"]["parameters"]
    stages = found["compute"]["stages"]
    assert {stage["what"] for stage in stages} == {"train", "growth"}
    assert sum(stage["flops"] for stage in stages) == found["compute"]["flops"]
    assert found["compute"]["flops"] <= found["compute"]["budget_flops"]
    assert found["compute"]["flops_unmasked"] > found["compute"]["flops"]
    assert found["data"]["epochs"] == found["data"]["tokens"] / found["data"]["train_bytes"]


def test_what_does_not_apply_is_said_not_left_out(records: dict[str, RunRecord]) -> None:
    found = card(records["scratch"])
    assert set(found["growth"].values()) == {NONE}
    assert found["model"]["frozen"] == found["run"]["error"] == NONE
    assert found.keys() == card(records["stacking"]).keys()


def without(kind: str, field: str) -> Callable[[RunRecord], RunRecord]:
    def change(record: RunRecord) -> RunRecord:
        return replace(record, events=tuple(
            {k: v for k, v in event.items() if k != field} if event["kind"] == kind else event
            for event in record.events
        ))  # fmt: skip

    return change


GAPS = {
    "data.sha256": without("run", "corpus_sha256"),
    "data.train_bytes": without("run", "train_bytes"),
    "model.parameters_by_tensor": without("stage", "n_params_by_group"),
    "model.frozen": without("stage", "frozen"),
    "growth.events": without("growth", "bpb_after"),
    "compute.stages": without("charge", "what"),
    "time and memory.peak_memory_bytes": without("end", "peak_memory_bytes"),
}


@pytest.mark.parametrize("field", GAPS)
def test_a_gap_is_named(records: dict[str, RunRecord], field: str) -> None:
    record = GAPS[field](records["stacking"])
    with pytest.raises(RecordError, match=f"{record.run_id}: reporting card: {field} is empty"):
        card(record)


def test_a_trial_has_no_test_score_and_a_final_run_must(records: dict[str, RunRecord]) -> None:
    record = records["scratch"]
    kept = [e for e in record.events if e["kind"] != "final" or e["split"] != "test"]
    unscored = replace(record, events=tuple(kept))
    method = {**record.config["method"], "trial": 0}
    trial = replace(unscored, config={**record.config, "method": method})
    assert card(trial)["result"]["test_bpb"] == NONE
    with pytest.raises(RecordError, match=r"result\.test_bpb is empty"):
        card(unscored)


def test_a_run_that_failed_says_what_it_has_and_what_it_did_not_reach(
    session: Session, tracks: dict[str, Track]
) -> None:
    track = tracks["stacking"]
    broken = Track(track.run, track.done[:1], waiting_for=track.done[1][0])
    broken.fail(Failure("timeout", "the stage took too long"))
    found: Card = card(session.recorder.record(broken))
    assert found["run"]["status"] == "timeout"
    assert found["result"]["test_bpb"] == found["growth"]["events"] == NOT_REACHED
    assert found["model"]["sizes_at_end"]["n_layer"] == 1
    nothing = Track(track.run, waiting_for=track.done[0][0])
    nothing.fail(Failure("failed", "at once"))
    found = card(session.recorder.record(nothing))
    assert found["model"]["parameters"] == NOT_REACHED
    assert found["compute"]["stages"] == NOT_REACHED


def test_a_run_whose_card_has_a_gap_is_recorded_as_failed(
    session: Session, tracks: dict[str, Track], records: dict[str, RunRecord], tmp_path: Path
) -> None:
    track = Track(tracks["scratch"].run, list(tracks["scratch"].done))
    log = session.cache / "stages" / track.done[-1][0].id / "events.jsonl"
    whole = log.read_text()
    log.write_text(whole.replace('"n_params_by_group"', '"n_params_by_something"'))
    try:
        replace(session.recorder, results=tmp_path).write_run(track)
    finally:
        log.write_text(whole)
    end = load_run(tmp_path, track.run.id).events[-1]
    assert end["status"] == track.status == "failed"
    assert end["error"].endswith("reporting card: model.parameters_by_tensor is empty")
    assert records["scratch"].status == "done"
