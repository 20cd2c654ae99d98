"""A stage trains what its spec says, records it, and forgets every interruption."""

import gc
import hashlib
import json
import math
import os
import random
import resource
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tiny_suite import Interrupted, killed_after
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import DataError, RecordError
from benchmark.base.plugins import PluginConfig
from benchmark.base.seeding import generator
from benchmark.data.corpora import CorpusConfig, Splits, load
from benchmark.data.stream import ByteStream
from benchmark.executors import worker
from benchmark.executors.track import Failure
from benchmark.growth.depth import DepthOperator
from benchmark.growth.operator import is_residual_write
from benchmark.growth.schedule import Ladder
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import Axes, ModelConfig, Transformer
from benchmark.plan.config import (
    ExecutionConfig,
    MethodConfig,
    ProtocolConfig,
    SuiteConfig,
    WorkloadConfig,
)
from benchmark.plan.run import Run
from benchmark.plan.spec import USABLE, StageResult, StageSpec
from benchmark.records.events import Event, read_events
from benchmark.stage import meter, recorder
from benchmark.stage.checkpoint import StageStore, load_state, save_state, write_packed
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute
from benchmark.training import memory
from benchmark.training.baseline import Baseline
from benchmark.training.evaluate import score
from benchmark.training.memory import PeakMemory
from benchmark.training.optim import LearningRateConfig, OptimizerConfig, Rewarm

TARGET = ModelConfig(d_model=8, n_layer=2, n_head=2, d_head=4, d_ff=16, seq_len=8)
BATCH = 4
STEP = BATCH * TARGET.seq_len * training_flops_per_token(Transformer.shell(TARGET))
BUDGET = 30.5 * STEP


@dataclass(frozen=True)
class Insert(DepthOperator):
    """A copy whose residual writes are zero, after each old block."""

    copies_moments = False
    preserves_function = True

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer * n_small // n_large

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return torch.zeros_like(weight) if is_residual_write(axes) else weight


