"""The yardsticks for speed compute what our models compute, so that their times compare."""

from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from synthetic_records import SUITE, write_records
from torch import Tensor

from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import load_method
from benchmark.plan.config import load_suite as read_suite
from benchmark.records.folder import load_suite
from tools.perf.copied_runs import N_EVALUATIONS, N_SEEDS, copies
from tools.perf.growth_time import Cost, Growths, closed_form, memory, times
from tools.perf.growth_time import document as growth_document
from tools.perf.live_bytes import LiveBytes
from tools.perf.nanogpt_reference import ReferenceGPT, adamw, train
from tools.perf.report_time import document as report_document
from tools.perf.report_time import measure as measure_reports
from tools.perf.rounds import ratio, take_turns
from tools.perf.scheduler import document as scheduler_document
from tools.perf.scheduler import measure as time_scheduler
from tools.perf.step_time import (
    BFLOAT16,
    HARNESS,
    REFERENCE,
    SHAPES,
    TARGET,
    Shape,
    document,
    measure,
    measure_bfloat16,
)

TINY = ModelConfig(
    d_model=8, n_layer=2, n_head=2, d_head=4, d_ff=32, vocab_size=16, seq_len=6,
    norm="layernorm", positions="learned", tied=True,
)  # fmt: skip


def as_reference(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of our model under the reference's names."""
    renamed = {
        "embed.weight": "wte.weight",
        "positions.weight": "wpe.weight",
        "norm_head.weight": "ln_f.weight",
    }
    parts = {
        "norm_attn": "ln_1", "qkv": "attn.c_attn", "o": "attn.c_proj",
        "norm_mlp": "ln_2", "up": "c_fc", "down": "c_proj",
    }  # fmt: skip
    for i in range(TINY.n_layer):
        for mine, theirs in parts.items():
            renamed[f"blocks.{i}.{mine}.weight"] = f"blocks.{i}.{theirs}.weight"
    return {theirs: ours[mine] for mine, theirs in renamed.items()}


@pytest.fixture
def pair() -> tuple[Transformer, ReferenceGPT]:
    """Our model and the reference, with the same weights, in float64."""
    ours, theirs = (
        Transformer(TINY, generator=torch.Generator().manual_seed(0)).double(),
        ReferenceGPT(TINY).double(),
    )
    theirs.load_state_dict(as_reference(dict(ours.named_parameters())))
    return ours, theirs


def test_the_reference_computes_the_same_logits(pair: tuple[Transformer, ReferenceGPT]) -> None:
    ids = torch.randint(TINY.vocab_size, (3, TINY.seq_len))
    ours, theirs = pair
    torch.testing.assert_close(ours(ids), theirs(ids), rtol=0, atol=1e-12)


def test_the_reference_stays_equal_through_training(
    pair: tuple[Transformer, ReferenceGPT],
) -> None:
    batches = list(torch.randint(TINY.vocab_size, (3, 2, TINY.seq_len + 1)))
    ours, theirs = pair
    for model in pair:
        train(model, adamw(model), batches)
    grown = as_reference(dict(ours.named_parameters()))
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(grown[name], parameter, rtol=0, atol=1e-9)


def test_the_shapes_are_those_that_suite_cpu_trains() -> None:
    workload = read_suite("cpu").workload
    assert (workload.target, workload.batch_size) == (TARGET.config, TARGET.batch_size)
    for name in (
        "scratch_small",
        "scratch_small_quarter",
        "scratch_small_width",
        "scratch_small_units",
    ):
        source = load_method(name).ladder.sizes(workload.target)[0]
        assert source in [shape.config for shape in SHAPES], name


@pytest.mark.slow
def test_measures_every_contestant_in_every_round() -> None:
    config = replace(TINY, vocab_size=256, norm="rmsnorm", positions="rotary", tied=False)
    shape = Shape(config, batch_size=2, n_threads=1, n_steps=1)
    found = measure(shape, n_rounds=2)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())
    halved = measure_bfloat16(shape, n_rounds=1)
    text = document({shape: found}, {shape: halved})
    assert f"| {1 / ratio(found[HARNESS], found[REFERENCE]):.2f} " in text
    assert f"| {ratio(halved[BFLOAT16], halved[HARNESS]):.2f} " in text


