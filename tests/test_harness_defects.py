"""Defects that other harnesses had, one test each, so that this one does not catch them.

The numbers are those of the survey that found them; formulas of statistics (D3, D12) are tested
beside their code. Each docstring says what went wrong elsewhere.
"""

import ast
import gzip
import math
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from synthetic_records import SUITE, write_records
from tiny import TINY, trained_like
from tiny_suite import finish, prepare, run_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

import benchmark
from benchmark.audit import CHECKS
from benchmark.audit.evidence import Evidence
from benchmark.base.errors import ConfigError, RecordError
from benchmark.base.seeding import stream_seed
from benchmark.cli.main import main
from benchmark.data.stream import ByteStream
from benchmark.growth.operator import StatePolicy
from benchmark.model.cost import Position, training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import available, load_method, load_suite
from benchmark.records.events import Event, EventLog, read_events
from benchmark.records.folder import load_run
from benchmark.records.folder import load_suite as load_records
from benchmark.report.frames import frames
from benchmark.session.session import Session
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.training.baseline import Baseline
from benchmark.training.evaluate import Score, score

STACKING = """
name: stacking
target: "baselines.stacking:Stacking"
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.growth.schedule:AtFractions", args: {at: [0.5]}}
"""


def events_of(folder: Path, method: str) -> tuple[list[Event], Context]:
    """Train one method of the tiny suite in this process; all its events."""
    run, context = run_of(folder, method)
    done = finish(run, context)
    store = StageStore(context.cache)
    logs = (read_events(store.folder(spec.id) / "events.jsonl") for spec, _ in done)
    return [event for log in logs for event in log], context


def of(kind: str, events: list[Event]) -> list[Event]:
    return [event for event in events if event["kind"] == kind]


def test_d1_two_seeds_are_two_runs(tmp_path: Path) -> None:
    """Elsewhere a run's id left the seed out, so the second seed resumed the first."""
    prepare(tmp_path)
    overrides = [
        "methods=[scratch]",
        "protocol.seeds=[0,1]",
        f"run.cache={tmp_path / 'cache'}",
        f"workload.corpus.path={tmp_path / 'letters.txt'}",
    ]
    session = Session(load_suite(str(tmp_path / "tiny.yaml"), overrides))
    context = Context(corpus=session.suite.workload.corpus, cache=session.cache)
    folders = [
        StageStore(context.cache).folder(finish(run, context)[-1][0].id) for run in session.runs
    ]
    assert len({run.id for run in session.runs}) == len(set(folders)) == 2
    one, other = (load_file(folder / "checkpoint.safetensors") for folder in folders)
    assert not torch.equal(one["weights/embed.weight"], other["weights/embed.weight"])


def test_d2_every_seed_is_its_own_and_zero_is_a_seed(tmp_path: Path) -> None:
    """Elsewhere all trials shared one generated seed, and 0 meant that none was given."""
    streams = ("init", "data", "growth", "tuning")
    drawn = {stream_seed(seed, stream) for seed in range(200) for stream in streams}
    assert len(drawn) == 200 * len(streams)
    unseeded = Transformer(TINY, generator=torch.Generator())
    zero = Transformer(TINY, generator=torch.Generator().manual_seed(stream_seed(0, "init")))
    assert not torch.equal(zero.embed.weight, unseeded.embed.weight)
    prepare(tmp_path)
    twice = [f"workload.corpus.path={tmp_path / 'letters.txt'}", "protocol.seeds=[0,0]"]
    with pytest.raises(ConfigError, match="must be distinct"):
        Session(load_suite(str(tmp_path / "tiny.yaml"), [*twice, f"run.cache={tmp_path}"]))


def test_d4_a_curve_that_left_the_numbers_is_no_result(tmp_path: Path) -> None:
    """Elsewhere a parser read nan as 0, and the target counted as reached."""
    wild = tuple(replace(m, status="diverged", ends_at=0.5) if m.name == "fast" else m
                 for m in SUITE)  # fmt: skip
    suite = load_records(write_records(tmp_path, wild))
    runs = frames(suite).of("fast")
    assert set(runs.status) == {"diverged"}
    assert all(math.isinf(bpb) for bpb in [*runs.test_bpb, *runs.curve_bpb])
    run = next(run for run in suite.runs if run.method == "fast")
    assert math.isnan(run.of("evaluation")[-1]["bpb"])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=2, max_size=5))