class Deeper(Baseline):
    """Grow n_layer by blocks that start as identities."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (Insert(),)


class Following(Deeper):
    """Keeps the positions at which it is asked to adapt its model."""

    asked: ClassVar[list[float]] = []

    @override
    def on_progress(self, since_growth: float) -> None:
        self.asked.append(since_growth)


class Fixed(Baseline):
    """Never grow."""


class Watched(Transformer):
    """Keeps what it is trained on."""

    seen: ClassVar[list[Tensor]] = []

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training:
            self.seen.append(ids_BT.clone())
        return super().forward(ids_BT)


class WatchedDeeper(Deeper):
    """Grow in sight."""

    model_class = Watched


class WatchedFixed(Fixed):
    """Do not grow, in sight."""

    model_class = Watched


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusConfig:
    """Ten kilobytes of words in random order."""
    words, order = ["growth ", "of ", "small ", "models\n", "a "], random.Random(0)
    path = tmp_path / "text"
    path.write_text("".join(order.choices(words, k=2000)))
    return CorpusConfig(
        name="words", kind="file", source="this test", licence="CC0-1.0", path=str(path),
        splits=Splits(val_start=0.9, test_start=0.95),
    )  # fmt: skip


@pytest.fixture
def context(tmp_path: Path, corpus: CorpusConfig) -> Context:
    return Context(corpus=corpus, cache=tmp_path / "cache")


def protocol(**changes: Any) -> ProtocolConfig:  # noqa: ANN401 - any field
    defaults = ProtocolConfig(
        budget_flops=BUDGET, rungs=[1.0], n_evaluations=4, curve_bytes=200, block_bytes=100,
        learning_rate=LearningRateConfig(peak=1e-2, warmup=0.1, decay=0.2),
    )  # fmt: skip
    return replace(defaults, **changes)


def run_of(
    corpus: CorpusConfig, target: str, seed: int = 0, at: tuple[float, ...] = (0.5,),
    protocol: ProtocolConfig = protocol(), **method: Any,  # noqa: ANN401, B008 - frozen
) -> Run:  # fmt: skip
    """A run of a class of this module; it grows from one block to two unless `at` is empty."""
    schedule = PluginConfig(target="benchmark.growth.schedule:AtFractions", args={"at": list(at)})
    ladder = Ladder(shrink={"n_layer": 2.0}, n_growths=len(at)) if at else Ladder(n_growths=0)
    defaults = {"ladder": ladder, "schedule": schedule if at else None}
    config = MethodConfig(name="method", target=f"{__name__}:{target}", **defaults | method)
    suite = SuiteConfig(
        name="test", version="1", protocol=protocol,
        workload=WorkloadConfig(corpus=corpus, target=TARGET, batch_size=BATCH),
        run=ExecutionConfig(device="cpu"),
    )  # fmt: skip
    sha256 = hashlib.sha256(Path(corpus.path).read_bytes()).hexdigest()
    return Run(suite, config, seed, {"corpus": corpus.name, "sha256": sha256})


Done = list[tuple[StageSpec, StageResult]]


def finish(run: Run, context: Context) -> Done:
    """Execute every stage that is left."""
    done: Done = []
    while (spec := run.next_stage(done)) is not None:
        done.append((spec, execute(spec, context)))
        if done[-1][1].status != "done":
            break
    return done


def events_of(done: Done, context: Context) -> list[Event]:
    store = StageStore(context.cache)
    return [e for spec, _ in done for e in read_events(store.folder(spec.id) / "events.jsonl")]


def of_kind(kind: str, done: Done, context: Context) -> list[Event]:
    return [event for event in events_of(done, context) if event["kind"] == kind]


def tensors_of(done: Done, context: Context) -> dict[str, Tensor]:
    """Weights, moments and masks at the end of a run."""
    folder = StageStore(context.cache).folder(done[-1][0].id)
    return load_file(folder / "checkpoint.safetensors")


def timeless(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A record without its wall-clock times and without what names the stage."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k != "stage_id"}
    return value


def assert_same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_a_grown_run_learns_and_ends_at_the_target_and_the_budget(
    corpus: CorpusConfig, context: Context
) -> None:
    done = finish(run_of(corpus, "Deeper"), context)
    assert [(spec.n_grown, result.status) for spec, result in done] == [
        (0, "done"), (1, "done"), (1, "done"),
    ]  # fmt: skip
    end = done[-1][1].end
    assert BUDGET - STEP < end.flops <= BUDGET
    assert end.tokens == end.window * TARGET.seq_len == end.step * BATCH * TARGET.seq_len
    curve = [event["bpb"] for event in of_kind("evaluation", done, context)]
    assert curve[-1] < curve[0] < 8
    state = load_state(
        StageStore(context.cache).folder(done[-1][0].id) / "checkpoint.safetensors",
        Transformer, "cpu",
    )  # fmt: skip
    assert state.model.config == TARGET
    assert state.position == end


def test_final_scores_are_the_evaluator_s_on_the_whole_splits(
    corpus: CorpusConfig, context: Context
) -> None:
    done = finish(run_of(corpus, "Deeper"), context)
    folder = StageStore(context.cache).folder(done[-1][0].id)
    model = load_state(folder / "checkpoint.safetensors", Transformer, "cpu").model
    text = load(corpus, context.cache)
    val, test = of_kind("final", done, context)
    for event, split in ((val, text.val), (test, text.test)):
        expected = score(model, split, 7)
        assert event["bpb"] == pytest.approx(expected.bits_per_byte, rel=1e-6)
        assert sum(event["block_bytes"]) == len(split)
        assert math.fsum(event["block_nats"]) == pytest.approx(float(expected.nats.sum()), rel=1e-6)
    assert (val["split"], test["split"]) == ("val", "test")
    last = of_kind("evaluation", done, context)[-1]
    assert last["n_bytes"] == 200
    slice_of_val = score(model, text.val[:200], 7)
    assert last["bpb"] == pytest.approx(slice_of_val.bits_per_byte, rel=1e-6)


WHERE = {"v", "kind", "step", "tokens", "flops", "seconds"}
SCHEMA = {
    "stage": WHERE | {"stage_id", "sizes", "n_params", "n_params_nonembedding", "flops_per_token",
                      "flops_per_token_unmasked", "n_steps", "n_params_by_group"},
    "train": WHERE | {"loss", "lr"},
    "evaluation": WHERE | {"split", "bpb", "nats", "n_bytes", "eval_seconds"},
    "growth": WHERE | {"operator", "from", "to", "n_params_from", "n_params_to", "bpb_before",
                       "bpb_after", "growth_flops", "growth_tokens", "growth_seconds",
                       "state_policy"},
    "charge": {"v", "kind", "stage_id", "what", "flops", "flops_unmasked", "tokens", "steps",
               "seconds"},
    "final": WHERE | {"split", "bpb", "block_bytes", "block_nats", "eval_seconds"},
    "provenance": {"v", "kind", "stage_id", "made_with"},
}  # fmt: skip


def test_every_record_has_the_fields_that_reports_read(
    corpus: CorpusConfig, context: Context
) -> None:
    events = events_of(finish(run_of(corpus, "Deeper"), context), context)
    assert {event["kind"] for event in events} == SCHEMA.keys()
    for event in events:
        missing = SCHEMA[event["kind"]] - event.keys()
        assert not missing, f"{event['kind']} lacks {missing}"
        assert event["v"] == 1
    json.dumps(events, allow_nan=False)


def test_positions_never_go_back_and_charges_add_up(corpus: CorpusConfig, context: Context) -> None:
    done = finish(run_of(corpus, "Deeper", protocol=protocol(n_evaluations=9)), context)
    events = events_of(done, context)
    for key in ("step", "tokens", "flops", "seconds"):
        values = [event[key] for event in events if event["kind"] not in ("charge", "provenance")]
        assert values == sorted(values)
    charges = of_kind("charge", done, context)
    for key, total in (("flops", "flops"), ("tokens", "tokens"), ("steps", "step")):
        assert sum(charge[key] for charge in charges) == getattr(done[-1][1].end, total)
    assert sum(c["seconds"] for c in charges) == pytest.approx(done[-1][1].end.seconds)
    assert [charge["what"] for charge in charges] == ["train", "growth", "train", "train"]
    shells = [Transformer.shell(replace(TARGET, n_layer=n)) for n in (1, 2, 2)]
    for shell, charge in zip(shells, (c for c in charges if c["what"] == "train"), strict=True):
        assert charge["flops"] == charge["tokens"] * training_flops_per_token(shell)
        unmasked = charge["tokens"] * training_flops_per_token(shell, causal=False)
        assert charge["flops_unmasked"] == unmasked


def test_a_step_is_charged_what_its_optimizer_multiplies(
    corpus: CorpusConfig, context: Context
) -> None:
    muon = OptimizerConfig(target="benchmark.training.muon:Muon")
    done = finish(run_of(corpus, "Deeper", protocol=protocol(optimizer=muon)), context)
    stages = of_kind("stage", done, context)
    charges = [c for c in of_kind("charge", done, context) if c["what"] == "train"]
    for (spec, _), stage, charge in zip(done, stages, charges, strict=True):
        n_layer = stage["sizes"]["n_layer"]
        assert stage["optimizer_flops"] == spec.optimizer_flops
        assert spec.optimizer_flops == n_layer * 5 * (4 * 6 * 8**3 + 2 * (8**3 * 2 * 4 + 2 * 8**3))
        for unmasked in ("", "_unmasked"):
            of_model = charge["tokens"] * stage[f"flops_per_token{unmasked}"]
            of_muon = charge["steps"] * spec.optimizer_flops
            assert charge[f"flops{unmasked}"] == of_model + of_muon
    assert done[-1][1].end.flops == sum(charge["flops"] for charge in charges)


def test_every_point_of_the_curve_lies_within_a_step_of_its_mark(
    corpus: CorpusConfig, context: Context
) -> None:
    run = run_of(corpus, "Deeper", protocol=protocol(n_evaluations=8))
    done = finish(run, context)
    found = [event["flops"] for event in of_kind("evaluation", done, context)]
    assert len(set(found)) == len(found)
    for i in range(1, 9):
        mark = i * BUDGET / 8
        assert any(mark - STEP < flops <= mark for flops in found)
    assert found == [point.flops for _, result in done for point in result.points]


def test_growth_is_recorded_with_the_loss_on_both_sides(
    corpus: CorpusConfig, context: Context
) -> None:
    done = finish(run_of(corpus, "Deeper"), context)
    (growth,) = of_kind("growth", done, context)
    before = done[0][1].points[-1]
    assert growth["bpb_before"] == before.bpb
    assert growth["bpb_after"] == pytest.approx(before.bpb, abs=1e-5)
    assert growth["flops"] == before.flops
    assert growth["from"] | {"n_layer": 2} == growth["to"] == TARGET.sizes()
    assert (growth["growth_flops"], growth["growth_tokens"]) == (0.0, 0)
    block = 8 * 24 + 8 * 8 + 2 * 8 * 16 + 2 * 8  # maps and two gains
    assert growth["n_params_to"] - growth["n_params_from"] == block


def rates(done: Done, context: Context) -> dict[int, float]:
    return {event["step"]: event["lr"] for event in of_kind("train", done, context)}


def test_rates_are_those_of_one_curve_read_in_the_middle_of_each_step(
    corpus: CorpusConfig, context: Context
) -> None:
    done = finish(run_of(corpus, "Fixed", at=()), context)
    found = rates(done, context)
    assert set(found) == set(range(1, 31))  # the log is finer than the steps
    for step, rate in found.items():
        u = (step - 0.5) * STEP / BUDGET
        assert rate == pytest.approx(1e-2 * min(1, u / 0.1) * min(1, (1 - u) / 0.2), rel=1e-9)


def test_a_rewarm_of_everything_goes_on_across_stages(
    corpus: CorpusConfig, context: Context
) -> None:
    rewarm = Rewarm(which="all", start=0.0, ratio=1.5, length=0.2)
    run = run_of(corpus, "Deeper", rewarm=rewarm, protocol=protocol(cuts=[0.6]))
    done = finish(run, context)
    (growth,) = of_kind("growth", done, context)
    events = [e for e in of_kind("train", done, context) if e["step"] > growth["step"]]
    assert len(done) == 4
    for event in events:
        flops = event["flops"] - STEP / 2
        u, ramp = flops / BUDGET, min(1, (flops - growth["flops"]) / (0.2 * BUDGET))
        assert event["lr"] == pytest.approx(1e-2 * min(1, (1 - u) / 0.2) * 1.5 * ramp, rel=1e-6)


@pytest.mark.parametrize("which", ["none", "all", "new"])
def test_a_cut_changes_nothing_that_is_computed(
    corpus: CorpusConfig, context: Context, tmp_path: Path, which: str
) -> None:
    """Stages exist to be shared; where they end must leave no trace in the weights."""
    ends = []
    for cuts in ([], [0.1, 0.33, 0.55, 0.9]):
        here = replace(context, cache=tmp_path / str(len(cuts)))
        rewarm = Rewarm(which=which, length=0.2)
        run = run_of(corpus, "Deeper", rewarm=rewarm, protocol=protocol(cuts=cuts))
        done = finish(run, here)
        assert len(done) == 3 + len(cuts)
        ends.append((tensors_of(done, here), timeless(of_kind("final", done, here))))
    assert_same_tensors(ends[0][0], ends[1][0])
    assert ends[0][1][0]["bpb"] == ends[1][1][0]["bpb"]


def test_a_slower_rate_of_new_entries_changes_the_outcome(
    corpus: CorpusConfig, context: Context
) -> None:
    ends = [
        tensors_of(finish(run_of(corpus, "Deeper", rewarm=Rewarm(which=which)), context), context)
        for which in ("none", "new")
    ]
    assert not torch.equal(ends[0]["weights/embed.weight"], ends[1]["weights/embed.weight"])
    masks = {name for name in ends[1] if name.startswith("is_new/")}
    assert {name for name in masks if ends[1][name].any()} == {n for n in masks if "blocks.1." in n}


def test_a_method_is_told_before_every_step_how_much_was_spent_since_growth(
    corpus: CorpusConfig, context: Context
) -> None:
    Following.asked.clear()
    done = finish(run_of(corpus, "Following", protocol=protocol(cuts=[0.6])), context)
    grown = next(result for spec, result in done if spec.n_grown == 0).end
    expected: list[float] = []
    for (_, before), (_, after) in pairwise(done):  # each stage begins where the last one ended
        steps = range(before.end.step, after.end.step + 1)
        expected += [(step - grown.step) * STEP / BUDGET for step in steps]
    assert Following.asked == pytest.approx(expected, abs=1e-12)
    assert Following.asked[0] == 0.0


# Interruptions


BUSY = {"n_evaluations": 60, "curve_bytes": 30}  # an evaluation, hence a tick, at every step


@pytest.mark.parametrize("which", ["all", "new"])
def test_interruptions_leave_no_trace(
    corpus: CorpusConfig, context: Context, tmp_path: Path, which: str
) -> None:
    run = run_of(
        corpus, "Deeper", rewarm=Rewarm(which=which, length=0.3), protocol=protocol(**BUSY)
    )
    whole = finish(run, context)
    broken = replace(context, cache=tmp_path / "broken", checkpoint_seconds=0.0)
    chance, n_kills, done = random.Random(which), 0, None
    while done is None:
        try:
            done = finish(run, replace(broken, on_tick=killed_after(chance.randrange(1, 9))))
        except Interrupted:
            n_kills += 1
            assert n_kills < 99
    assert n_kills > 4
    assert_same_tensors(tensors_of(done, broken), tensors_of(whole, context))
    assert [timeless(e) for e in events_of(done, broken)] == [
        timeless(e) for e in events_of(whole, context)
    ]
    assert [r.points for _, r in done] == [r.points for _, r in whole]
    assert [s.id for s, _ in done] == [s.id for s, _ in whole]


@pytest.mark.slow
def test_a_loss_averaged_over_an_interruption_is_the_same(
    corpus: CorpusConfig, context: Context, tmp_path: Path
) -> None:
    """There are fifty records of the loss per C*: here they are means of two or three steps."""
    busy = protocol(budget_flops=140.5 * STEP, rungs=[], **BUSY)
    run = run_of(corpus, "Fixed", at=(), protocol=busy)
    whole = of_kind("train", finish(run, context), context)
    broken = replace(context, cache=tmp_path / "broken", checkpoint_seconds=0.0)
    for n_ticks in (5, 8, 7):
        with pytest.raises(Interrupted):
            finish(run, replace(broken, on_tick=killed_after(n_ticks)))
    again = of_kind("train", finish(run, broken), broken)
    assert [timeless(event) for event in again] == [timeless(event) for event in whole]
    assert len(whole) == 50 < whole[-1]["step"] == 140


@pytest.mark.parametrize("n_ticks", [0, 1])
def test_a_stage_killed_before_its_first_checkpoint_starts_again(
    corpus: CorpusConfig, context: Context, n_ticks: int
) -> None:
    run = run_of(corpus, "Deeper", protocol=protocol(**BUSY))
    spec = run.next_stage([])
    assert spec is not None
    with pytest.raises(Interrupted):
        execute(spec, replace(context, on_tick=killed_after(n_ticks)))
    done = finish(run, context)
    events = events_of(done, context)
    assert [event["kind"] for event in events].count("stage") == len(done)
    steps = [event["step"] for event in events if event["kind"] == "train"]
    assert steps == sorted(set(steps))


def test_a_checkpoint_that_lost_a_moment_would_leave_a_trace(
    corpus: CorpusConfig, context: Context, tmp_path: Path
) -> None:
    """The comparison above notices a state that lost a moment."""
    run = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY))
    whole = tensors_of(finish(run, context), context)
    broken = replace(context, cache=tmp_path / "broken", checkpoint_seconds=0.0)
    with pytest.raises(Interrupted):
        finish(run, replace(broken, on_tick=killed_after(20)))
    (progress,) = broken.cache.glob("stages/*/progress.safetensors")
    content = progress.read_bytes()
    state = load_state(progress, Transformer, "cpu")
    state.moments.exp_avg["embed.weight"].zero_()
    save_state(progress, state)
    assert progress.read_bytes() != content
    other = tensors_of(finish(run, broken), broken)
    assert not torch.equal(other["weights/embed.weight"], whole["weights/embed.weight"])


def test_a_finished_stage_is_never_trained_again(corpus: CorpusConfig, context: Context) -> None:
    run = run_of(corpus, "Deeper")
    done = finish(run, context)
    files = {p: p.stat().st_mtime_ns for p in context.cache.rglob("*") if p.name != "lock"}
    assert finish(run, replace(context, on_tick=killed_after(0))) == done
    assert files == {p: p.stat().st_mtime_ns for p in context.cache.rglob("*") if p.name != "lock"}
    assert not list(context.cache.rglob("progress*"))


def test_runs_that_begin_alike_train_their_beginning_once(
    corpus: CorpusConfig, context: Context
) -> None:
    one, other = (run_of(corpus, "Deeper", state_policy=p) for p in ("reset", "carry"))
    finish(one, context)
    folders = set((context.cache / "stages").iterdir())
    finish(other, context)
    assert len(folders) == 3
    assert len(set((context.cache / "stages").iterdir()) - folders) == 2


# Deleted checkpoints


def test_a_stage_without_its_checkpoint_is_trained_again_for_that_alone(
    corpus: CorpusConfig, context: Context
) -> None:
    one, other = (run_of(corpus, "Deeper", state_policy=p) for p in ("reset", "carry"))
    done = finish(one, context)
    before = {p: p.read_bytes() for p in context.cache.glob("stages/*/*.json*")}
    tensors = tensors_of(done[:1], context)
    store = StageStore(context.cache)
    assert len(store.evict(0.0, needed=[])) == len(done)
    assert store.usable(one) == done  # it has ended and needs nothing
    assert store.usable(other) == []
    (shared, result), *_ = done
    assert execute(shared, context) == result
    assert_same_tensors(tensors_of(done[:1], context), tensors)
    assert load_state(store.checkpoint(shared.id), Transformer, "cpu").position == result.end
    assert {p: p.read_bytes() for p in context.cache.glob("stages/*/*.json*")} == before
    assert store.usable(other) == done[:1]


def test_a_stage_that_is_trained_again_with_another_outcome_is_refused(
    corpus: CorpusConfig, context: Context
) -> None:
    (spec, result), *_ = finish(run_of(corpus, "Fixed", at=()), context)
    store = StageStore(context.cache)
    lucky = replace(result.points[-1], bpb=result.points[-1].bpb - 1e-9)
    store.write_result(spec.id, replace(result, points=(*result.points[:-1], lucky)))
    store.evict(0.0, needed=[])
    with pytest.raises(RecordError, match="comes to other losses than are recorded"):
        execute(spec, context)
    assert not store.checkpoint(spec.id).exists()


def test_room_is_made_of_what_was_used_longest_ago_and_nobody_needs(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for age, name in enumerate(["newest", "newer", "older", "oldest"]):
        path = store.checkpoint(name)
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    store.take("newer")
    assert store.evict(1000, needed=[]) == []
    assert store.evict(200, needed=["oldest"]) == ["older", "newest"]
    assert store.evict(0, needed=["oldest"]) == ["newer"]
    assert store.checkpoint("oldest").exists()
    with pytest.raises(RecordError, match="run again to train the stage anew"):
        store.take("newer")


def test_a_checkpoint_that_another_command_deletes_is_no_longer_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look into the folder and that at the file."""
    store = StageStore(tmp_path)
    for name in ("a", "b"):
        store.folder(name).mkdir(parents=True)
        store.checkpoint(name).write_bytes(bytes(100))
    there = sorted(tmp_path.glob("stages/*/checkpoint.safetensors"))
    there[0].unlink()
    monkeypatch.setattr(Path, "glob", lambda *_: iter(there))
    assert store.evict(0.0, needed=[]) == ["b"]


