"""A recipe may anneal its source, begin a schedule anew after growth, and read another text."""

import hashlib
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_suite import Interrupted, finish, killed_after, prepare, run_of
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.data.corpora import load
from benchmark.data.stream import ByteStream
from benchmark.plan.config import load_method, load_suite
from benchmark.plan.factors import design
from benchmark.plan.own_schedule import OwnRate
from benchmark.plan.run import Run
from benchmark.plan.spec import StageSpec
from benchmark.records.card import own_schedule
from benchmark.records.events import read_events
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.training.optim import LearningRateConfig, RateCurve

METHOD = """
name: it
target: baselines.stacking:Stacking
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.5]}}
"""
RATES = """
stages:
  - rate: {decay: 0.2}
  - rate: {peak: 0.5, warmup: 0.1, decay: 1.0, shape: cosine, floor: 0.1}
"""
DIGITS = bytes(torch.randint(48, 58, (60_000,), generator=torch.Generator().manual_seed(1)))
TEXTS = f"""
stages:
  - corpus: {{name: digits, kind: file, source: drawn, licence: CC0-1.0, path: PATH, size: 60000,
      sha256: {hashlib.sha256(DIGITS).hexdigest()},
      splits: {{val_start: 50001, test_start: 55000}}}}
  - {{}}
"""
SHARED = LearningRateConfig(peak=2.0, warmup=0.1)


def curve_of(spec: StageSpec) -> RateCurve:
    decay = spec.rate["decay"]
    return RateCurve(**spec.rate | {"decay": decay and tuple(decay)})


def run_with(
    folder: Path, stages: str, *settings: str, method: str = METHOD
) -> tuple[Run, Context]:
    """A run that grows at half of its budget, and reads digits where its stages say so."""
    prepare(folder)
    (folder / "digits.txt").write_bytes(DIGITS)
    stages = stages.replace("PATH", str(folder / "digits.txt"))
    return run_of(folder, method + stages, *settings)


@pytest.mark.parametrize(
    ("own", "flops", "rate"),
    [
        (OwnRate(), 99, 0.0), (OwnRate(), 100, 0.0), (OwnRate(), 110, 1.0), (OwnRate(), 120, 2.0),
        (OwnRate(), 160, 1.0), (OwnRate(), 200, 0.0), (OwnRate(decay=0.0), 199, 2.0),
        (OwnRate(peak=3.0, warmup=0.5, decay=0.1), 125, 3.0),
        (OwnRate(peak=3.0, warmup=0.5, decay=0.1), 190, 6.0),
        (OwnRate(peak=3.0, warmup=0.5, decay=0.1), 195, 3.0),
        (OwnRate(shape="cosine", floor=0.1), 140, 2 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)),
        (OwnRate(shape="cosine", floor=0.1), 160, 2 * (0.1 + 0.9 / 2)),
        (OwnRate(shape="cosine", floor=0.1), 200, 0.2),
    ],
)  # fmt: skip
def test_a_rate_of_its_own_warms_up_stays_and_decays(
    own: OwnRate, flops: float, rate: float
) -> None:
    """From 100 to 200 of a budget of 200, whose shared warm-up takes 20."""
    curve = own.curve(SHARED, budget_flops=200, start=100, end=200)
    assert curve.at(flops) == pytest.approx(rate)


def test_a_source_is_annealed_and_the_grown_model_begins_anew(tmp_path: Path) -> None:
    run, context = run_with(tmp_path, RATES)
    stages = run.predicted()
    source = [curve_of(spec) for spec, _ in stages if spec.n_grown == 0]
    grown = [curve_of(spec) for spec, _ in stages if spec.n_grown == 1]
    half, peak = run.budget / 2, run.protocol.learning_rate.peak
    assert source[-1].at(half) == 0.0
    assert source[-1].at(0.45 * run.budget) == pytest.approx(peak / 2)
    assert all(curve.at(0.39 * run.budget) == peak for curve in source)
    assert {curve.start for curve in grown} == {half}
    assert grown[0].at(1.05 * half) == pytest.approx(peak / 4)
    assert grown[0].at(1.1 * half) == pytest.approx(peak / 2)
    assert grown[-1].at(run.budget) == pytest.approx(peak / 20)
    assert {spec.rewarm for spec, _ in stages} == {None}
    used = {
        event["flops"]: event["lr"]
        for spec, _ in finish(run, context)
        for event in read_events(StageStore(context.cache).folder(spec.id) / "events.jsonl")
        if event["kind"] == "train"
    }
    assert len(used) > 20
    for flops, rate in used.items():
        curve = source[-1] if flops <= half else grown[-1]
        step = stages[0][0].step_flops if flops <= half else stages[-1][0].step_flops
        assert rate == pytest.approx(curve.at(flops - step / 2))


def test_until_its_decay_a_source_is_that_of_methods_that_share_the_schedule(
    tmp_path: Path,
) -> None:
    own, shared = (run_with(tmp_path, stages)[0].predicted() for stages in (RATES, ""))
    stable = 0.4 * shared[-1][0].until
    early = [{spec.id for spec, _ in stages if spec.until <= stable} for stages in (own, shared)]
    late = [{spec.id for spec, _ in stages if spec.until > stable} for stages in (own, shared)]
    assert early[0] & early[1]
    assert late[0].isdisjoint(late[1])
    assert own[-1][1].end == shared[-1][1].end  # and the ledger is the same


