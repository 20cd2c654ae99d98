"""Two processes train what one does, and everything but training happens once."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_suite import finish, prepare

from benchmark.base.errors import ConfigError, RankError
from benchmark.data.stream import ByteStream
from benchmark.plan.config import load_suite
from benchmark.plan.run import Run
from benchmark.records.events import Event, read_events
from benchmark.session.session import Session
from benchmark.stage import ranks
from benchmark.stage.batches import Batches, Share
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick

pytestmark = pytest.mark.slow  # processes start

AT_HALF = "schedule: {args: {at: [0.5]}}\n"
OTHERWISE = {
    "msg": AT_HALF,
    "llama_pro_frozen": "ladder: {shrink: {n_layer: 2}}\n" + AT_HALF,
    "sparkling": AT_HALF,
}
"""What differs from the published recipe, so that growth is where the decay begins."""

METHODS = ["stacking", *OTHERWISE]
"""Plain copies, masks that open, parameters that rest, and new entries at a rate of their own."""

ROUNDED = {"loss", "bpb", "bpb_before", "bpb_after", "nats", "block_nats"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny suite and its letters; no process outlives the tests."""
    yield prepare(tmp_path_factory.mktemp("ddp"))
    ranks._team(2, "cpu").stop()
    ranks._team.cache_clear()


def run_of(folder: Path, method: str, devices: int, cache: str = "") -> tuple[Run, Context]:
    """A run that grows, if it does, where the decay begins; so it has two stages at most."""
    path = folder / f"{method}.yaml"
    if method[0].isupper():
        path.write_text(f"name: {method}\ntarget: 'greedy_methods:{method}'\nrole: control\n")
    elif method in OTHERWISE:
        path.write_text(f"name: {method}\ndefaults: {method}\n{OTHERWISE[method]}")
    else:
        path = Path(method)
    overrides = [
        f"methods=[{path}]",
        "protocol.cuts=[]",
        "protocol.rungs=[1.0]",
        "protocol.learning_rate.decay=0.5",
        f"run.devices={devices}",
        f"run.cache={folder / (cache or str(devices))}",
        f"workload.corpus.path={folder / 'letters.txt'}",
    ]
    session = Session(load_suite(str(folder / "tiny.yaml"), overrides))
    return session.runs[0], Context(corpus=session.suite.workload.corpus, cache=session.cache)


def trained(run: Run, context: Context) -> tuple[list[Event], dict[str, torch.Tensor]]:
    """Events and last checkpoint of a whole run."""
    store = StageStore(context.cache)
    folders = [store.folder(spec.id) for spec, _ in finish(run, context)]
    events = [event for folder in folders for event in read_events(folder / "events.jsonl")]
    return events, load_file(folders[-1] / "checkpoint.safetensors")


def losses(events: list[Event]) -> list[float]:
    return [event["loss"] for event in events if event["kind"] == "train"]


def timeless(event: Event) -> Event:
    return {key: value for key, value in event.items()
            if "seconds" not in key and key not in ("stage_id", "made_with")}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_what_one_does(folder: Path, method: str) -> None:
    (events, end), (parted, parted_end) = (
        trained(*run_of(folder, method, devices)) for devices in (1, 2)
    )
    kinds = [event["kind"] for event in parted]
    assert kinds == [event["kind"] for event in events]
    assert (kinds.count("growth"), kinds.count("final")) == (1, 2)
    assert kinds.count("charge") == kinds.count("stage") + 1 == 3
    assert len(losses(events)) > 20
    for one, two in zip(map(timeless, events), map(timeless, parted), strict=True):
        for key in one.keys() & ROUNDED:
            assert two[key] == pytest.approx(one[key], rel=1e-5), (one["kind"], key)
        exact = one.keys() - ROUNDED
        assert {key: two[key] for key in exact} == {key: one[key] for key in exact}
    made_with = [[event["made_with"] for event in found if event["kind"] == "provenance"]
                 for found in (events, parted)]  # fmt: skip
    assert [{entry["devices"] for entry in entries} for entries in made_with] == [{1}, {2}]
    for name, tensor in end.items():
        torch.testing.assert_close(parted_end[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_share_of_a_batch_is_a_function_of_cursor_and_rank() -> None:
    stream = ByteStream(text=torch.arange(200).byte(), seq_len=4, batch_size=8, seed=0)
    whole = [stream[step] for step in range(3)]
    for n_ranks, n_micro in ((1, 1), (2, 1), (1, 4), (2, 2), (8, 1)):
        shares = [Share(rank=rank, n_ranks=n_ranks, n_micro=n_micro) for rank in range(n_ranks)]
        parts = [list(Batches(stream, 3, share)) for share in shares]
        for step, batch in enumerate(whole):
            rows = torch.cat([part[step].flatten(0, 1) for part in parts])
            assert parts[0][step].shape[0] == n_micro
            assert torch.equal(rows, batch)


def killing(rank: int, after: int) -> Callable[[Tick], None]:
    """Kill a rank after so many signs of life."""
    left = iter(range(after))

    def tick(_: Tick) -> None:
        if next(left, None) is None and (pid := ranks._team(2, "cpu").ranks[rank].process.pid):
            os.kill(pid, signal.SIGKILL)

    return tick


def test_the_death_of_one_ends_all_and_leaves_no_trace(folder: Path) -> None:
    whole, end = trained(*run_of(folder, "stacking", 2))
    run, context = run_of(folder, "stacking", 2, "killed")
    context = replace(context, checkpoint_seconds=0.0)
    for rank, after in ((1, 3), (0, 5)):
        with pytest.raises(RankError, match=f"rank {rank}: its process was ended by SIGKILL"):
            finish(run, replace(context, on_tick=killing(rank, after)))
        assert len(list(context.cache.glob("stages/*/progress.safetensors"))) == 1
    resumed, resumed_end = trained(run, context)
    assert [timeless(event) for event in resumed] == [timeless(event) for event in whole]
    assert all(torch.equal(resumed_end[name], tensor) for name, tensor in end.items())


def test_memory_that_is_short_on_one_device_means_smaller_micro_batches_on_all(
    folder: Path,
) -> None:
    (events, _), (parted, _) = (
        trained(*run_of(folder, "GreedyOnSecondDevice", devices)) for devices in (1, 2)
    )
    stages = [event["step"] for event in parted if event["kind"] == "stage"]
    found = [event for event in parted if event["kind"] == "micro_batch"]
    assert [(e["n_micro"], e["n_windows"], e["step"]) for e in found] == [(2, 1, n) for n in stages]
    assert losses(parted) == pytest.approx(losses(events), rel=1e-5)


def test_a_failure_names_the_rank_and_what_it_said(folder: Path) -> None:
    with pytest.raises(RankError, match="rank 1: ValueError: a mistake of the method"):
        finish(*run_of(folder, "Clumsy", 2))


def test_a_batch_that_cannot_be_shared_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.devices must divide workload.batch_size=4, got 3"):
        run_of(folder, "scratch", 3)
