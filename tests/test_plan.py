"""Runs become stages that are shared where runs are alike, and end at the budget."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig
from benchmark.data.corpora import CorpusConfig, Splits
from benchmark.growth.depth import DepthOperator
from benchmark.growth.schedule import Ladder, Point
from benchmark.model.cost import Position, training_flops_per_token
from benchmark.model.transformer import Axes, ModelConfig, Transformer
from benchmark.plan import spec as spec_module
from benchmark.plan.config import (
    ExecutionConfig,
    MethodConfig,
    ProtocolConfig,
    SuiteConfig,
    WorkloadConfig,
    load_method,
)
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec, step_flops
from benchmark.plan.suite import compute, plan
from benchmark.training.baseline import Baseline
from benchmark.training.optim import LearningRateConfig, OptimizerConfig, RateCurve, Rewarm

TARGET = ModelConfig(d_model=8, n_layer=4, n_head=2, d_head=4, d_ff=16, seq_len=8)
BATCH = 4


def step_of(n_layer: int) -> float:
    """Training FLOPs of a step, from the cost module and a pencil."""
    shell = Transformer.shell(replace(TARGET, n_layer=n_layer))
    return BATCH * TARGET.seq_len * training_flops_per_token(shell)


STEP = step_of(4)
BUDGET = 200.3 * STEP
CORPUS = CorpusConfig(
    name="none", kind="file", source="nowhere", licence="none", path="none",
    splits=Splits(val_start=0.9, test_start=0.95),
)  # fmt: skip
DATA = {"corpus": "none", "sha256": "0" * 64, "train": 10**9, "val": 10, "test": 10}


@dataclass(frozen=True)
class Repeat(DepthOperator):
    """Each block again, its weights times `factor`."""

    factor: float = 1.0

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer % n_small

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return weight * self.factor


class Deeper(Baseline):
    """Grow n_layer."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.operators = (Repeat(factor),)


class OtherDeeper(Deeper):
    """Another method with the same beginning."""


class Fixed(Baseline):
    """Never grow."""


class OtherModel(Transformer):
    """An architecture of a method's own."""


class Own(Fixed):
    """Train it."""

    model_class = OtherModel


def suite_of(**protocol: Any) -> SuiteConfig:  # noqa: ANN401 - any field
    defaults = ProtocolConfig(budget_flops=BUDGET, rungs=[0.25, 0.5, 1.0])
    return SuiteConfig(
        name="test", version="1", protocol=replace(defaults, **protocol),
        workload=WorkloadConfig(corpus=CORPUS, target=TARGET, batch_size=BATCH),
        run=ExecutionConfig(device="cpu"),
    )  # fmt: skip


def schedule(name: str, **args: object) -> PluginConfig:
    return PluginConfig(target=f"benchmark.growth.schedule:{name}", args=args)


def method_of(target: str, at: tuple[float, ...] = (0.3,), **changes: Any) -> MethodConfig:  # noqa: ANN401
    """A method of this module, growing from 4 / 2 ** len(at) blocks if at all."""
    if at:
        ladder = Ladder(shrink={"n_layer": 2.0 ** len(at)}, n_growths=len(at), path="exponential")
        changes = {"ladder": ladder, "schedule": schedule("AtFractions", at=list(at))} | changes
    return MethodConfig(name=target.lower(), target=f"{__name__}:{target}", **changes)


def run_of(
    target: str, at: tuple[float, ...] = (0.3,), seed: int = 0,
    suite: SuiteConfig | None = None, **changes: Any,  # noqa: ANN401 - any field
) -> Run:  # fmt: skip
    return Run(suite or suite_of(), method_of(target, at, **changes), seed, DATA)


def specs(run: Run) -> list[StageSpec]:
    return [spec for spec, _ in run.predicted()]


def ids(run: Run) -> list[str]:
    return [spec.id for spec in specs(run)]


