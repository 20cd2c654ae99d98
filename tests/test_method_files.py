"""The methods as they are configured: what their papers publish, and what every suite can run."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typing_extensions import override

from baselines.tokenformer import MODES
from benchmark.base.plugins import PluginConfig
from benchmark.growth.operator import StatePolicy
from benchmark.growth.schedule import GrowthSchedule, Progress
from benchmark.plan.config import available, load_method, load_suite
from benchmark.plan.run import Run
from benchmark.plan.suite import plan

BASELINES = Path(__file__).resolve().parent.parent / "baselines"
MOST_LINES, MOST_LINES_OF_HALF = 90, 45
DATA = {"name": "none", "sha256": "", "train": 10**15, "val": 1, "test": 1}
METHODS = available("method")
AFRESH = ("reset", "all")
PUBLISHED = {
    "hypercloning": AFRESH,
    "lemon": AFRESH,
    "bert2bert": AFRESH,
    "bert2bert_aki": AFRESH,
    "stacking": AFRESH,
    "restart_only": AFRESH,
    "tokenformer": AFRESH,
    "tokenformer_paper": AFRESH,
    "ligo": ("reset", "none"),
    "net2net_corner": ("reset", "none"),
    "staged_training": ("scaled", "all"),
    "sparkling": ("asymmetric", "new"),
    "msg": ("asymmetric", "none"),
    "flm101b": ("asymmetric", "all"),
}
"""What becomes of Adam's moments, and whose rate is warmed up again."""


@dataclass(frozen=True)
class Halfway(GrowthSchedule):
    """A schedule of somebody else's package."""

    @override
    def due(self, progress: Progress) -> bool:
        return progress.spent >= 0.5


def run_of(method: str, suite: str = "smoke") -> Run:
    return Run(load_suite(suite), load_method(method), 0, DATA)


@pytest.mark.parametrize("suite", available("suite"))
def test_every_suite_can_be_planned(suite: str) -> None:
    assert plan(load_suite(suite), DATA)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["smoke", "cpu", "enwik8", "enwik9"])
def test_every_method_can_run_in_every_suite(suite: str) -> None:
    config = load_suite(suite)
    for name in METHODS:
        assert Run(config, load_method(name), 0, DATA).predicted()[-1][0].is_last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "n_bytes"),
    [("enwik8", 90_000_000), *((name, 990_000_000) for name in ("enwik9", "gpu", "gpu_large"))],
)
def test_no_method_of_a_suite_reads_its_corpus_twice(suite: str, n_bytes: int) -> None:
    config = load_suite(suite)
    assert config.workload.target.n_layer >= 8
    read = {name: run_of(name, suite).predicted()[-1][1].end.tokens for name in config.methods}
    assert {
        name: n for name, n in read.items() if n > n_bytes - config.workload.target.seq_len
    } == {}


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_by_default_a_method_does_to_the_optimizer_what_its_paper_does(
    name: str, expected: tuple[str, str]
) -> None:
    run = run_of(name)
    assert (run.policy.value, run.rewarm.which) == expected


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("_asymmetric")])
def test_a_variant_keeps_old_moments_where_the_paper_drops_them(name: str) -> None:
    published, variant = run_of(name.removesuffix("_asymmetric")), run_of(name)
    assert published.policy is StatePolicy.RESET
    assert (variant.policy, variant.rewarm.which) == (StatePolicy.ASYMMETRIC, "none")
    assert (published.sizes, published.schedule) == (variant.sizes, variant.schedule)
    assert published.baseline.operators == variant.baseline.operators


def test_growth_before_the_first_step_warms_up_once() -> None:
    assert run_of("untrained_source").rewarm.which == "none"