def test_everyone_takes_a_turn_in_each_round_and_none_is_always_first() -> None:
    clock = count(1)
    found = take_turns(dict.fromkeys("abc", lambda: next(clock)), n_rounds=2, n_warm=1)
    assert found == {"a": [6, 8], "b": [4, 9], "c": [5, 7]}


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_bytes_count_once_per_storage_and_until_nothing_refers_to_it() -> None:
    held = torch.zeros(10)
    with LiveBytes([held]) as live:
        first = torch.empty(100) + 1  # two tensors of 400 bytes at once
        view = first.view(10, 10)
        del first
        torch.zeros(25)
        assert view.shape == (10, 10)
        held.add_(1)
    assert live.peak == 40 + 800


WIDER = replace(TINY, d_model=64, n_head=4, d_head=16, d_ff=256, n_layer=12, vocab_size=64)


@pytest.fixture(scope="module")
def wide() -> ModelConfig:
    """Twice `WIDER` in every width."""
    return WIDER.resized({"d_model": 128, "n_head": 8, "d_ff": 512})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "some"),
    [
        (
            {"d_model": 128, "n_head": 8, "d_ff": 512},
            {"net2net", "hypercloning", "bert2bert_aki", "lemon", "flm101b"},
        ),
        (
            {"n_layer": 24},
            {"bert2bert", "identity_depth", "late_depth", "llama_pro", "stacking_last"},
        ),
    ],
)
def test_growing_holds_little_more_than_both_models(sizes: dict[str, int], some: set[str]) -> None:
    larger = WIDER.resized(sizes)
    plugins = closed_form(WIDER, larger)
    assert some <= plugins.keys()
    for name, plugin in plugins.items():
        cost = memory(plugin, WIDER, larger)
        assert 1 <= cost.weights <= 1.1, name
        assert 1 <= cost.all <= 1.1, name


def test_growth_is_timed_with_and_without_moments(wide: ModelConfig) -> None:
    plugin = closed_form(WIDER, wide)["hypercloning"]
    cost = times(plugin, WIDER, wide)
    assert min(cost.weights, cost.all) > 0
    found = Growths({"hypercloning": Cost(1.0, 1.0)}, {1: {"hypercloning": [cost]}})
    assert "hypercloning" in growth_document({"width": found}, 1)


def test_copies_of_runs_have_the_asked_size_and_every_control(tmp_path: Path) -> None:
    write_records(tmp_path, noise=0.01)
    found = list(islice(copies(load_suite(tmp_path).runs), 20 * N_SEEDS))
    methods = {run.method for run in found}
    assert len({run.run_id for run in found}) == 20 * N_SEEDS
    assert len(methods) == 20
    assert {"fast", "fast_1", "slow_5"} | {planted.name for planted in SUITE} <= methods
    whole = [run for run in found if run.role == "method"]
    assert {len(run.of("evaluation")) for run in whole} == {N_EVALUATIONS}
    assert len({run.of("final")[0]["bpb"] for run in found}) == len(found)


@pytest.mark.slow
def test_reports_are_timed_in_every_round(tmp_path: Path) -> None:
    write_records(tmp_path)
    found = measure_reports(1, sizes=(20, 40), source=tmp_path)
    assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in found.values())
    ratio = found[40][0] / found[20][0]
    assert report_document(found).rstrip().endswith(f"| {ratio:.2f}" + 19 * " " + "|")


@pytest.mark.slow
def test_the_scheduler_is_timed_with_stages_that_only_sleep() -> None:
    timing = time_scheduler("local", workers=2, n_stages=4)
    assert 0 < timing.ideal < timing.seconds
    assert f"{timing.efficiency:.0%}" in scheduler_document([timing])