RUNS: dict[str, Callable[[], Run]] = {
    "fixed": lambda: run_of("Fixed", ()),
    "small": lambda: run_of("Fixed", (), ladder=Ladder(shrink={"n_layer": 4.0}, n_growths=0)),
    "quarter": lambda: run_of("Fixed", (), budget=0.25),
    "half": lambda: run_of("Fixed", (), budget=0.5),
    "hull": lambda: run_of("Fixed", (), sizes={"d_ff": 24, "n_layer": 3}),
    "grown": lambda: run_of("Deeper"),
    "grown twice": lambda: run_of("Deeper", (0.2, 0.7)),
    "grown late": lambda: run_of("Deeper", (0.95,)),
    "untrained source": lambda: run_of("Deeper", (0.0,)),
    "on slope": lambda: run_of(
        "Deeper", ladder=Ladder(shrink={"n_layer": 2.0}), schedule=schedule("OnSlope")
    ),
    "cut": lambda: run_of("Deeper", suite=suite_of(cuts=[0.111, 0.777])),
}
every_run = pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)


@every_run
def test_a_run_ends_less_than_a_step_below_its_budget(make: Callable[[], Run]) -> None:
    run = make()
    stages = run.predicted()
    last, result = stages[-1]
    assert 0 <= run.budget - result.end.flops < last.step_flops
    assert [spec.is_last for spec, _ in stages] == [False] * (len(stages) - 1) + [True]
    assert last.n_grown == run.n_growths
    assert ModelConfig(**last.model) == run.sizes[-1]
    start = 0.0
    for spec, result in stages:
        n_steps = (result.end.flops - start) / step_of(ModelConfig(**spec.model).n_layer)
        if spec.model["d_ff"] == TARGET.d_ff:
            assert n_steps == pytest.approx(round(n_steps), abs=1e-9)
            assert round(n_steps) >= 1
        assert 0 <= spec.until - result.end.flops < spec.step_flops
        start = result.end.flops


@every_run
def test_a_plan_is_a_pure_function(make: Callable[[], Run]) -> None:
    one, same = make(), make()
    assert one.id == same.id
    assert ids(one) == ids(same)
    assert len(set(ids(one))) == len(ids(one))
    done = one.predicted()
    assert [one.next_stage(done[:i]) for i in range(len(done) + 1)] == [*specs(same), None]
    for spec, parent in zip(specs(one), [None, *ids(one)], strict=False):
        assert spec.parent == parent


@every_run
def test_a_spec_survives_json(make: Callable[[], Run]) -> None:
    for spec in specs(make()):
        assert StageSpec(**json.loads(json.dumps(asdict(spec)))).id == spec.id


@every_run
def test_every_evaluation_of_the_protocol_falls_in_one_stage(make: Callable[[], Run]) -> None:
    run = make()
    n = run.suite.protocol.n_evaluations
    wanted = {i * BUDGET / n for i in range(1, n + 1) if i * BUDGET / n <= run.budget}
    inside = Counter(mark for spec in specs(run) for mark in spec.marks)
    ends = {spec.until for spec in specs(run)}
    assert wanted <= inside.keys() | ends
    for mark, times in inside.items():
        # a stage that stops short of a mark it ends at hands it on, where no step is left for it
        assert times + (mark in ends) <= 2


def test_every_field_of_a_spec_is_in_its_id() -> None:
    spec = specs(run_of("Deeper"))[1]
    for field in fields(spec):
        value = getattr(spec, field.name)
        changed = replace(spec, **{field.name: [value, "changed"]})  # type: ignore[arg-type]
        assert changed.id != spec.id, field.name


def test_two_seeds_share_nothing_and_differ_in_nothing_else() -> None:
    one, other = (run_of("Deeper", seed=seed) for seed in (0, 1))
    assert one.id != other.id
    assert not set(ids(one)) & set(ids(other))
    for a, b in zip(specs(one), specs(other), strict=True):
        changed = {f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)}
        assert changed <= {"seed", "parent"}
    configs = [run.config() for run in (one, other)]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"seed"}