def test_d5_a_stage_starts_at_the_byte_where_the_last_one_stopped(
    stages: list[tuple[int, int]],
) -> None:
    """Elsewhere the cursor counted micro-batches, and a later stage read 8 billion tokens twice."""
    text = torch.arange(2000).remainder(251).to(torch.uint8)
    whole = ByteStream(text=text, seq_len=7, batch_size=1, seed=3)
    seen, cursor = [], 0
    for batch_size, n_steps in stages:
        stream = replace(whole, batch_size=batch_size, first_window=cursor)
        seen += [stream[step] for step in range(n_steps)]
        cursor += batch_size * n_steps
    expected = torch.cat([whole[i] for i in range(cursor)])
    assert torch.equal(torch.cat(seen), expected)


def test_d5_the_ledger_counts_bytes_across_growth(tmp_path: Path) -> None:
    """Its second half: stages say in bytes where they begin, and none is read twice or left out."""
    events, _ = events_of(tmp_path, STACKING)
    read = 0
    for event in events:
        if event["kind"] == "stage":
            assert event["tokens"] == read
        elif event["kind"] == "charge":
            read += event["tokens"]
    assert read == of("final", events)[0]["tokens"] > 0


@pytest.mark.slow
def test_d6_what_becomes_of_the_optimizer_s_state_is_always_said(tmp_path: Path) -> None:
    """Elsewhere a growth script loaded the weights alone, and nobody noticed."""
    policies = {policy.value for policy in StatePolicy}
    for name in available("method"):
        assert load_method(name).state_policy in {None, *policies}
    assert Baseline.state_policy in StatePolicy
    (growth,) = of("growth", events_of(tmp_path, STACKING)[0])
    assert growth["state_policy"] in policies
    with pytest.raises(ConfigError, match="state_policy must be one of"):
        run_of(tmp_path / "other", f"{STACKING}state_policy: forgotten\n")


@pytest.mark.parametrize("n_bytes", [2, 7, 8, 9, 500, 503])
@pytest.mark.parametrize("seq_len", [3, 7, 64])
def test_d7_every_byte_is_scored_whatever_the_window_and_the_batch(
    n_bytes: int, seq_len: int
) -> None:
    """Elsewhere the tail was dropped, and the split moved with the batch size."""
    model = trained_like(replace(TINY, seq_len=seq_len))
    split = torch.randint(13, (n_bytes,), dtype=torch.uint8,
                          generator=torch.Generator().manual_seed(1))  # fmt: skip
    scores = [score(model, split, batch_size) for batch_size in (1, 3, 64)]
    assert {found.n_bytes for found in scores} == {n_bytes}
    for found in scores[1:]:
        assert torch.allclose(found.nats, scores[0].nats, rtol=0, atol=1e-9)


def test_d8_a_score_is_a_mean_over_bytes_not_over_parts() -> None:
    """Elsewhere documents counted alike whatever their length, with the wrong sign."""
    short, long = torch.full((10,), 2.0).double(), torch.full((990,), 1.0).double()
    text = torch.cat([short, long])
    whole = Score(text, torch.ones(1000, dtype=torch.int64))
    assert whole.bits_per_byte == pytest.approx(1010 / 1000 / math.log(2), rel=1e-12)
    sizes, nats = whole.blocks(300)
    assert sizes == [300, 300, 300, 100]
    assert sum(nats) / sum(sizes) / math.log(2) == pytest.approx(whole.bits_per_byte, rel=1e-12)
    assert whole.bits_per_byte > 0


@pytest.mark.slow
def test_d9_a_sum_does_not_depend_on_how_a_text_is_cut() -> None:
    """Elsewhere nats were added up in float32, and lost a digit per factor of ten in length."""
    nats = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = Score(nats, torch.ones(len(nats), dtype=torch.int64))
    found = [math.fsum(whole.blocks(size)[1]) for size in (1_000_000, 1000, 7)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-12)
    assert abs(float(nats.float().cumsum(0)[-1]) - found[0]) > 1e-6  # the defect would show
    assert score(trained_like(TINY).float(), torch.zeros(50).byte(), 2).nats.dtype == torch.float64


def test_d10_a_missing_result_is_no_number(tmp_path: Path) -> None:
    """Elsewhere results were scraped from a log, and 0.0 stood for none."""
    lost = (("fast", 1),)
    suite = load_records(write_records(tmp_path, missing=lost))
    runs = frames(suite).of("fast")
    assert runs.status[1] == "missing"
    assert math.isinf(runs.test_bpb[1])
    faults = [remark.text for remark in CHECKS["seeds"](Evidence.of(tmp_path)) if remark.is_fault]
    assert any("(fast, seed 1): missing" in text for text in faults)
    log = next(tmp_path.glob("runs/*.jsonl.gz"))
    log.write_bytes(gzip.compress(b"2.345 bpb\n"))
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path)])
    assert stopped.value.code == 2
    with pytest.raises(RecordError, match="line 1: damaged record"):
        load_run(tmp_path, log.name.partition(".")[0])