# Damage, and a full disk


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_finished_stage_whose_events_are_damaged_is_trained_again(
    corpus: CorpusConfig, context: Context, left: float
) -> None:
    run = run_of(corpus, "Deeper")
    done = finish(run, context)
    whole = events_of(done, context)
    events = StageStore(context.cache).events(done[1][0].id)
    content = events.read_bytes()
    events.write_bytes(content[: int(left * len(content))])
    again = finish(run, context)
    assert [timeless(event) for event in events_of(again, context)] == [
        timeless(event) for event in whole
    ]


def test_a_disk_that_is_full_is_what_a_stage_says_it_failed_of(
    corpus: CorpusConfig, context: Context
) -> None:
    """Files may grow to 10 kB, its checkpoint has more; then there is room again."""
    run = run_of(corpus, "Fixed", at=())
    spec = run.next_stage([])
    assert spec is not None
    store, (soft, hard) = StageStore(context.cache), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(Exception, match=r"[Ff]ile too large") as caught:
            execute(spec, context)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(context.cache.rglob("*.partial"))
    assert not store.checkpoint(spec.id).exists()
    assert finish(run, context)[-1][1].status == "done"


def test_the_first_error_is_told_though_its_traceback_cannot_be_written(
    corpus: CorpusConfig, context: Context
) -> None:
    def fail(_: StageSpec, __: Context) -> StageResult:
        raise OSError(28, "No space left on device")

    spec = run_of(corpus, "Fixed", at=()).next_stage([])
    assert spec is not None
    (StageStore(context.cache).folder(spec.id) / "traceback.txt" / "in the way").mkdir(parents=True)
    failure = worker._attempt(fail, spec, context)
    assert failure == Failure("failed", "OSError: [Errno 28] No space left on device")