def n_shared(one: Run, other: Run) -> int:
    """Length of the common prefix; nothing after it is shared."""
    a, b = ids(one), ids(other)
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert not set(a[n:]) & set(b[n:])
    return n


def first_grown(run: Run) -> int:
    return next(i for i, spec in enumerate(specs(run)) if spec.n_grown)


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("OtherDeeper", {}),
        ("Deeper", {"args": {"factor": 0.5}}),
        ("Deeper", {"state_policy": "reset"}),
        ("Deeper", {"rewarm": Rewarm(which="all")}),
    ],
)
def test_methods_share_all_stages_before_they_first_grow(
    target: str, changes: dict[str, Any]
) -> None:
    base, other = run_of("Deeper"), run_of(target, **changes)
    assert base.id != other.id
    assert n_shared(base, other) == first_grown(base) == first_grown(other) > 0


def test_what_is_only_said_of_a_method_shares_every_stage() -> None:
    base, other = run_of("Deeper"), run_of("Deeper", summary="the same", role="control")
    assert n_shared(base, other) == len(ids(base))


def test_a_later_growth_shares_what_comes_before_the_earlier_one() -> None:
    early, late = run_of("Deeper", (0.3,)), run_of("Deeper", (0.6,))
    assert n_shared(early, late) == 1  # up to the decay of the rung at C*/4
    cut = suite_of(cuts=[0.3])
    assert n_shared(run_of("Deeper", (0.3,), suite=cut), run_of("Deeper", (0.6,), suite=cut)) == 2


@pytest.mark.parametrize("budget", [0.25, 0.5])
def test_a_shorter_run_shares_the_stable_phase_and_decays_alone(budget: float) -> None:
    rung, scratch = run_of("Fixed", (), budget=budget), run_of("Fixed", ())
    shared = n_shared(rung, scratch)
    assert shared == len(ids(rung)) - 1 > 0
    decay = specs(rung)[-1]
    assert decay.rate["decay"] == (0.8 * budget * BUDGET, budget * BUDGET)
    assert [spec.rate["decay"] for spec in specs(rung)[:-1]] == [None] * shared
    stable = rung.predicted()[shared - 1][1].end.flops
    assert 0 <= 0.8 * budget * BUDGET - stable < STEP


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7, 0.9])
def test_any_rung_of_the_protocol_shares_the_stable_phase(fraction: float) -> None:
    suite = suite_of(rungs=[fraction, 1.0])
    rung = run_of("Fixed", (), suite=suite, budget=fraction)
    n_stable = sum(spec.rate["decay"] is None for spec in specs(rung))
    assert n_shared(rung, run_of("Fixed", (), suite=suite)) == n_stable > 0


def test_a_rung_that_the_protocol_does_not_name_trains_alone() -> None:
    suite = suite_of(rungs=[1.0])
    assert (
        n_shared(run_of("Fixed", (), suite=suite, budget=0.5), run_of("Fixed", (), suite=suite))
        == 0
    )


def test_sharing_counts_a_stage_once() -> None:
    runs = [run_of("Fixed", ()), run_of("Fixed", (), budget=0.5)]
    charged, executed = compute(runs)
    ends = [run.predicted()[-1][1].end.flops for run in runs]
    n = n_shared(*runs)
    assert charged == sum(ends)
    assert executed == sum(ends) - runs[0].predicted()[n - 1][1].end.flops


def test_other_data_is_another_experiment() -> None:
    method = method_of("Deeper")
    one, other = (Run(suite_of(), method, 0, DATA | {"sha256": digit * 64}) for digit in "01")
    assert one.id != other.id
    assert n_shared(one, other) == 0


@pytest.mark.parametrize("name", ["torch", "pytorch-lightning"])
def test_another_release_trains_the_same_run_in_stages_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    here = run_of("Deeper")
    stages = ids(here)
    monkeypatch.setitem(spec_module.RELEASES, name, "9.9.9")
    there = run_of("Deeper")
    assert there.id == here.id
    assert not set(ids(there)) & set(stages)