@pytest.mark.slow
def test_every_further_control_is_a_method_of_the_same_size_and_architecture() -> None:
    controlled = {name: load_method(name).controls for name in METHODS}
    alone = {name for name in controlled if name.startswith("tokenformer") and not controlled[name]}
    assert alone == {
        "tokenformer_dead",
        "tokenformer_small",
        "tokenformer_chain_small",
        *(name for name in alone if name.endswith("_scratch")),
    }
    for name, controls in controlled.items():
        for control in controls:
            method, scratch = run_of(name), run_of(control)
            assert scratch.n_growths == 0
            if name == "tokenformer_frozen":  # has the tokens that rest in tensors of their own
                assert scratch.sizes[0].resized({"n_rest": 18}) == method.sizes[-1]
                continue
            assert scratch.sizes == method.sizes[-1:]
            assert scratch.baseline.model_class is method.baseline.model_class


def test_every_mode_and_every_activation_of_tokenformer_has_a_file() -> None:
    configs = [load_method(name) for name in METHODS if name.startswith("tokenformer")]
    assert {config.args.get("mode", "paper") for config in configs} == set(MODES)
    thetas = {config.args.get("theta", "l2_norm_gelu") for config in configs}
    assert thetas == {"l2_norm_gelu", "gelu_l2_norm", "softmax"}


def test_every_trigger_has_a_file() -> None:
    schedules = [load_method(name).schedule for name in METHODS]
    targets = {schedule.target.partition(":")[2] for schedule in schedules if schedule}
    assert targets == {"AtFractions", "Proportional", "OnSlope", "OnPlateau"}


def test_any_importable_schedule_will_do() -> None:
    plugin = PluginConfig(target="test_method_files:Halfway")
    run = Run(load_suite("smoke"), replace(load_method("stacking"), schedule=plugin), 0, DATA)
    grown = next(spec for spec, _ in run.predicted() if spec.grows_from)
    assert isinstance(run.schedule, Halfway)
    assert grown.n_grown == 1


def test_late_depth_starts_from_one_layer_whatever_the_depth() -> None:
    for suite in ("smoke", "cpu", "enwik8"):
        for name in ("late_depth", "late_depth_copies"):
            sizes = run_of(name, suite).sizes
            assert [config.n_layer for config in sizes] == [
                1,
                load_suite(suite).workload.target.n_layer,
            ]


def lengths(folder: Path) -> dict[str, int]:
    """Lines of every module of a folder that holds anything."""
    counts = {path.stem: len(path.read_text().splitlines()) for path in folder.glob("[!_]*.py")}
    return dict(sorted(counts.items()))


def test_a_method_is_short() -> None:
    counts = lengths(BASELINES)
    assert {name: n for name, n in counts.items() if n > MOST_LINES} == {}
    assert statistics.median(counts.values()) <= MOST_LINES_OF_HALF


def test_a_long_method_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * 91)
    assert lengths(tmp_path) == {"long": 91}


def test_targets_have_four_blocks_and_four_heads_but_for_one_that_adr_0035_names() -> None:
    targets = {name: load_suite(name).workload.target for name in available("suite")}
    assert {name for name, of in targets.items() if of.n_layer < 4} == set()
    assert {name for name, of in targets.items() if of.n_head < 4} == {"regime_quarter"}


def test_suites_of_the_study_have_seeds_of_their_own_and_none_that_tunes() -> None:
    # suites of one workload and protocol, whose common rows are trained once
    one = ("cpu", "cpu_tuned", "mixes", "tokenformer_rules", "tokenformer_tuned")
    maps = ("regime_quarter", "regime_optimal", "regime_fourfold")
    shared = dict.fromkeys(one, "tokenformer") | dict.fromkeys(maps, "ladder_2")
    seeds: dict[str, set[int]] = {}
    for name in available("suite"):
        suite = load_suite(name)
        if suite.workload.corpus.name in ("pylib", "wikipedia") and name != "smoke":
            seeds.setdefault(shared.get(name, name), set()).update(suite.protocol.seeds)
    seeds["tuning"] = {70, 71}
    assert len(set.union(*seeds.values())) == sum(map(len, seeds.values())), seeds
