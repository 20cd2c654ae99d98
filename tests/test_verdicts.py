"""Who is held against what, and when a verdict is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_records as toy
from synthetic_records import CONTROLS, SUITE, Planted, write_records

from benchmark.records.folder import write_run
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.markdown import page, verdict_rows
from benchmark.report.prose import answer
from benchmark.report.warnings import tripwires

FAST = next(method for method in SUITE if method.name == "fast")
OWN = Planted(name="own_scratch", role="control")


def analysis(folder: Path, *methods: Planted, **how: object) -> Analysis:
    return analyse_folder(write_records(folder, methods, **how))  # type: ignore[arg-type]


def compared(found: Analysis, method: str) -> dict[str, dict[str, object]]:
    """Rows of the table of comparisons by what they are against."""
    table = found.tables["comparisons"]
    chosen = table[table.method == method].to_dict("records")
    return {str(row["against"]): {str(k): v for k, v in row.items()} for row in chosen}


def test_a_method_must_beat_the_controls_it_names_as_its_own(tmp_path: Path) -> None:
    strong = replace(OWN, offset=-0.2)
    found = analysis(tmp_path, *CONTROLS, strong, replace(FAST, controls=("own_scratch",)))
    assert found.words["fast"] == "worse"
    rows = compared(found, "fast")
    assert rows["scratch"]["verdict"] == "better"
    assert rows["own_scratch"]["verdict"] == "worse"
    row = next(row for row in verdict_rows(found) if row["method"] == "`fast`")
    assert row["minus own"].endswith("(`own_scratch`)")


def test_a_method_that_beats_its_own_control_too_is_better(tmp_path: Path) -> None:
    found = analysis(tmp_path, *CONTROLS, OWN, replace(FAST, controls=("own_scratch",)))
    assert found.words["fast"] == "better"


def withheld(found: Analysis, method: str) -> str:
    """Why a method may not be called better."""
    summary = found.tables["summary"].set_index("method")
    return str(summary.withheld[method])


@pytest.mark.parametrize("where", ["not planned", "not run"])
def test_no_method_is_better_without_a_result_of_its_own_control(
    tmp_path: Path, where: str
) -> None:
    methods = (*CONTROLS, *((OWN,) if where == "not run" else ()), FAST)
    methods = (*methods[:-1], replace(FAST, controls=("own_scratch",)))
    missing = tuple(("own_scratch", seed) for seed in (0, 1, 2)) if where == "not run" else ()
    found = analysis(tmp_path, *methods, missing=missing)
    assert found.words["fast"] == "no verdict"
    assert withheld(found, "fast") == "its control `own_scratch` has no result"


def test_no_method_is_better_if_its_source_was_never_trained_alone(tmp_path: Path) -> None:
    other = toy.SMALL | {"d_ff": 64}
    found = analysis(tmp_path, *CONTROLS, replace(FAST, sizes=(other, toy.TARGET)))
    assert found.words["fast"] == "no verdict"
    reason = "its source (n_layer 2, d_ff 64) was not trained alone at C*"
    assert withheld(found, "fast") == reason
    assert f"Better by the numbers, but not called so: `fast` ({reason})." in answer(found)


def test_a_method_without_its_source_alone_may_still_be_worse(tmp_path: Path) -> None:
    other = Planted(name="poor", offset=0.2, sizes=(toy.SMALL | {"d_ff": 64}, toy.TARGET))
    assert analysis(tmp_path, *CONTROLS, other).words["poor"] == "worse"


def test_refuses_a_verdict_without_an_annealed_rung(tmp_path: Path) -> None:
    found = analysis(tmp_path, *(method for method in SUITE if method.name != "scratch_half"))
    assert set(found.words.values()) == {"no verdict"}
    assert "**No verdict:** `scratch at C*/2` has no finished run" in answer(found)


@pytest.mark.parametrize("absent", ["restart_only", "untrained_source"])
def test_without_this_control_no_method_is_better_and_worse_stands(
    tmp_path: Path, absent: str
) -> None:
    found = analysis(tmp_path, *(method for method in SUITE if method.name != absent))
    assert found.words == {"fast": "no verdict", "slow": "worse"}
    assert withheld(found, "fast") == f"there is no result of the control `{absent}`"


def test_a_method_that_is_worse_than_another_control_than_scratch_names_it(tmp_path: Path) -> None:
    better = Planted(name="fixed_layer3", role="hull", offset=-0.2, sizes=(toy.TARGET,))
    kept = [method for method in SUITE if method.name != "fixed_layer3"]
    found = analysis(tmp_path, *kept, better)
    row = {row["method"].strip("`"): row["verdict"] for row in verdict_rows(found)}
    assert row["fast"] == "**worse than fixed_layer3 (n = 3, unadjusted)**"
    assert row["slow"] == "**worse (n = 3, unadjusted)**"


def diverges_at(folder: Path, name: str, seed: int, seeds: tuple[int, ...]) -> None:
    """Overwrite one run by one that diverged."""
    method = next(method for method in SUITE if method.name == name)
    failed = replace(method, status="diverged", ends_at=0.6)
    events, config = toy.events(failed, seed, 0.0), toy.config(failed, seed, seeds)
    write_run(folder, events, config, toy.PROVENANCE)


def test_a_control_that_failed_where_the_method_did_not_withholds_better(tmp_path: Path) -> None:
    seeds = (0, 1, 2, 3)
    write_records(tmp_path, seeds=seeds)
    assert analyse_folder(tmp_path).words["fast"] == "better"
    diverges_at(tmp_path, "scratch", 2, seeds)
    found = analyse_folder(tmp_path)
    row = compared(found, "fast")["scratch"]
    assert (row["n"], row["n_lost"], row["verdict"]) == (3, 1, "better")
    assert found.words["fast"] == "no verdict"
    assert "`scratch` has no score at seed 2 (diverged)" in withheld(found, "fast")
    warning = next(text for text in tripwires(found) if "Controls that failed" in text)
    assert "`scratch` (diverged: seed 2)" in warning


def test_a_method_that_fails_is_worse_however_good_its_other_seeds_are(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0, 1, 2, 3))
    diverges_at(tmp_path, "fast", 1, (0, 1, 2, 3))
    assert analyse_folder(tmp_path).words["fast"] == "worse"


def test_a_seed_without_a_result_withholds_better(tmp_path: Path) -> None:
    found = analysis(tmp_path, *SUITE, seeds=(0, 1, 2, 3), missing=(("fast", 3),))
    assert found.words["fast"] == "no verdict"
    assert withheld(found, "fast") == "seed 3 is missing"


def test_a_seed_that_was_configured_and_not_planned_is_named(tmp_path: Path) -> None:
    write_records(tmp_path)
    path = tmp_path / "suite.yaml"
    text = path.read_text().split("- ")
    dropped = [part for part in text if toy.run_id("fast", 2) not in part]
    path.write_text("- ".join(dropped))
    warnings = tripwires(analyse_folder(tmp_path))
    assert (
        "**Dropped seeds, configured but not in the plan:** `fast` (not planned: seed 2)."
        in warnings
    )


def test_one_holm_family_for_the_whole_table(tmp_path: Path) -> None:
    small = next(method for method in SUITE if method.name == "scratch_small")
    others = tuple(method for method in SUITE if method.name != "scratch_small")
    found = analysis(
        tmp_path, *others, replace(small, offset=0.02 - 0.1), seeds=tuple(range(6)), noise=1e-4
    )
    table = found.tables["comparisons"]
    tests = table[table.role == "method"]
    assert len(tests) == 4  # two methods, scratch and scratch_small
    assert set(tests.p) == {2 / 64}
    assert set(tests.p_holm) == {4 * 2 / 64}
    assert not tests.significant.any()
    assert found.words["slow"] == "worse"


def test_a_control_that_is_also_the_best_fixed_size_is_compared_and_shown_once(
    tmp_path: Path,
) -> None:
    found = analysis(tmp_path, *SUITE)
    assert set(compared(found, "fast")) == {"scratch"}
    summary = found.tables["summary"]
    assert list(summary.vs_best_fixed[:2]) == list(summary.vs_scratch[:2])
    text = page(found)
    assert "minus best_fixed" not in text
    assert "both" not in answer(found)


def test_the_table_groups_methods_that_grow_the_same_at_the_same_time(tmp_path: Path) -> None:
    twin = Planted(name="twin", offset=0.2, sizes=(toy.SMALL, toy.TARGET))
    good = Planted(name="good", speed_up=1.2, sizes=(toy.NARROW, toy.TARGET))
    summary = analysis(tmp_path, *CONTROLS, twin, good, FAST).tables["summary"]
    assert list(summary.method[:3]) == ["fast", "twin", "good"]
    assert list(summary.grows[:2]) == ["n_layer 2 to 4 at 25 %"] * 2
    restart = summary[summary.method == "restart_only"]
    assert list(restart.grows) == ["stops at 25 %"]


def tuned(method: Planted, **changes: object) -> Planted:
    name = f"{method.name}-tuned"
    return replace(method, name=name, tunes=method.name, **changes)  # type: ignore[arg-type]


def test_a_tuned_method_meets_tuned_controls_and_a_default_one_default_controls(
    tmp_path: Path,
) -> None:
    scratch = next(method for method in SUITE if method.name == "scratch")
    found = analysis(tmp_path, *CONTROLS, tuned(scratch, offset=-0.2), FAST, tuned(FAST))
    assert found.controls.best_fixed == "scratch"
    assert found.words == {"fast": "better", "fast-tuned": "worse"}
    assert compared(found, "fast-tuned")["scratch"]["control"] == "scratch-tuned"
    assert compared(found, "fast")["scratch"]["control"] == "scratch"


def test_a_tuned_control_that_became_worse_is_not_the_one_to_beat(tmp_path: Path) -> None:
    scratch = next(method for method in SUITE if method.name == "scratch")
    found = analysis(tmp_path, *CONTROLS, tuned(scratch, offset=0.3), tuned(FAST))
    assert compared(found, "fast-tuned")["scratch"]["control"] == "scratch"


def test_a_tuned_method_is_not_better_than_a_control_that_was_not_tuned(tmp_path: Path) -> None:
    found = analysis(tmp_path, *CONTROLS, FAST, tuned(FAST))
    assert found.words == {"fast": "better", "fast-tuned": "no verdict"}
    assert withheld(found, "fast-tuned") == "`scratch` was not tuned"


@pytest.mark.slow
def test_a_planted_speed_up_is_found_through_seed_noise(tmp_path: Path) -> None:
    found = analysis(tmp_path, *SUITE, seeds=tuple(range(5)), noise=2e-4)
    speeds = found.tables["speed_ups"]
    at_end = speeds[(speeds.method == "fast") & (speeds.reference == "scratch")].iloc[0]
    assert at_end.speed_up == pytest.approx(1.300, abs=0.002)
    assert at_end.low < 1.300 < at_end.high
    assert found.words == {"fast": "better", "slow": "worse"}
    assert "1.30x [1.30, 1.30]" in page(found)


@pytest.mark.slow
def test_a_planted_null_is_called_no_evidence(tmp_path: Path) -> None:
    same = [Planted(name=f"same{i}", sizes=(toy.SMALL, toy.TARGET)) for i in range(40)]
    found = analysis(tmp_path, *CONTROLS, *same, seeds=tuple(range(5)), noise=0.01)
    words = list(found.words.values())
    assert words.count("no evidence") >= 33
    assert words.count("better") <= 4