def test_another_device_trains_the_same_run_in_stages_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = run_of("Deeper")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = run_of("Deeper", suite=replace(suite_of(), run=ExecutionConfig(device="auto")))
    assert {spec.device for spec in specs(here)} == {"cpu"}
    assert {spec.device for spec in specs(there)} == {"cuda"}
    assert there.id == here.id
    assert not set(ids(there)) & set(ids(here))


def test_an_architecture_of_the_method_s_own_is_part_of_every_stage() -> None:
    own, plain = run_of("Own", ()), run_of("Fixed", ())
    assert n_shared(own, plain) == 0
    assert specs(own)[0].method_code != specs(plain)[0].method_code


def test_ids_name_a_class_and_not_the_module_it_lies_in() -> None:
    spec = specs(run_of("Deeper"))[-1]
    moved = replace(spec, baseline="elsewhere:" + spec.baseline.partition(":")[2])
    other = replace(spec, baseline=spec.baseline + "Still")
    assert moved.id == spec.id != other.id
    assert replace(spec, method_code="0" * 16).id != spec.id
    args = [replace(spec, args={"target": name}).id for name in ("a:X", "b:X")]
    assert args[0] != args[1], "a method's own arguments are its own"


# The learning rate


@every_run
def test_all_stages_read_one_learning_rate_that_ends_at_zero_at_the_budget(
    make: Callable[[], Run],
) -> None:
    run = make()
    rate = run.suite.protocol.learning_rate
    start = 0.0
    for spec, result in run.predicted():
        decay = spec.rate["decay"]
        curve = RateCurve(**spec.rate | {"decay": decay and tuple(decay)})
        for i in range(21):
            flops = start + (result.end.flops - start) * i / 20
            expected = rate.peak * min(
                1, flops / (rate.warmup * BUDGET), (run.budget - flops) / (rate.decay * run.budget)
            )
            assert curve.at(flops) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        start = result.end.flops
    assert curve.at(run.budget) == 0.0
    assert curve.at(run.budget - STEP) > 0.0


def test_a_warm_up_is_as_long_for_a_short_run_as_for_a_long_one() -> None:
    rates = [specs(run_of("Fixed", (), budget=b))[0].rate["warmup_flops"] for b in (0.25, 1.0)]
    assert rates[0] == rates[1] == 0.02 * BUDGET


# Growth


def test_growth_happens_at_the_last_step_before_its_time() -> None:
    run = run_of("Deeper", (0.2, 0.7))
    stages = run.predicted()
    for (before, result), (after, _) in pairwise(stages):
        if after.grows_from is not None:
            time = (0.2, 0.7)[after.n_grown - 1] * BUDGET
            assert 0 <= time - result.end.flops < before.step_flops
            assert after.n_grown == before.n_grown + 1
            assert (after.grows_from, after.baseline) == (before.model, f"{__name__}:Deeper")
        else:
            assert after.n_grown == before.n_grown
    assert [spec.model["n_layer"] for spec, _ in stages if spec.grows_from] == [2, 4]


def test_before_it_grows_a_method_is_plain_training() -> None:
    first = specs(run_of("Deeper", args={"factor": 0.5}, rewarm=Rewarm(which="all")))[0]
    assert (first.baseline, first.args, first.state_policy, first.rewarm) == (
        "benchmark.training.baseline:Plain", {}, "", None,
    )  # fmt: skip


def test_an_untrained_source_grows_before_any_step() -> None:
    run = run_of("Deeper", (0.0,))
    first = specs(run)[0]
    assert first.parent is None
    assert first.grows_from is not None
    assert (first.grows_from["n_layer"], first.model["n_layer"], first.n_grown) == (2, 4, 1)
    n_steps = run.predicted()[-1][1].end.step
    assert n_steps == run_of("Fixed", ()).predicted()[-1][1].end.step  # nothing was spent on it


