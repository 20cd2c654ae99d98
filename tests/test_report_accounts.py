"""Tables beside the verdict: who pays for the source, equal text and time, tuning, factors."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_records as toy
from synthetic_records import CONTROLS, SUITE, Planted, write_records

from benchmark.base.errors import RecordError
from benchmark.records.events import atomic_write_text
from benchmark.records.folder import write_run
from benchmark.records.lock import hold, plan_of
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.factors import main_effects, shares
from benchmark.report.frames import Row, rows
from benchmark.report.markdown import page
from benchmark.report.warnings import tripwires

FAST = next(method for method in SUITE if method.name == "fast")


def analysis(folder: Path, *methods: Planted, **how: object) -> Analysis:
    return analyse_folder(write_records(folder, methods, **how))  # type: ignore[arg-type]


def row(found: Analysis, table: str, method: str) -> Row:
    return next(row for row in rows(found.tables[table]) if row["method"] == method)


def test_with_its_source_as_sunk_cost_a_method_pays_what_came_after(tmp_path: Path) -> None:
    late = Planted(name="late", sizes=(toy.SMALL, toy.TARGET), grows_at=(0.5,))
    found = row(analysis(tmp_path, *CONTROLS, late), "conventions", "late")
    assert found["ours"] == pytest.approx(1)
    assert found["source_free"] == pytest.approx(2)


def test_a_source_that_only_trains_on_has_the_advantage_of_sunk_cost_too(tmp_path: Path) -> None:
    found = analysis(tmp_path, *SUITE)
    assert row(found, "conventions", "restart_only")["source_free"] > 1.3
    assert "What a convention gives for nothing: `restart_only` does not grow" in page(found)


def trials(losses: tuple[float, ...], method: Planted) -> tuple[Planted, ...]:
    """A trial for each offset of the loss, with the peak learning rate as its setting."""
    return tuple(
        replace(
            method, name=f"{method.name}#{i}", role="tuning", offset=offset, budget=0.25,
            tunes=method.name, trial=i, tuned=(("learning_rate.peak", 0.001 * (i + 1)),),
        )
        for i, offset in enumerate(losses)
    )  # fmt: skip


def tuned_suite() -> tuple[Planted, ...]:
    tried = trials((0.2, 0.0, 0.1), FAST)
    final = replace(FAST, name="fast-tuned", offset=-0.05, tunes="fast", tuned=tried[1].tuned)
    return (*SUITE, *tried, final)


def test_tuning_is_listed_with_its_cost_and_its_scores(tmp_path: Path) -> None:
    found = analysis(tmp_path, *tuned_suite())
    ledger = row(found, "tuning", "fast")
    assert (ledger["trials"], ledger["budget_share"]) == (3, 0.25)
    assert ledger["flops"] == pytest.approx(9 * 0.25 * toy.BUDGET)
    assert ledger["flops_share"] == pytest.approx(9 * 0.25 / 3)
    assert ledger["difference"] == pytest.approx(-0.05)
    assert ledger["settings"] == "learning_rate.peak 0.002"
    tried = found.tables["tuning_trials"]
    assert list(tried.chosen) == [False, True, False]
    assert "| `fast` " in page(found).partition("## Tuning")[2]


def test_trials_are_in_no_other_table(tmp_path: Path) -> None:
    found = analysis(tmp_path, *tuned_suite())
    for name in ("summary", "comparisons", "speed_ups", "conventions", "what_differs"):
        assert not found.tables[name].method.str.contains("#").any(), name
    before = analysis(tmp_path / "untuned", *SUITE)
    charged = [a.tables["shared_compute"].flops[0] for a in (before, found)]
    assert charged[1] - charged[0] == pytest.approx(3 * toy.BUDGET)  # fast-tuned, three seeds


def test_a_suite_without_tuning_or_factors_has_no_such_tables(tmp_path: Path) -> None:
    found = analysis(tmp_path, *SUITE)
    assert not {"tuning", "tuning_trials", "main_effects", "amendments"} & found.tables.keys()
    assert "## Tuning" not in page(found)


def test_unequal_tuning_is_named(tmp_path: Path) -> None:
    slow = next(method for method in SUITE if method.name == "slow")
    more = trials((0.1, 0.2, 0.3, 0.4), slow)
    equal = trials((0.1, 0.2, 0.3), next(m for m in SUITE if m.name == "scratch"))
    warnings = tripwires(analysis(tmp_path, *tuned_suite(), *equal, *more))
    assert "**Unequal tuning:** `slow`." in warnings


def test_a_failed_trial_counts_and_costs(tmp_path: Path) -> None:
    tried = trials((0.2, 0.0), FAST)
    failed = replace(tried[1], status="diverged", ends_at=0.6)
    found = analysis(tmp_path, *SUITE, tried[0], failed)
    assert list(found.tables["tuning_trials"].val_bpb)[1] == math.inf
    assert row(found, "tuning", "fast")["n_failed"] == 1


def crossed(effects: dict[str, dict[str, float]], noise: float = 0.0) -> pd.DataFrame:
    """A balanced design of additive effects on three seeds."""
    rng = np.random.default_rng(0)
    cells = [dict(zip(effects, combination, strict=True))
             for combination in itertools.product(*effects.values())]  # fmt: skip
    runs = [(cell, seed) for cell in cells for seed in (0, 1, 2)]
    bpb = [
        2.5
        + 0.3 * seed
        + sum(effects[f][level] for f, level in cell.items())
        + rng.normal(0, noise)
        for cell, seed in runs
    ]
    levels = pd.DataFrame([cell for cell, _ in runs])
    return levels.assign(seed=[seed for _, seed in runs], bpb=bpb)


EFFECTS = {
    "operator": {"copy": 0.0, "random": 0.02},
    "time": {"early": 0.0, "middle": -0.01, "late": 0.1},
    "state": {"reset": 0.0, "carry": 0.0},
}


def effects_of(design: pd.DataFrame) -> dict[tuple[str, str], Row]:
    """Main effects by factor and level."""
    return {(row["factor"], row["level"]): row for row in rows(main_effects(design))}


def test_main_effects_are_those_that_were_planted() -> None:
    table = effects_of(crossed(EFFECTS, noise=0.002))
    for factor, levels in EFFECTS.items():
        for level, planted in list(levels.items())[1:]:
            found = table[factor, level]
            assert found["effect"] == pytest.approx(planted, abs=0.002)
            assert found["effect_low"] < found["effect"] < found["effect_high"]
            assert abs(found["effect"] - planted) < found["effect_high"] - found["effect_low"]
    assert table["time", "early"]["effect"] == 0.0
    assert [row["n"] for row in table.values()] == [18, 18, 12, 12, 12, 18, 18]


def test_shares_of_a_balanced_design_add_up() -> None:
    table = shares(crossed(EFFECTS, noise=0.002)).set_index("term").share
    assert table["time"] > table["operator"] > 10 * table["state"]
    parts = [*EFFECTS, "left over"]
    assert table[parts].sum() == pytest.approx(1.0, abs=1e-6)


def test_an_interaction_is_told_from_main_effects() -> None:
    design = crossed(EFFECTS)
    both = (design.operator == "random") & (design.time == "late")
    table = shares(design.assign(bpb=design.bpb + 0.2 * both)).set_index("term").share
    assert table["operator x time"] > 0.05
    assert table["operator x state"] == pytest.approx(0.0, abs=1e-6)


def test_failed_cells_are_left_out_and_counted() -> None:
    design = crossed(EFFECTS, noise=0.001)
    table = effects_of(design.assign(bpb=design.bpb.where(design.index != 1, math.inf)))
    assert (table["operator", "copy"]["n"], table["operator", "copy"]["n_excluded"]) == (17, 1)
    assert table["time", "late"]["effect"] == pytest.approx(0.1, abs=0.003)


def test_a_level_that_never_finished_has_no_effect_rather_than_a_good_one() -> None:
    design = crossed(EFFECTS)
    table = effects_of(design.assign(bpb=design.bpb.where(design.time != "late", math.inf)))
    assert math.isnan(table["time", "late"]["effect"])
    assert table["time", "late"]["n_excluded"] == 12
    assert table["operator", "random"]["effect"] == pytest.approx(0.02, abs=1e-6)


def test_the_report_says_which_choice_matters(tmp_path: Path) -> None:
    cells = [
        Planted(
            name=f"copy+{time}+{state}", offset=0.1 * (time == "late"),
            sizes=(toy.SMALL, toy.TARGET), levels=(("time", time), ("state", state)),
        )
        for time in ("early", "late")
        for state in ("reset", "carry")
    ]  # fmt: skip
    text = page(analysis(tmp_path, *SUITE, *cells, noise=0.001))
    answer = text.partition("| method ")[0]
    assert "**What the 4 cells of the crossed design show together:** `time` explains " in answer
    assert "`fast` (" in answer  # methods that are no cells are judged one by one
    assert "`copy+" not in answer
    section = text.partition("## Which choices matter")[2].partition("## ")[0]
    assert "`time` explains " in section
    assert "figures/main_effects.png" in section
    assert "from `early` to `late`, test bpb changes by +0." in section
    assert "No effect is shown of `state`." in section


def test_an_answer_names_no_more_methods_than_one_can_read(tmp_path: Path) -> None:
    many = [replace(FAST, name=f"slow{i}", speed_up=1.0, offset=0.2) for i in range(25)]
    answer = page(analysis(tmp_path, *CONTROLS, *many, noise=0.001)).partition("| method ")[0]
    assert answer.count("`slow") == 1  # the lowest of them
    assert "25 of 25 are worse than a control." in answer


def test_a_test_that_came_after_the_plan_is_named_and_the_note_of_the_folder_quoted(
    tmp_path: Path,
) -> None:
    configs = [toy.config(method, seed, (0, 1)) for method in SUITE for seed in (0, 1)]
    plan = plan_of(configs, {"name": "wikipedia"}, "digest") | {"tests": ["difference: by dice"]}
    hold(tmp_path, plan)
    write_records(tmp_path, seeds=(0, 1, 2))
    (tmp_path / "note.md").write_text("**Read with care.**\n")
    found = page(analyse_folder(tmp_path))
    assert 'the plan says "difference: by dice"' in found
    assert "\n\n**Read with care.**\n\n" in found


def test_a_plan_that_was_locked_and_amended_is_told(tmp_path: Path) -> None:
    configs = [toy.config(method, seed, (0, 1)) for method in SUITE for seed in (0, 1)]
    hold(tmp_path, plan_of(configs, {"name": "wikipedia"}, "digest"))
    assert "Not pre-registered" in page(analysis(tmp_path / "no lock", *SUITE))
    write_records(tmp_path, seeds=(0, 1, 2))
    assert not any("registered" in text for text in tripwires(analyse_folder(tmp_path)))
    more = [toy.config(method, 2, (0, 1)) for method in SUITE if method.name == "fast"]
    hold(tmp_path, plan_of([*configs, *more], {"name": "wikipedia"}, "digest"))
    found = analyse_folder(tmp_path)
    warning = next(text for text in tripwires(found) if "after results were seen" in text)
    assert "`fast` (seed 2 added on " in warning
    assert list(found.tables["amendments"].added) == ["fast 2"]
    assert "`fast` \N{DOUBLE DAGGER} seed 2 added" in page(found)


def test_times_of_stages_that_shared_a_gpu_are_marked(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0, 1))
    assert not any("Shared GPUs" in text for text in tripwires(analyse_folder(tmp_path)))
    shared = [toy.PROVENANCE[0] | {"stages_per_gpu": 2}]
    write_run(tmp_path, toy.events(SUITE[0], 0, 0.0), toy.config(SUITE[0], 0, (0, 1)), shared)
    warning = next(t for t in tripwires(analyse_folder(tmp_path)) if "Shared GPUs" in t)
    assert warning.endswith("up to 2 on each GPU.")


def overlap(share: float) -> dict[str, object]:
    found = {"n_bytes": 1000, "windows_in_train": 200, "share_in_train": share}
    return {"schema": 1, "window": 128, "entropy_rate_bits": None, "val": found, "test": found}


@pytest.mark.parametrize(("share", "is_leak"), [(0.0, False), (0.2, True)])
def test_held_out_text_in_the_training_text_is_told(
    tmp_path: Path, share: float, is_leak: bool
) -> None:
    write_records(tmp_path, seeds=(0,))
    atomic_write_text(tmp_path / "corpus.json", json.dumps(overlap(share)))
    found = analyse_folder(tmp_path)
    assert any("stands in the training text" in text for text in tripwires(found)) == is_leak
    assert "windows of 128 bytes" in page(found).partition("## Leaks and repeats")[2]


def test_a_perplexity_below_one_is_an_error(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    events = toy.events(FAST, 0, 0.0)
    events[-2]["bpb"] = -0.1
    write_run(tmp_path, events, toy.config(FAST, 0, (0,)), toy.PROVENANCE)
    with pytest.raises(RecordError, match=r"\(fast\): -0\.1 bpb .* perplexity below 1 is impossib"):
        analyse_folder(tmp_path)


def test_a_score_below_the_entropy_rate_of_its_source_is_an_error(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    (tmp_path / "corpus.json").write_text('{"entropy_rate_bits": 2.40}')
    analyse_folder(tmp_path)
    (tmp_path / "corpus.json").write_text('{"entropy_rate_bits": 2.55}')
    with pytest.raises(RecordError, match=r"\(fast, seed 0\): 2\.4365 bpb on .* below the entropy"):
        analyse_folder(tmp_path)
