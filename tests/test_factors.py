"""A crossed design is one method per combination, and says which combinations cannot be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_plan import DATA, TARGET, suite_of

from benchmark.base.errors import ConfigError
from benchmark.cli.listing import outlooks_of, totals
from benchmark.plan.config import FactorsConfig, SuiteConfig, load_method, load_suite
from benchmark.plan.factors import design
from benchmark.plan.reading import filled
from benchmark.plan.run import Run
from benchmark.plan.suite import plan
from benchmark.session.session import Session
from benchmark.training.optim import Rewarm

NONE, SHORT = Rewarm(), Rewarm(which="all", length=0.05)
FACTORS = FactorsConfig(
    operator=["stacking", "zero_width"],
    state_policy=["scaled", "reset"],
    rewarm={"none": NONE, "short": SHORT},
    at=[0.25, 0.5],
    factor=[2.0],
)


def crossed(**changes: Any) -> SuiteConfig:  # noqa: ANN401 - any factor
    return replace(suite_of(seeds=[0]), factors=replace(FACTORS, **changes))


def runs(suite: SuiteConfig) -> list[Run]:
    return plan(suite, DATA)


def test_every_combination_is_a_method() -> None:
    made = runs(crossed())
    assert len(made) == 2 * 2 * 2 * 2
    assert len({tuple(run.method.levels.values()) for run in made}) == len(made)
    assert made[0].method.name == "stacking+scaled+none+at0.25+x2"
    assert made[0].method.levels == {
        "operator": "stacking", "state_policy": "scaled", "rewarm": "none", "at": "0.25",
        "factor": "2",
    }  # fmt: skip
    assert design(crossed())[1] == {}


def test_a_cell_is_trained_at_its_levels() -> None:
    for run in runs(crossed()):
        levels = run.method.levels
        assert run.policy.value == levels["state_policy"]
        assert run.rewarm == FACTORS.rewarm[levels["rewarm"]]
        assert run.schedule is not None
        assert run.schedule.times(1) == (float(levels["at"]),)
        grown = "n_layer" if levels["operator"] == "stacking" else "d_model"
        assert [sizes.size(grown) for sizes in run.sizes] == [
            TARGET.size(grown) // 2, TARGET.size(grown),
        ]  # fmt: skip
        assert run.method.target == load_method(levels["operator"]).target


def test_cells_that_differ_in_one_factor_differ_in_one_setting() -> None:
    by_levels = {tuple(run.method.levels.values()): run.config() for run in runs(crossed())}
    one = by_levels["stacking", "scaled", "none", "0.25", "2"]["method"]
    for levels, key in (
        (("stacking", "reset", "none", "0.25", "2"), "state_policy"),
        (("stacking", "scaled", "short", "0.25", "2"), "rewarm"),
        (("stacking", "scaled", "none", "0.5", "2"), "schedule"),
    ):
        other = by_levels[levels]["method"]
        changed = {name for name in one if one[name] != other[name]}
        assert changed == {"name", "summary", "levels", key}


def test_the_growth_factor_moves_the_source_not_the_target() -> None:
    made = runs(crossed(operator=["stacking"], factor=[2.0, 4.0]))
    depths = {run.method.levels["factor"]: [r.n_layer for r in run.sizes] for run in made}
    assert depths == {"2": [2, 4], "4": [1, 4]}


def test_combinations_that_cannot_be_are_left_out_with_the_reason() -> None:
    _, left_out = design(crossed(operator=["stacking", "hypercloning"], factor=[1.6]))
    assert len(left_out) == 16
    reasons = set(left_out.values())
    assert any("does not divide n_layer=4" in reason for reason in reasons)
    tiled, left_out = design(crossed(operator=["hypercloning_stream"], factor=[2.0, 4.0 / 3.0]))
    assert len(tiled) == 8
    assert set(left_out.values()) == {"d_model must grow to a multiple of 6 to be tiled, got 8"}


def test_a_method_that_grows_twice_is_left_out() -> None:
    methods, left_out = design(crossed(operator=["stacking", "compound"]))
    assert len(methods) == 8
    assert set(left_out.values()) == {"compound grows 2 times, `at` is one"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": []}, r"factors\.operator must have distinct levels, at least one"),
        ({"at": [0.5, 0.5]}, r"factors\.at must have distinct levels"),
        ({"operator": ["stackin"]}, "did you mean stacking"),
        ({"operator": ["scratch"]}, r"every level must grow, but not: \['scratch'\]"),
        ({"rewarm": {}}, r"factors\.rewarm must have"),
    ],
)
def test_refuses_levels_that_do_not_exist(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runs(crossed(**changes))


@pytest.mark.parametrize(
    ("name", "level", "wanted"),
    [
        ("at", 1.0, "a number in"),
        ("factor", 1.0, "a number in"),
        ("state_policy", "keep", "one of"),
    ],
)
def test_refuses_levels_that_cannot_be(name: str, level: object, wanted: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\[0\] must be {wanted}"):
        filled(FactorsConfig, ("", {name: [level]}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu_factors", "cpu_tuned"])
def test_the_suites_that_come_with_it_plan(name: str, tmp_path: Path) -> None:
    session = Session(load_suite(name, [f"run.cache={tmp_path}"]))
    lines = list(totals(session, outlooks_of(session), with_time=False))
    assert not any("left out" in line for line in lines)
    cells = [run for run in session.runs if run.method.levels]
    assert len(cells) == (192 if name == "cpu_factors" else 0)


@pytest.mark.slow
def test_a_plan_says_what_is_left_out(tmp_path: Path) -> None:
    suite = load_suite("cpu_factors", [f"run.cache={tmp_path}", "factors.factor=[2,3]"])
    session = Session(suite)
    said = totals(session, outlooks_of(session), with_time=False)
    lines = [line for line in said if "left out" in line]
    assert len(lines) == 3 * 2 * 2 * 2
    assert "stacking+scaled+none+at0.25+x3: ladder.shrink.n_layer=3.0 does not divide" in lines[0]
