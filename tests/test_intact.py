"""What runs is what was hashed, and a method leaves the process as it was for the next one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from careless_methods import CARELESS
from tiny_suite import finish, prepare, run_of

from benchmark.base.errors import ChangedError, MethodError
from benchmark.executors.track import Failure
from benchmark.executors.worker import Worker
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult
from benchmark.records.events import Event
from benchmark.records.folder import load_suite
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.stage.execute import execute
from benchmark.stage.process import ProcessState

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = "{name: it, defaults: scratch}"
MINE = """
name: mine
target: my_stacking:Mine
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.5]}}
"""
MODULE = '''
"""Stacking."""

from baselines.stacking import Stacking


class Mine(Stacking):
    """Grow n_layer."""

    scale = 1
'''


# What runs is what was hashed


def kept(context: Context) -> list[str]:
    """Results and states in the cache."""
    return [p.name for p in sorted(context.cache.glob("stages/*/*")) if p.suffix == ".safetensors"
            or p.name == "result.json"]  # fmt: skip


def test_a_corpus_that_is_replaced_between_plan_and_run_is_named(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, SCRATCH)
    path = Path(context.corpus.path)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ChangedError, match="text of corpus letters has changed since the run was"):
        finish(run, context)
    assert kept(context) == []


@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_corpus_that_is_replaced_in_the_middle_of_a_stage_leaves_nothing_behind(
    tmp_path: Path, is_in_place: bool
) -> None:
    """Other text of equal length; then the old text again, which comes to what it always did."""
    whole = finish(*run_of(tmp_path / "whole", SCRATCH))
    run, context = run_of(tmp_path / "broken", SCRATCH)
    path = Path(context.corpus.path)
    text, ticks = path.read_bytes(), iter(range(3))

    def replace_text(_: object) -> None:
        if next(ticks, None) is None:
            new = path if is_in_place else path.with_name("new")
            new.write_bytes(text[::-1])
            new.replace(path)

    with pytest.raises(ChangedError, match=r"letters.txt has changed while it was in use"):
        finish(run, replace(context, checkpoint_seconds=0.0, on_tick=replace_text))
    done = StageStore(context.cache).finished(run)
    broken = run.next_stage(done)
    assert broken is not None
    left = [path.name for path in StageStore(context.cache).folder(broken.id).iterdir()]
    assert not {"result.json", "checkpoint.safetensors", "events.jsonl"} & set(left)
    path.write_bytes(text)
    again = finish(run, context)
    assert [result.points for _, result in again] == [result.points for _, result in whole]


def test_a_corpus_is_hashed_once_per_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, context = run_of(tmp_path, SCRATCH)
    opened = list[str]()
    monkeypatch.setattr("benchmark.data.corpora.hashlib.file_digest", opened.append)
    assert len(finish(run, context)) > 1
    assert opened == []


def test_other_code_of_the_harness_is_named(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, SCRATCH)
    spec = run.next_stage([])
    assert spec is not None
    with pytest.raises(ChangedError, match="growbench's own code has changed since the run was"):
        execute(replace(spec, code="0" * 16), context)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with a method of its own."""
    path = tmp_path / "my_stacking.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop("my_stacking", None)


def outcome(context: Context, run: Run) -> StageResult | Failure:
    """What a process of its own makes of a run's stages: the last."""
    worker = Worker(execute)
    done = [(spec, execute(spec, context)) for spec in [run.next_stage([])] if spec]
    try:
        while (spec := run.next_stage(done)) is not None:
            worker.begin(spec, context)
            while not (said := [m for m in worker.news() if isinstance(m, StageResult | Failure)]):
                time.sleep(0.01)
            if isinstance(said[0], Failure):
                return said[0]
            done.append((spec, said[0]))
    finally:
        worker.stop()
    return done[-1][1]


@pytest.mark.slow
def test_a_method_that_is_edited_after_the_first_stage_fails_where_the_new_code_is_loaded(
    tmp_path: Path, mine: Path
) -> None:
    run, context = run_of(tmp_path / "run", MINE, "protocol.rungs=[1.0]")
    mine.write_text(MODULE.replace("scale = 1", "scale = 2"))
    failure = outcome(context, run)
    assert failure == Failure(
        "failed",
        "ChangedError: the code of my_stacking:Mine, or of what it imports, has changed since the "
        "run was planned; run again",
    )
    assert finish(run, context)[-1][1].status == "done", "this process has loaded the old code"


@pytest.mark.slow
def test_a_method_whose_description_is_edited_goes_on(tmp_path: Path, mine: Path) -> None:
    run, context = run_of(tmp_path / "run", MINE, "protocol.rungs=[1.0]")
    mine.write_text(MODULE.replace("Stacking.", "Stacking, as others know it."))
    said = outcome(context, run)
    assert said.status == "done"


# A method leaves the process as it was


@pytest.mark.parametrize("what", CARELESS)
def test_a_method_that_leaves_something_changed_fails_and_is_named(
    tmp_path: Path, what: str
) -> None:
    run, context = run_of(tmp_path, careless(what))
    before = ProcessState()
    with pytest.raises(MethodError, match=f"careless_methods:Careless has changed {what}") as error:
        finish(run, context)
    assert "\n" not in str(error.value)
    before.check("the culprit")
    assert len(list(context.cache.glob("stages/*/result.json"))) == 1, "that before the growth"
    with pytest.raises(MethodError):
        finish(run, context)


def careless(what: str, name: str = "it") -> str:
    return f"""
name: {name}
target: careless_methods:Careless
args: {{what: "{what}"}}
ladder: {{shrink: {{n_layer: 2}}, n_growths: 1}}
schedule: {{target: "benchmark.schedule:AtFractions", args: {{at: [0.05]}}}}
"""


def test_a_method_that_puts_back_what_it_changes_passes(tmp_path: Path) -> None:
    assert finish(*run_of(tmp_path, careless("nothing")))[-1][1].status == "done"


def test_a_method_that_raises_leaves_the_process_as_it_was_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        finish(*run_of(tmp_path, careless("and raises")))
    assert torch.get_default_dtype() == torch.float32


def records(folder: Path, *methods: str) -> dict[str, list[Event]]:
    """What a suite of one worker records, by method, without what a clock says."""
    prepare(folder)
    (folder / "careless.yaml").write_text(careless("torch's default dtype", "careless"))
    command = ["run", "tiny.yaml", f"methods=[{','.join(methods)}]"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run(
        [sys.executable, "-m", "benchmark", *command],
        cwd=folder, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, check=False,
    )  # fmt: skip
    return {
        run.method: [
            {k: v for k, v in event.items() if "seconds" not in k and k != "peak_memory_bytes"}
            for event in run.events
        ]
        for run in load_suite(folder / "results/local/tiny").runs
    }


@pytest.mark.slow
def test_a_careless_method_moves_no_number_of_another(tmp_path: Path) -> None:
    """It grows early, so that the same worker trains others after it."""
    others = ["scratch", "identity_depth"]
    alone = records(tmp_path / "alone", *others)
    beside = records(tmp_path / "beside", "careless.yaml", *others)
    assert beside["careless"][-1]["error"].startswith(
        "MethodError: careless_methods:Careless has changed torch's default dtype (torch.float32 "
        "to torch.float64), which other methods share"
    )
    assert {name: beside[name] for name in others} == alone
    assert [events[-1]["status"] for events in alone.values()] == ["done"] * 2