def on_loss(name: str, n_growths: int = 1, **args: object) -> Run:
    ladder = Ladder(shrink={"n_layer": 2.0**n_growths}, n_growths=n_growths, path="exponential")
    return run_of("Deeper", ladder=ladder, schedule=schedule(name, **args))


def followed(run: Run, bpb: Callable[[int], float]) -> list[tuple[StageSpec, StageResult]]:
    """All stages, when the k-th evaluation of the run gives `bpb(k)`."""
    done: list[tuple[StageSpec, StageResult]] = []
    n = 0
    while (spec := run.next_stage(done)) is not None:
        _, planned = run.predicted(done)[len(done)]
        marks = (*spec.marks, spec.until)
        points = tuple(Point(mark, bpb(n + i), spec.n_grown) for i, mark in enumerate(marks))
        n += len(points)
        done.append((spec, replace(planned, points=points)))
    return done


def test_a_schedule_that_waits_for_the_loss_is_asked_at_every_evaluation() -> None:
    run = on_loss("OnPlateau", patience=2)
    done = followed(run, lambda k: 5.0 - k if k < 3 else 9.0)  # best at the third, old at the fifth
    grown = next(spec for spec, _ in done if spec.grows_from)
    spent = next(r.end.flops for (s, r), (t, _) in pairwise(done) if t is grown)
    points = [
        p for s, r in done[: done.index(next(x for x in done if x[0] is grown))] for p in r.points
    ]
    assert len(points) == 5
    assert 0 <= points[-1].flops - spent < step_of(2)
    assert done[-1][0].is_last


def test_a_schedule_that_waits_for_the_loss_grows_at_the_latest_time() -> None:
    run = on_loss("OnPlateau", n_growths=2, latest=0.6)
    done = followed(run, lambda k: 100.0 - k)
    starts = [r.end.flops / BUDGET for (_, r), (t, _) in pairwise(done) if t.grows_from]
    assert starts[0] == pytest.approx(0.6, abs=0.01)
    assert starts[1] == pytest.approx(0.65, abs=0.01)  # the next evaluation
    assert done[-1][0].n_grown == 2


def test_a_resumed_run_decides_alike() -> None:
    run, again = on_loss("OnSlope"), on_loss("OnSlope")
    done = followed(run, lambda k: 3.0 / (k + 1) ** 0.02)
    assert any(spec.grows_from for spec, _ in done)
    for i in range(len(done)):
        assert again.next_stage(done[:i]) == done[i][0]


def test_a_growth_that_cost_more_than_planned_delays_what_comes_after() -> None:
    """Maps that are learned spend FLOPs; the rest of the run is planned around what they took."""
    run = run_of("Deeper", (0.3,))
    done = run.predicted()[: first_grown(run)]
    spec = run.next_stage(done)
    assert spec is not None
    late = Position(step=1, window=4, tokens=32, flops=0.795 * BUDGET)
    after = run.predicted([*done, (spec, StageResult(status="done", end=late))])
    assert 0 <= BUDGET - after[-1][1].end.flops < STEP


# Refusals


def test_refuses_more_than_one_epoch_unless_told_otherwise(tmp_path: Path) -> None:
    path = written(tmp_path, replace(method_of("Fixed", ()), role="control"))
    run = run_of("Fixed", ())
    wanted = run.predicted()[-1][1].end.tokens
    assert wanted == 200 * BATCH * TARGET.seq_len
    suite = replace(suite_of(seeds=[0]), methods=[path])
    short = DATA | {"train": wanted}  # the first token is no target
    assert len(plan(suite, DATA | {"train": wanted + 1})) == 1
    with pytest.raises(ConfigError, match=rf"fixed would read {wanted:,} bytes"):
        plan(suite, short)
    repeated = replace(suite, protocol=replace(suite.protocol, allow_repeats=True))
    assert plan(repeated, short)


