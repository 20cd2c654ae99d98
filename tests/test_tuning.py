"""Every method gets the same trials; the best on validation is used, nothing else looked at."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_suite import prepare

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig
from benchmark.cli.listing import outlooks_of, totals
from benchmark.executors.track import Track
from benchmark.plan import tuning
from benchmark.plan.config import (
    MethodConfig,
    ProtocolConfig,
    TuningConfig,
    load_method,
    load_suite,
)
from benchmark.plan.run import Run
from benchmark.plan.suite import compute
from benchmark.records.folder import load_run, run_ids
from benchmark.session.selection import settle, val_bpb
from benchmark.session.session import Session
from benchmark.stage.checkpoint import StageStore
from benchmark.training.optim import OptimizerConfig

SPACE = {"learning_rate.peak": [1e-3, 1e-1], "optimizer.weight_decay": [0.01, 1.0]}
TUNING = TuningConfig(trials=5, fraction=0.5, seeds=[7, 8], space=SPACE, private=2)
PROTOCOL = ProtocolConfig(budget_flops=1e9, seeds=[0, 1], tuning=TUNING)
SCRATCH = MethodConfig(name="scratch", role="control", target="baselines.scratch:Scratch")
STACKING = MethodConfig(
    name="stacking",
    target="baselines.stacking:Stacking",
    schedule=PluginConfig(target="benchmark.growth.schedule:AtFractions", args={"at": [0.5]}),
    tunable={"schedule.args.at": [0.25, 0.6]},
)
NET2NET = replace(STACKING, name="net2net", tunable={"args.noise": [0.01, 0.5]})
METHODS = [SCRATCH, STACKING, NET2NET]


def with_tuning(**changes: Any) -> ProtocolConfig:  # noqa: ANN401 - any field
    return replace(PROTOCOL, tuning=replace(TUNING, **changes))


# Trials


def test_every_method_is_tried_at_the_same_shared_points() -> None:
    drawn = [tuning.trials(PROTOCOL, method) for method in METHODS]
    shared = [[{n: trial.tuned[n] for n in SPACE} for trial in trials] for trials in drawn]
    assert shared[0] == shared[1] == shared[2]
    assert len({trial["learning_rate.peak"] for trial in shared[0]}) == TUNING.trials


def test_the_shared_points_depend_on_no_method_s_own_dimensions() -> None:
    more = replace(STACKING, tunable=STACKING.tunable | {"args.a": [1.0, 2.0]})
    one, other = (tuning.trials(PROTOCOL, method)[3].tuned for method in (STACKING, more))
    assert {n: one[n] for n in SPACE} == {n: other[n] for n in SPACE}


def test_everyone_has_as_many_trials_and_as_much_budget() -> None:
    for method in METHODS:
        trials = tuning.trials(PROTOCOL, method)
        assert [trial.trial for trial in trials] == list(range(5))
        assert {(trial.budget, trial.role, trial.tunes) for trial in trials} == {
            (0.5, "tuning", method.name)
        }
        assert [trial.name for trial in trials[:2]] == [f"{method.name}#0", f"{method.name}#1"]


def test_the_first_trial_is_the_default_setting() -> None:
    for method in METHODS:
        first = tuning.trials(PROTOCOL, method)[0]
        rate, optimizer = PROTOCOL.learning_rate, PROTOCOL.optimizer
        assert tuning.with_settings(PROTOCOL, first.tuned) == PROTOCOL
        assert first.tuned == dict(zip(SPACE, (rate.peak, optimizer.weight_decay), strict=True))
        assert (first.args, first.schedule) == (method.args, method.schedule)


def test_an_argument_of_another_optimizer_is_tuned_like_a_setting() -> None:
    name = "optimizer.args.momentum"
    other = OptimizerConfig(target="test_optimizers:Momentum", args={"momentum": 0.9})
    protocol = replace(with_tuning(space={name: [0.5, 0.99]}), optimizer=other)
    assert tuning.tuned_methods(protocol, [SCRATCH]) == [SCRATCH]
    first, *others = tuning.trials(protocol, SCRATCH)
    assert first.tuned == {name: 0.9}
    for trial in others:
        applied = tuning.with_settings(protocol, trial.tuned)
        assert applied.optimizer == replace(other, args={"momentum": trial.tuned[name]})
    without = replace(protocol, optimizer=replace(other, args={}))
    with pytest.raises(ConfigError, match=r"number, in protocol\.optimizer\.args\.momentum; got N"):
        tuning.tuned_methods(without, [SCRATCH])


def test_settings_lie_within_their_bounds_and_are_applied() -> None:
    for method in METHODS:
        for trial in tuning.trials(PROTOCOL, method)[1:]:
            assert trial.tuned.keys() == SPACE.keys() | method.tunable.keys()
            for name, (low, high) in (SPACE | method.tunable).items():
                assert low <= trial.tuned[name] <= high
            if method is STACKING:
                assert trial.schedule is not None
                assert trial.schedule.args == {"at": [trial.tuned["schedule.args.at"]]}
            if method is NET2NET:
                assert trial.args == {"noise": trial.tuned["args.noise"]}
            applied = tuning.with_settings(PROTOCOL, trial.tuned)
            assert applied.learning_rate.peak == trial.tuned["learning_rate.peak"]
            assert applied.optimizer.weight_decay == trial.tuned["optimizer.weight_decay"]


def test_points_fill_the_space_evenly_in_the_logarithm() -> None:
    protocol = with_tuning(trials=65, space={"learning_rate.peak": [1e-3, 1e-1]}, private=0)
    peaks = [trial.tuned["learning_rate.peak"] for trial in tuning.trials(protocol, SCRATCH)[1:]]
    eighths = [int(math.log10(peak / 1e-3) * 4 - 1e-9) for peak in peaks]
    assert [eighths.count(i) for i in range(8)] == [8] * 8


def test_other_tuning_seeds_draw_other_points() -> None:
    assert tuning.points(TUNING) == tuning.points(TUNING)
    assert tuning.points(TUNING) != tuning.points(replace(TUNING, seeds=[9]))


# Who is tuned


def test_controls_and_fixed_sizes_are_tuned_whoever_else_is() -> None:
    hull = replace(SCRATCH, name="fixed", role="hull")
    rung = replace(SCRATCH, name="half", role="rung", budget=0.5)
    methods = [*METHODS, hull, rung]
    some = with_tuning(methods=["net2net"])
    assert [m.name for m in tuning.tuned_methods(some, methods)] == ["scratch", "net2net", "fixed"]
    everyone = [m.name for m in tuning.tuned_methods(PROTOCOL, methods)]
    assert everyone == ["scratch", "stacking", "net2net", "fixed"]
    assert tuning.tuned_methods(with_tuning(trials=0), methods) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 7]}, r"tuning\.seeds \[1\] are also in protocol\.seeds"),
        ({"seeds": []}, "distinct and not empty"),
        ({"seeds": [7, 7]}, "distinct and not empty"),
        ({"trials": 1}, "at least 2"),
        ({"space": {}}, "space is empty"),
        ({"space": {"learning_rate.peek": [1, 2]}}, "did you mean learning_rate.peak"),
        ({"space": {"learning_rate.peak": [0.0, 1.0]}}, "0 < low < high"),
        ({"space": {"learning_rate.peak": [2.0, 1.0]}}, "0 < low < high"),
        ({"space": {"optimizer.beta1": [0.5, 1.5]}}, r"must be a number in \[0, 1\), got 1.5"),
        ({"methods": ["stackin"]}, "did you mean stacking"),
        ({"private": 0}, r"method\.stacking\.tunable: \['schedule\.args\.at'\] are 1 dimensions"),
    ],
)
def test_refuses_an_unequal_tuning_or_one_without_sense(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tuning.tuned_methods(with_tuning(**changes), METHODS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tunable": {f"args.{x}": [1.0, 2.0] for x in "abc"}}, "are 3 dimensions.* allows.* 2"),
        ({"tunable": {"learning_rate.peak": [0.1, 0.2]}}, "is not the method's own"),
        ({"tunable": {"args.a.b": [0.1, 0.2]}}, "is not the method's own"),
        ({"tunable": {"args.a": [0.1]}}, "0 < low < high"),
        ({"schedule": None}, "has no schedule"),
        (
            {"schedule": PluginConfig(target="x:Y", args={"at": [0.1, 0.2]})},
            "one dimension is one value",
        ),
    ],
)
def test_refuses_dimensions_that_a_method_may_not_have(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tuning.tuned_methods(PROTOCOL, [SCRATCH, replace(STACKING, **changes)])


@pytest.mark.parametrize(
    "field", ["tuned: {learning_rate.peak: 0.1}", "tunes: scratch", "trial: 0", "levels: {at: x}"]
)
def test_refuses_a_method_s_file_that_sets_what_the_planner_sets(
    tmp_path: Path, field: str
) -> None:
    path = tmp_path / "cheat.yaml"
    path.write_text(f"name: cheat\ntarget: 'baselines.scratch:Scratch'\n{field}\n")
    with pytest.raises(ConfigError, match=f"planner sets {field.partition(':')[0]}"):
        load_method(str(path))


def test_refuses_a_method_s_file_that_asks_for_more_trials(tmp_path: Path) -> None:
    path = tmp_path / "greedy.yaml"
    path.write_text("{name: greedy, target: 'baselines.scratch:Scratch', trials: 6}")
    with pytest.raises(ConfigError, match="unknown key trials"):
        load_method(str(path))


def test_a_file_does_not_inherit_what_another_may_tune(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent.yaml", tmp_path / "child.yaml"
    parent.write_text("{name: parent, target: 'a:B', tunable: {args.a: [1, 2]}}")
    child.write_text(f"{{defaults: '{parent}', name: child}}")
    assert load_method(str(parent)).tunable == {"args.a": [1.0, 2.0]}
    assert load_method(str(child)).tunable == {}


# The choice


def test_the_best_trial_has_the_lowest_mean_over_seeds() -> None:
    assert tuning.best({0: [2.0, 2.0], 1: [1.0, 2.9], 2: [2.0, 2.1]}) == 1


def test_ties_go_to_the_lower_number_and_so_to_the_default() -> None:
    assert tuning.best({2: [1.5, 2.5], 0: [2.0, 2.0], 1: [2.0, 2.0]}) == 0


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_a_trial_with_a_run_without_a_score_is_never_chosen(lost: float) -> None:
    assert tuning.best({0: [9.0, 9.0], 1: [lost, 1.0]}) == 0
    assert tuning.best({0: [lost, 1.0], 1: [9.0, 9.0]}) == 1
    assert tuning.best({0: [lost, lost], 1: [lost, 1.0]}) == 0


@given(st.dictionaries(st.integers(0, 50), st.floats(0.1, 9), min_size=1))
def test_no_trial_is_better_than_the_best(scores: dict[int, float]) -> None:
    best = tuning.best({trial: [score] for trial, score in scores.items()})
    assert scores[best] == min(scores.values())


# A tuned suite, trained


def tiny(folder: Path) -> Session:
    """A suite of two tuned methods in a working folder."""
    prepare(folder)
    method = folder / "late.yaml"
    method.write_text(
        yaml.safe_dump(
            {
                "name": "late",
                "target": "baselines.stacking:Stacking",
                "ladder": {"shrink": {"n_layer": 2}, "n_growths": 1},
                "schedule": {
                    "target": "benchmark.growth.schedule:AtFractions",
                    "args": {"at": [0.5]},
                },
                "tunable": {"schedule.args.at": [0.25, 0.6]},
            }
        )
    )
    raw = yaml.safe_load((folder / "tiny.yaml").read_text())
    raw["methods"] = ["scratch", str(method)]
    raw["workload"]["corpus"]["path"] = str(folder / "letters.txt")
    raw["protocol"] |= {
        "seeds": [0, 1],
        "cuts": [],
        "tuning": {
            "trials": 3,
            "fraction": 0.5,
            "seeds": [8, 9],
            "space": {"learning_rate.peak": [1e-3, 2e-2]},
        },
    }
    raw["run"] |= {"results": str(folder / "results"), "cache": str(folder / "cache")}
    (folder / "tuned.yaml").write_text(yaml.safe_dump(raw))
    return Session(load_suite(str(folder / "tuned.yaml")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[Track]]:
    """The tuned suite after one command, and how its runs ended."""
    session = tiny(tmp_path_factory.mktemp("tuned"))
    return session, session.execute(lambda _: None)


def of_role(session: Session, role: str) -> list[Run]:
    return [run for run in session.runs if run.method.role == role]


def tuned_runs(session: Session) -> list[Run]:
    return [run for run in session.runs if run.method.tunes and run.method.trial is None]


def test_before_the_trials_the_settings_are_open(tmp_path: Path) -> None:
    session = tiny(tmp_path)
    names = [run.method.name for run in session.runs]
    finals = ["scratch", "late", "scratch-tuned", "late-tuned"]
    trials = [f"{method}#{i}" for method in ("scratch", "late") for i in range(3)]
    assert names == [name for name in [*finals, *trials] for _ in range(2)]
    assert all(tuning.is_open(run.method) for run in tuned_runs(session))
    assert {run.seed for run in of_role(session, "tuning")} == {8, 9}
    assert {run.seed for run in session.runs if run.method.role != "tuning"} == {0, 1}


@pytest.mark.slow
def test_every_run_ends_and_is_listed(trained: tuple[Session, list[Track]]) -> None:
    session, tracks = trained
    assert {track.status for track in tracks} == {"done"}
    listed = yaml.safe_load((session.results / "suite.yaml").read_text())["runs"]
    assert [entry["run_id"] for entry in listed] == [run.id for run in session.runs]
    assert run_ids(session.results) == {run.id for run in session.runs}
    assert run_ids(session.results) == {track.run.id for track in tracks}


@pytest.mark.slow
def test_the_chosen_trial_has_the_lowest_validation_loss(
    trained: tuple[Session, list[Track]],
) -> None:
    session, _ = trained
    store = StageStore(session.cache)
    for run in tuned_runs(session):
        trials = [t for t in of_role(session, "tuning") if t.method.tunes == run.method.tunes]
        scores: dict[int, list[float]] = {}
        for trial in trials:
            bpb = val_bpb(trial, store)
            assert bpb is not None
            assert trial.method.trial is not None
            scores.setdefault(trial.method.trial, []).append(bpb)
        means = {number: sum(values) for number, values in scores.items()}
        best = next(t.method for t in trials if means[t.method.trial or 0] == min(means.values()))
        assert (run.method.tuned, run.method.schedule) == (best.tuned, best.schedule)
        assert run.method.budget == 1.0
        assert {spec.rate["peak"] for spec, _ in run.predicted()} == {
            best.tuned["learning_rate.peak"]
        }


@pytest.mark.slow
def test_trials_are_never_scored_on_the_test_split(trained: tuple[Session, list[Track]]) -> None:
    session, _ = trained
    for run in session.runs:
        finals = [event["split"] for event in load_run(session.results, run.id).of("final")]
        assert finals == (["val"] if run.method.role == "tuning" else ["val", "test"])


@pytest.mark.slow
def test_the_choice_follows_the_validation_scores_and_nothing_else(
    trained: tuple[Session, list[Track]],
) -> None:
    """Planted: whichever trial is given the lowest score is chosen; a failed one never is."""
    session, _ = trained
    fresh = tiny(session.results.parent.parent)
    open_runs = [replace_open(run) for run in fresh.runs]

    def planted(best: int) -> Callable[[Run], float]:
        return lambda run: 1.0 if run.method.trial == best else 2.0

    for number in range(3):
        for run in settle(open_runs, planted(number)):
            if run.method.tunes and run.method.trial is None:
                trial = next(
                    t.method for t in open_runs
                    if t.method.tunes == run.method.tunes and t.method.trial == number
                )  # fmt: skip
                assert run.method.tuned == trial.tuned
    failed = {run.id for run in open_runs if run.method.trial == 2 and run.seed == 8}
    for run in settle(open_runs, lambda run: math.inf if run.id in failed else planted(2)(run)):
        if run.method.tunes and run.method.trial is None:
            assert run.method.tuned["learning_rate.peak"] == 6e-3  # a tie: the default


def replace_open(run: Run) -> Run:
    """The run, its settings open again if they were chosen."""
    if not run.method.tunes or run.method.trial is not None:
        return run
    return Run(run.suite, replace(run.method, tuned={}), run.seed, run.data)


@pytest.mark.slow
def test_the_same_command_has_nothing_left_to_do(trained: tuple[Session, list[Track]]) -> None:
    session, _ = trained
    again = tiny(session.results.parent.parent)
    assert [run.id for run in again.runs] == [run.id for run in session.runs]
    suite_yaml = (session.results / "suite.yaml").read_bytes()
    stages = sorted((session.cache / "stages").iterdir())
    before = [(path / "result.json").stat().st_mtime_ns for path in stages]
    again.execute(lambda _: None)
    assert sorted((session.cache / "stages").iterdir()) == stages
    assert [(path / "result.json").stat().st_mtime_ns for path in stages] == before
    assert (session.results / "suite.yaml").read_bytes() == suite_yaml


@pytest.mark.slow
def test_an_interrupted_suite_goes_on_to_the_same_choice(
    trained: tuple[Session, list[Track]], tmp_path: Path
) -> None:
    session, _ = trained
    folder = tmp_path / "again"
    interrupted = tiny(folder)

    def stop(tracks: list[Track]) -> None:
        if sum(track.status == "done" for track in tracks) > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.execute(stop)
    resumed = tiny(folder)
    assert {track.status for track in resumed.execute(lambda _: None)} == {"done"}
    assert [run.method.tuned for run in resumed.runs] == [run.method.tuned for run in session.runs]


def test_the_ledger_lists_tuning_beside_the_runs(tmp_path: Path) -> None:
    session = tiny(tmp_path)
    lines = list(totals(session, outlooks_of(session), with_time=False))
    trials = of_role(session, "tuning")
    finals = [run for run in session.runs if run.method.role != "tuning"]
    budget = session.suite.protocol.budget_flops
    step = max(run.predicted()[-1][0].step_flops for run in finals)
    assert len(trials) * 0.5 * budget - compute(trials)[0] <= len(trials) * step
    assert len(finals) * budget - compute(finals)[0] <= len(finals) * step
    tuning_line = next(line for line in lines if line.startswith("tuning"))
    assert "12 trial runs at 50.0 % of C*" in tuning_line
    assert not any("trial" in line for line in lines[:2])


def test_adding_trials_changes_no_final_run(tmp_path: Path) -> None:
    session = tiny(tmp_path)
    protocol = session.suite.protocol
    more = replace(protocol, tuning=replace(protocol.tuning, trials=5))
    for run in session.runs:
        method = replace(run.method, tunable={"args.a": [1.0, 2.0]})
        other = Run(replace(session.suite, protocol=more), method, run.seed, run.data)
        assert other.id == run.id