# Provenance and memory


def tensor_bytes(known: Collection[int] = ()) -> dict[int, int]:
    """Size of every storage of float tensors that is alive, by its address."""
    gc.collect()
    alive = [
        x
        for x in gc.get_objects()
        if type(x) in (Tensor, torch.nn.Parameter) and x.is_floating_point()
    ]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in alive}
    return {address: size for address, size in storages.items() if address not in known}


@pytest.mark.slow
def test_between_steps_a_parameter_takes_twelve_bytes(
    corpus: CorpusConfig, context: Context
) -> None:
    """Four for itself and four for each moment, also right after a growth; no gradient waits."""
    known, seen, ticks = tensor_bytes(), list[int](), count()

    def measure(_: Tick) -> None:
        if next(ticks) % 16 == 4:
            seen.append(sum(tensor_bytes(known).values()))

    run = run_of(corpus, "Deeper", protocol=protocol(**BUSY))
    done = finish(run, replace(context, on_tick=measure))
    sizes = [event["n_params"] for event in of_kind("stage", done, context)]
    assert len(seen) >= 2
    assert max(seen) < 12.5 * max(sizes)
    assert min(seen) > 11.5 * min(sizes)


def test_a_save_that_takes_long_is_not_made_often(
    corpus: CorpusConfig, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving takes a twentieth of the time at most, however often it is asked for."""
    saves = list[float]()
    spec = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY)).next_stage([])
    assert spec is not None

    def slow(*_: object) -> None:
        started = time.perf_counter()
        time.sleep(0.01)
        saves.append(started)

    monkeypatch.setattr(meter, "write_packed", slow)
    execute(spec, replace(context, checkpoint_seconds=1e-6, on_tick=lambda _: time.sleep(0.05)))
    assert len(saves) >= 2
    assert all(later - earlier > 0.2 for earlier, later in pairwise(saves))


def test_training_goes_on_while_a_state_is_written_and_ends_when_it_is(
    corpus: CorpusConfig, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States are written by another thread, of the weights as they were; one at a time."""
    spec = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY)).next_stage([])
    assert spec is not None
    n_ticks, found = [0], list[int]()

    def slow(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        before, start = {name: t.clone() for name, t in tensors.items()}, n_ticks[0]
        end = time.monotonic() + 0.5  # of the last state nobody takes a step
        while n_ticks[0] < start + 2 and time.monotonic() < end:
            time.sleep(0.001)
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
        found.append(n_ticks[0] - start)
        write_packed(path, tensors, metadata)

    def tick(_: Tick) -> None:
        n_ticks[0] += 1

    monkeypatch.setattr(meter, "write_packed", slow)
    monkeypatch.setattr(meter, "TICK_SECONDS", 0.0)
    plain = execute(spec, replace(context, cache=context.cache / "plain"))
    end = execute(spec, replace(context, checkpoint_seconds=1e-6, on_tick=tick))
    assert max(found) >= 2
    assert end.points == plain.points


def test_a_state_that_cannot_be_written_fails_the_stage(
    corpus: CorpusConfig, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY)).next_stage([])
    assert spec is not None

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(meter, "write_packed", fail)
    with pytest.raises(OSError, match="no space left"):
        execute(spec, replace(context, checkpoint_seconds=1e-6))