def written(folder: Path, method: MethodConfig) -> str:
    """The method as a file that a suite can name."""
    raw = asdict(method)
    content = {key: value for key, value in raw.items() if value is not None}
    content["ladder"] = {key: value for key, value in raw["ladder"].items() if key != "groups"}
    path = folder / f"{method.name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_an_id_does_not_depend_on_who_else_takes_part(tmp_path: Path) -> None:
    names = [written(tmp_path, method_of(target)) for target in ("Deeper", "OtherDeeper")]
    suite = suite_of(seeds=[0, 1])
    alone = plan(replace(suite, methods=names[:1]), DATA)
    together = plan(replace(suite, methods=names[::-1], hull=[{"n_layer": 3}]), DATA)
    assert [(run.method.name, run.seed) for run in together] == [
        (name, seed) for name in ("otherdeeper", "deeper", "fixed_layer3") for seed in (0, 1)
    ]
    assert [run.id for run in alone] == [run.id for run in together[2:4]]
    assert len({run.id for run in together}) == 6
    assert load_method(names[0]) == method_of("Deeper")


def test_runs_of_a_suite_differ_only_in_method_and_seed(tmp_path: Path) -> None:
    names = [written(tmp_path, method_of(target)) for target in ("Deeper", "OtherDeeper")]
    first, *others = plan(replace(suite_of(), methods=names, hull=[{"d_ff": 24}]), DATA)
    for run in others:
        a, b = first.config(), run.config()
        assert {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)} <= {
            "method",
            "seed",
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "needs at least one"),
        ({"methods": ["scratch", "scratch"]}, r"\['scratch'\] appear more than once"),
        ({"methods": ["scratch"], "protocol": replace(suite_of().protocol, seeds=[])}, "distinct"),
        ({"methods": ["scratch"], "protocol": replace(suite_of().protocol, seeds=[1, 1])},
         "distinct"),
        ({"methods": ["scrach"]}, "did you mean scratch"),
        ({"hull": [{"width": 3}]}, "width"),
    ],
)  # fmt: skip
def test_refuses_a_suite_without_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(replace(suite_of(), **changes), DATA)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run_of("Deeper", schedule=None), r"method\.deeper\.schedule is missing"),
        (lambda: run_of("Deeper", args={"factr": 1}), "did you mean factor"),
        (lambda: run_of("Fixed"), "cannot grow n_layer from 2 to 4"),
        (lambda: run_of("Nobody"), "cannot import"),
        (lambda: run_of("TARGET"), "is not a Baseline"),
        (lambda: run_of("Deeper", ladder=Ladder(shrink={"n_layer": 3.0})), "does not divide"),
        (lambda: run_of("Deeper", schedule=schedule("AtFractions", at=[0.1, 0.2])), "2 times for"),
        (lambda: run_of("Fixed", (), suite=suite_of(budget_flops=0.9 * STEP)), "too few"),
        (lambda: run_of("Fixed", (), suite=suite_of(cuts=[0.999])), "too few"),
        (lambda: run_of("Deeper", (0.999,)), "too few"),
        (lambda: run_of("Deeper", (0.3, 0.3001)), "too few"),
        (lambda: run_of("Deeper", (0.0, 0.001)), "too few"),
    ],
)
def test_refuses_a_run_that_cannot_be_what_it_says(make: Callable[[], Run], message: str) -> None:
    """Among them: no step left in the decay, growth after the last step, two within one step."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_step_costs_what_its_tokens_cost() -> None:
    assert step_flops(Transformer.shell(TARGET), BATCH, (), OptimizerConfig()) == STEP
    assert STEP == 4 * 8 * 3 * 2 * (4 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 8 * 256 + 4 * 2 * 8 * 4.5)
    assert math.isfinite(STEP)
    assert torch.get_num_threads() == 1


def test_a_decay_as_long_as_the_run_is_one_stage() -> None:
    rate = LearningRateConfig(decay=1.0)
    assert len(specs(run_of("Fixed", (), suite=suite_of(learning_rate=rate, rungs=[1.0])))) == 1