def test_d11_a_kill_at_any_byte_leaves_every_earlier_record(tmp_path: Path) -> None:
    """Elsewhere the whole table was rewritten at each evaluation, not atomically."""
    path = tmp_path / "events.jsonl"
    ends = [0]
    with EventLog(path) as log:
        for step in range(5):
            log.append("train", step=step, loss=1.5)
            ends.append(log.offset)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        n_whole = sum(end <= cut for end in ends) - 1
        assert [event["step"] for event in read_events(path)] == list(range(n_whole))
    with EventLog(path) as log:
        assert log.offset == len(whole)


def test_d13_a_repeated_run_agrees_at_every_point(tmp_path: Path) -> None:
    """Elsewhere only the last value was compared, with a tolerance of 100 %."""
    first, again = (events_of(tmp_path / name, STACKING)[0] for name in ("one", "two"))
    assert differing(first, again) == []
    middle = of("evaluation", again)[4]
    middle["bpb"] = math.nextafter(middle["bpb"], 9)
    assert differing(first, again) == [middle["step"]]


def differing(one: list[Event], other: list[Event]) -> list[int]:
    """Steps of the records in which two runs differ, clocks and memory aside."""
    pairs = zip(one, other, strict=True)
    return [a.get("step", 0) for a, b in pairs if timeless(a) != timeless(b)]


def timeless(event: Event) -> Event:
    return {key: value for key, value in event.items() if "seconds" not in key}


def test_d14_steps_cannot_pass_for_flops(tmp_path: Path) -> None:
    """Elsewhere two positional arguments were swapped, and steps were logged as FLOPs."""
    with pytest.raises(TypeError):
        Position(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Position().after(1, 2)  # type: ignore[call-arg]
    events, _ = events_of(tmp_path, STACKING)
    sizes = {event["stage_id"]: event["sizes"] for event in of("stage", events)}
    for charge in of("charge", events):
        if charge["what"] == "train":
            config = ModelConfig(**sizes[charge["stage_id"]])
            model = Transformer(config, generator=torch.Generator()).double()
            ids = torch.zeros(4, config.seq_len, dtype=torch.long)
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model(ids).sum().backward()
            assert charge["flops_unmasked"] == charge["steps"] * counter.get_total_flops()
            per_token = training_flops_per_token(model)
            assert charge["flops"] == charge["steps"] * per_token * ids.numel()


class _NobodyThere:
    """A standard input that must not be touched."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"stdin.{name} was asked for")


@pytest.mark.slow
def test_d15_nothing_waits_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere a batch job asked whether to go on."""
    monkeypatch.chdir(prepare(tmp_path))
    monkeypatch.setattr("sys.stdin", _NobodyThere())
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = write_records(tmp_path / "results")
    for command in (["list"], ["plan", "tiny.yaml", "--no-probe"], ["audit", str(folder)]):
        with pytest.raises(SystemExit):
            main(command)
    assert "scratch" in capsys.readouterr().out
    sources = Path(benchmark.__file__).parent.rglob("*.py")
    names = {node.id for path in sources for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Name)}  # fmt: skip
    assert "input" not in names


class _Sluggish(Transformer):
    """Compiles itself, so to speak, before its first step; is slow to be evaluated."""

    compiled: ClassVar[bool] = False

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        if self.training and not _Sluggish.compiled:
            _Sluggish.compiled = True
            time.sleep(0.5)
        if not self.training:
            time.sleep(0.02)
        return super().forward(ids_BT)


class Sluggish(Baseline):
    """A method with a slow start."""

    model_class = _Sluggish


@pytest.mark.slow
def test_d16_the_clock_runs_from_the_first_step_and_what_it_leaves_out_is_told(
    tmp_path: Path,
) -> None:
    """Elsewhere half a second of compilation was done before the clock was started."""
    method = 'name: sluggish\nrole: control\ntarget: "test_harness_defects:Sluggish"\n'
    started = time.perf_counter()
    run, context = run_of(tmp_path, method)
    done = finish(run, context)
    passed = time.perf_counter() - started
    logs = [read_events(StageStore(context.cache).folder(s.id) / "events.jsonl") for s, _ in done]
    events = [event for log in logs for event in log]
    charged = sum(event["seconds"] for event in of("charge", events))
    told = sum(event["eval_seconds"] for event in events if "eval_seconds" in event)
    assert charged > 0.5
    assert 0.02 * len(of("evaluation", events)) < told
    assert charged + told < sum(result.executed_seconds for _, result in done) < passed
    for (_, before), (_, after) in pairwise(done):
        assert before.end.seconds < after.end.seconds


@pytest.fixture(autouse=True)
def fresh() -> None:
    _Sluggish.compiled = False