def test_a_batch_that_cannot_fit_on_the_gpu_is_cut_before_it_is_tried(
    corpus: CorpusConfig, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the GPU has, shared by as many stages as share it, not by what happens to be free."""
    spec = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY)).next_stage([])
    assert spec is not None
    room = 1.01 * spec.step_bytes(2) / USABLE
    monkeypatch.setattr("benchmark.stage.execute.device_bytes", lambda _: 3 * room)
    done = [(spec, execute(spec, replace(context, n_sharing=3)))]
    (cut,) = of_kind("micro_batch", done, context)
    assert (cut["n_micro"], cut["n_windows"]) == (2, spec.batch_size // 2)
    (made,) = of_kind("provenance", done, context)
    assert made["made_with"]["stages_per_gpu"] == 3


def test_every_process_that_had_a_part_in_a_stage_says_what_it_computed_with(
    corpus: CorpusConfig, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(corpus, "Fixed", at=(), protocol=protocol(**BUSY))
    patient = replace(context, checkpoint_seconds=0.0)
    for cpu in ("first", "second", "second"):
        monkeypatch.setattr(recorder, "process_provenance", lambda *_, cpu=cpu, **__: {"cpu": cpu})
        with pytest.raises(Interrupted):
            finish(run, replace(patient, on_tick=killed_after(4)))
    monkeypatch.setattr(recorder, "process_provenance", lambda *_, **__: {"cpu": "unsaved"})
    with pytest.raises(Interrupted):
        finish(run, replace(context, on_tick=killed_after(0)))
    monkeypatch.setattr(recorder, "process_provenance", lambda *_, **__: {"cpu": "last"})
    done = finish(run, context)
    for part, cpus in ((done[:1], ["first", "second", "last"]), (done[1:], ["last"])):
        found = of_kind("provenance", part, context)
        assert [event["made_with"]["cpu"] for event in found] == cpus


def test_the_peak_of_a_stage_is_not_that_of_the_stages_before(
    corpus: CorpusConfig, context: Context
) -> None:
    hoard = torch.ones(2**26)  # a quarter of a gigabyte, touched
    before = PeakMemory("cpu")
    peak = before.n_bytes
    del hoard
    _, result = finish(run_of(corpus, "Fixed", at=()), context)[-1]
    assert result.peak_memory_scope == before.scope
    assert result.peak_memory_bytes < peak - 2**27 or before.scope == "process"


def test_a_system_that_cannot_lower_the_mark_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_status", {"VmHWM": 2**40, "VmRSS": 2**20}.__getitem__)
    peak = PeakMemory("cpu")
    assert peak.scope == "process"
    assert 2**20 < peak.n_bytes < 2**40


def test_the_parameters_of_a_stage_are_counted_by_tensor(
    corpus: CorpusConfig, context: Context
) -> None:
    for event in of_kind("stage", finish(run_of(corpus, "Deeper"), context), context):
        groups = event["n_params_by_group"]
        assert sum(groups.values()) == event["n_params"]
        assert groups["embed.weight"] == TARGET.vocab_size * TARGET.d_model
        assert groups["blocks.qkv.weight"] == event["sizes"]["n_layer"] * 3 * TARGET.d_model**2


# Data


def bytes_seen(run: Run, context: Context) -> Tensor:
    """Inputs that a run was trained on, one window a row, in order."""
    Watched.seen.clear()
    finish(run, context)
    return torch.cat(Watched.seen)


def test_every_method_sees_the_same_bytes_in_the_same_order(
    corpus: CorpusConfig, context: Context
) -> None:
    grown = bytes_seen(run_of(corpus, "WatchedDeeper"), context)
    fixed = bytes_seen(run_of(corpus, "WatchedFixed", at=()), context)
    assert len(grown) > len(fixed) == 30 * BATCH  # smaller steps, hence more of them
    assert torch.equal(grown[: len(fixed)], fixed)
    stream = ByteStream(load(corpus, context.cache).train, TARGET.seq_len, 1, seed=0)
    expected = torch.cat([stream[i] for i in range(len(grown))])[:, :-1]
    assert torch.equal(grown, expected)
    other = bytes_seen(run_of(corpus, "WatchedFixed", at=(), seed=1), context)
    assert not torch.equal(other, fixed)


def test_every_method_starts_from_the_same_weights(corpus: CorpusConfig, context: Context) -> None:
    """The first loss, before any step, is that of one initialisation per seed and size."""
    small = Ladder(shrink={"n_layer": 2.0}, n_growths=0)
    firsts = [
        of_kind("train", finish(run, context), context)[0]["loss"]
        for run in (
            run_of(corpus, "Deeper"),
            run_of(corpus, "Fixed", at=(), ladder=small, protocol=protocol(cuts=[0.3])),
            run_of(corpus, "Deeper", seed=1),
        )
    ]
    assert firsts[0] == firsts[1] != firsts[2]


def test_an_untrained_source_grows_before_the_first_step(
    corpus: CorpusConfig, context: Context
) -> None:
    done = finish(run_of(corpus, "Deeper", at=(0.0,)), context)
    (growth,) = of_kind("growth", done, context)
    source = Transformer(replace(TARGET, n_layer=1), generator=generator(0, "init"))
    expected = score(source, load(corpus, context.cache).val[:200], 7).bits_per_byte
    assert growth["bpb_before"] == pytest.approx(expected, rel=1e-6)  # that of every method
    assert (growth["step"], growth["flops"], growth["tokens"]) == (0, 0.0, 0)
    assert growth["bpb_before"] == pytest.approx(growth["bpb_after"], abs=1e-5)
    assert done[-1][1].end.step == 30  # nothing was spent on the source


# Failure


def test_divergence_is_a_result_and_is_charged(corpus: CorpusConfig, context: Context) -> None:
    wild = protocol(learning_rate=LearningRateConfig(peak=1e38, warmup=0.5, decay=0.2))
    run = run_of(corpus, "Deeper", protocol=wild)
    done = finish(run, context)
    result = done[-1][1]
    assert result.status == "diverged"
    assert result.error is not None
    assert "training loss is" in result.error
    events = events_of(done, context)
    assert not math.isfinite([e for e in events if e["kind"] == "train"][-1]["loss"])
    assert not [e for e in events if e["kind"] == "final"]
    charged = sum(e["flops"] for e in events if e["kind"] == "charge")
    assert charged == result.end.flops == result.end.step * done[-1][0].step_flops > 0
    assert execute(done[-1][0], replace(context, on_tick=killed_after(0))) == result


def test_a_corpus_too_short_is_an_error_of_the_data(corpus: CorpusConfig, context: Context) -> None:
    Path(corpus.path).write_bytes(Path(corpus.path).read_bytes()[:700])
    with pytest.raises(DataError, match="one epoch has"):
        finish(run_of(corpus, "Deeper"), context)