def read_by(run: Run, context: Context) -> dict[str, Tensor]:
    """Windows that the run reads at every stage, by the text that they are of."""
    found: dict[str, list[Tensor]] = {}
    cursor = 0
    for spec, result in run.predicted():
        corpus = run.suite.workload.corpus if spec.own_text is None else run.own_corpora[0]
        stream = ByteStream(
            text=load(corpus, context.cache / "corpora").train,
            seq_len=32,
            batch_size=spec.batch_size,
            seed=run.seed,
            first_window=cursor - spec.first_window,
        )
        rows = stream.rows_at(cursor - spec.first_window, result.end.window - cursor)
        found.setdefault(corpus.name, []).append(rows)
        cursor = result.end.window
    return {name: torch.cat(rows) for name, rows in found.items()}


def test_texts_change_at_growth_and_none_is_read_twice(tmp_path: Path) -> None:
    """There and back: in the end the suite's text goes on where the first stage left it."""
    method = """
name: it
role: control
target: baselines.scratch:RestartOnly
ladder: {path: constant, n_growths: 2}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.3, 0.6]}}
"""
    there_and_back = TEXTS.replace("stages:", "stages:\n  - {}")
    run, context = run_with(tmp_path, there_and_back, method=method)
    read = read_by(run, context)
    assert set(read) == {"letters", "digits"}
    assert bool((read["digits"] < 58).all())
    assert bool((read["letters"] > 96).all())
    for windows in read.values():
        assert len(windows.unique(dim=0)) == len(windows) > 20
    done = finish(run, context)
    assert [r.end.window for _, r in done] == [r.end.window for _, r in run.predicted()]


@pytest.mark.slow
@pytest.mark.parametrize("stages", [RATES, TEXTS])
def test_interruptions_leave_no_trace(tmp_path: Path, stages: str) -> None:
    run, context = run_with(tmp_path, stages, "protocol.n_evaluations=60")
    broken = replace(context, cache=tmp_path / "broken", checkpoint_seconds=0.0)
    chance, n_kills, done, whole = random.Random(0), 0, None, finish(run, context)
    while done is None:
        try:
            done = finish(run, replace(broken, on_tick=killed_after(chance.randrange(1, 6))))
        except Interrupted:
            n_kills += 1
            assert n_kills < 99
    assert n_kills > 3
    assert [(s.id, r.points) for s, r in done] == [(s.id, r.points) for s, r in whole]
    a, b = (
        load_file(StageStore(where.cache).checkpoint(whole[-1][0].id))
        for where in (context, broken)
    )
    assert all(torch.equal(a[name], b[name]) for name in a.keys() | b.keys())


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("stages: [{}]\n", "stages must have one entry for each of the 2 sizes, got 1"),
        (RATES.replace("0.1}", "1.5}"), "floor must be a number in"),
        (RATES.replace("cosine", "square"), "shape must be one of"),
        (TEXTS.replace("size: 60000,", ""), "corpus digits must state its size and sha256"),
        (TEXTS.replace("50001", "900"), "of corpus digits has 896; lower the budget"),
    ],
)
def test_stages_that_cannot_be_are_refused(tmp_path: Path, stages: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_with(tmp_path, stages)


def test_the_suite_s_text_cut_elsewhere_may_be_read_where_repeats_are_allowed(
    tmp_path: Path,
) -> None:
    prepare(tmp_path)
    letters = (tmp_path / "letters.txt").read_bytes()
    found = TEXTS.replace("PATH", str(tmp_path / "letters.txt")).replace("60000", "200000")
    found = found.replace(hashlib.sha256(DIGITS).hexdigest(), hashlib.sha256(letters).hexdigest())
    with pytest.raises(
        ConfigError, match="digits is text of the suite's own corpus, cut elsewhere"
    ):
        run_of(tmp_path, METHOD + found)
    run, _ = run_of(tmp_path, METHOD + found, "protocol.allow_repeats=true")
    assert [corpus.name for corpus in run.own_corpora] == ["digits"]
    whole = found.replace("50001", "180000").replace("55000", "190000")
    run, _ = run_of(tmp_path, METHOD + whole)
    assert not run.own_corpora, "the suite's own text is the suite's own text"


def test_a_rate_of_its_own_takes_times_that_are_known(tmp_path: Path) -> None:
    method = METHOD.replace('AtFractions", args: {at: [0.5]}', 'OnPlateau"')
    with pytest.raises(ConfigError, match="takes a schedule that knows its times"):
        run_with(tmp_path, RATES, method=method)


def test_plan_and_report_say_in_words_what_a_method_does_in_its_own_way(tmp_path: Path) -> None:
    words = own_schedule(asdict(run_with(tmp_path, RATES)[0].method))
    assert words == (
        "1 x the peak rate, the suite's warm-up, linear decay to 0 over 20 % of it; then 0.5 x the "
        "peak rate, warm-up over 10 % of the size, cosine decay to 0.1 over 100 % of it"
    )
    words = own_schedule(asdict(run_with(tmp_path, TEXTS)[0].method))
    assert words == "the suite's rate, text of digits; then the suite's rate"
    assert own_schedule(asdict(run_with(tmp_path, "")[0].method)) == ""


def test_a_crossed_design_sets_the_schedule_itself() -> None:
    sizes = ["workload.target.n_head=4", "workload.target.d_head=8"]
    cells, _ = design(load_suite("cpu_factors", ["factors.operator=[tokenformer]", *sizes]))
    assert load_method("tokenformer").stages
    assert {len(cell.stages) for cell in cells} == {0}
