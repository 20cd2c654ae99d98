"""The report on records whose truth is known."""

import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_records as toy
from synthetic_records import SUITE, Planted, write_records

from benchmark.base.errors import RecordError
from benchmark.records.folder import write_run
from benchmark.report import formats
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.drawing import mean_curve, spread
from benchmark.report.files import check, render, write
from benchmark.report.frames import Curve
from benchmark.report.markdown import page
from benchmark.report.prose import answer

DIVERGED = Planted(name="wild", sizes=(toy.SMALL, toy.TARGET), status="diverged", ends_at=0.6)


def analysis(folder: Path) -> Analysis:
    return analyse_folder(folder)


def row(found: Analysis, table: str, method: str) -> dict[str, object]:
    """The first row of a method in a table."""
    rows = found.tables[table]
    return dict(rows[rows.method == method].iloc[0])


@pytest.mark.slow
def test_two_renders_are_equal_and_check_agrees(tmp_path: Path) -> None:
    write_records(tmp_path, (*SUITE, DIVERGED), noise=0.01, missing=(("slow", 1),))
    files = render(tmp_path)
    assert files == render(tmp_path)
    write(tmp_path)
    assert check(tmp_path) == []
    assert {"report.md", "tables/summary.csv", "tables/runs.csv"} <= files.keys()
    assert "figures/curves_flops.png" in files
    assert all((tmp_path / name).read_bytes() == content for name, content in files.items())


@pytest.mark.slow
def test_check_detects_an_edited_number_a_missing_table_and_a_stale_figure(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    write(tmp_path)
    page_path = tmp_path / "report.md"
    page_path.write_text(page_path.read_text().replace("2.5000", "2.4000", 1))
    (tmp_path / "tables" / "runs.csv").unlink()
    (tmp_path / "figures" / "old.png").write_bytes(b"")
    assert check(tmp_path) == ["figures/old.png", "report.md", "tables/runs.csv"]
    write(tmp_path)
    assert check(tmp_path) == []


@pytest.mark.slow
def test_a_report_needs_no_torch() -> None:
    script = "import sys, benchmark.report; assert not {'torch', 'lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_finds_the_planted_speed_up_and_says_who_is_better(tmp_path: Path) -> None:
    write_records(tmp_path)
    found = analysis(tmp_path)
    fast, slow = row(found, "summary", "fast"), row(found, "summary", "slow")
    assert fast["speed_up"] == pytest.approx(1.3, abs=2e-3)
    assert fast["vs_scratch"] == pytest.approx(1.3**-0.25 - 1)
    assert (fast["verdict"], slow["verdict"]) == ("better", "worse")
    assert slow["n_reached"] == 0
    assert math.isnan(float(str(slow["speed_up"])))
    text = page(found)
    assert "**Better than scratch, which is also the best fixed size, 1 of 2 methods:** `f" in text
    assert "0 of 3 reached it" in text
    assert "It leans low, as the method is" in text
    assert "Ranks do not compare operators." in text


def test_a_method_must_also_beat_the_best_fixed_size(tmp_path: Path) -> None:
    small = replace(SUITE[1], offset=-0.1)
    write_records(tmp_path, (SUITE[0], small, *SUITE[2:]))
    found = analysis(tmp_path)
    assert found.controls.best_fixed == "scratch_small"
    fast = row(found, "summary", "fast")
    assert fast["vs_scratch_high"] < 0 < fast["vs_best_fixed_low"]  # type: ignore[operator]
    assert fast["verdict"] == "worse"
    text = answer(found)
    assert "**The target is oversized at this budget:** `scratch_small`" in text
    assert "**None of 2 methods is shown to be better than both scratch and the best" in text
    assert "2 of 2 are worse than a control. Better than scratch alone: `fast`." in text
    assert page(found).count("**The target is oversized at this budget:**") == 2


def test_one_seed_cannot_tell_that_the_target_is_oversized(tmp_path: Path) -> None:
    write_records(tmp_path, (SUITE[0], replace(SUITE[1], offset=-0.1), *SUITE[2:]), seeds=(0,))
    assert "**The target seems oversized at this budget:**" in answer(analysis(tmp_path))


def test_the_best_fixed_size_is_chosen_on_validation_text(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    events = toy.events(SUITE[1], 0, 0.0)
    for event in events:
        if event["kind"] == "final":
            event["bpb"] = 2.0 if event["split"] == "val" else 9.0
    write_run(tmp_path, events, toy.config(SUITE[1], 0, (0,)), toy.PROVENANCE)
    assert analysis(tmp_path).controls.best_fixed == "scratch_small"


def test_a_target_no_smaller_size_beats_is_called_compute_optimal(tmp_path: Path) -> None:
    write_records(tmp_path)
    text = page(analysis(tmp_path))
    assert "**no larger than compute-optimal** at C*, as far as these sizes show: of 3" in text
    assert "no larger size was trained, so it may be smaller than compute-optimal" in text
    assert "oversized" not in text


def test_a_larger_size_that_was_trained_is_counted(tmp_path: Path) -> None:
    deep = Planted(name="fixed_deep", role="hull", offset=0.2, sizes=(toy.TARGET | {"n_layer": 6},))
    write_records(tmp_path, (*SUITE, deep))
    assert "on the test split; 1 larger size trained as well." in page(analysis(tmp_path))


@pytest.mark.parametrize("absent", ["scratch", "scratch_small", "fixed_layer3"])
def test_refuses_a_verdict_without_results_of_a_control(tmp_path: Path, absent: str) -> None:
    write_records(tmp_path, missing=tuple((absent, seed) for seed in (0, 1, 2)))
    found = analysis(tmp_path)
    assert found.controls.missing == (absent,)
    assert set(found.words.values()) == {"no verdict"}
    assert f"**No verdict:** `{absent}` has no finished run" in page(found)


@pytest.mark.parametrize("absent", ["scratch", "scratch_small"])
def test_refuses_a_verdict_if_a_control_was_not_even_planned(tmp_path: Path, absent: str) -> None:
    kept = [m for m in SUITE if m.name != absent and not m.name.startswith(f"{absent}_")]
    write_records(tmp_path, tuple(kept))
    found = analysis(tmp_path)
    assert absent in found.controls.missing
    assert set(found.words.values()) == {"no verdict"}
    assert f"`{absent}`" in answer(found).partition("**No verdict:**")[2]


def test_a_missing_run_has_a_row_and_a_warning(tmp_path: Path) -> None:
    write_records(tmp_path, missing=(("fast", 2),))
    found = analysis(tmp_path)
    runs = found.frames.of("fast")
    assert (runs.status[2], runs.test_bpb[2]) == ("missing", math.inf)
    assert row(found, "summary", "fast")["verdict"] == "insufficient seeds"
    text = page(found)
    assert "**Incomplete, 1 of 30 planned runs without a result:** `fast` (missing: seed 2)" in text
    assert "2 of 3 done, 1 missing" in text
    assert "2 of 3 reached it" in text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((math.nan, math.nan, math.nan, 3, 2), "2 of 3 reached it"),
        ((1.3, 1.21, 1.39, 3, 3), "1.30x [1.21, 1.39]"),
        ((1.3, math.nan, math.nan, 2, 2), "1.30x"),
        ((math.nan,) * 5, formats.DASH),
    ],
)  # fmt: skip
def test_a_speed_up_is_given_where_every_seed_got_there(row: tuple[float, ...], words: str) -> None:
    names = ("speed_up", "speed_up_low", "speed_up_high", "speed_up_n", "n_reached")
    assert formats.speed_up(dict(zip(names, row, strict=True))) == words


def test_seeds_that_reached_the_loss_are_counted_where_one_did_not(tmp_path: Path) -> None:
    write_records(tmp_path, missing=(("fast", 1),))
    fast = row(analysis(tmp_path), "summary", "fast")
    assert fast["n_reached"] == 2
    assert math.isnan(float(str(fast["speed_up"])))


@pytest.mark.slow
def test_a_diverged_run_counts_as_an_infinite_loss(tmp_path: Path) -> None:
    write_records(tmp_path, (*SUITE, DIVERGED))
    found = analysis(tmp_path)
    wild = row(found, "summary", "wild")
    assert wild["test_bpb"] == wild["vs_scratch"] == math.inf
    assert (wild["verdict"], wild["n_reached"]) == ("worse", 0)
    assert wild["status"] == "0 of 3 done, 3 diverged"
    assert "**Failed, counted as an infinite loss:** `wild` (diverged: seeds 0, 1 and 2)" in page(
        found
    )
    points = pd.read_csv(io.BytesIO(render(tmp_path)["tables/points.csv"]))
    assert points[points.method == "wild"].bpb.isna().any()


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_step_is_shown(tmp_path: Path) -> None:
    broken = Planted(name="broken")
    write_records(tmp_path, (*SUITE, broken), seeds=(0, 1))
    where = {"step": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0, "peak_memory_bytes": 0}
    end = {"v": 1, "kind": "end", "status": "failed", "error": "no | such\nlayer", **where}
    for seed in (0, 1):
        events = [toy.events(broken, seed, 0.0)[0], end]
        write_run(tmp_path, events, toy.config(broken, seed, (0, 1)), toy.PROVENANCE)
    text = render(tmp_path)["report.md"].decode()
    assert r"no \| such layer" in text
    assert "0 of 2 done, 2 failed" in text


@pytest.mark.slow
@pytest.mark.parametrize("status", ["unfinished", "timeout"])
def test_a_run_without_a_score_is_shown(tmp_path: Path, status: str) -> None:
    stopped = Planted(name="stopped", status=status, ends_at=0.3)
    write_records(tmp_path, (*SUITE, stopped))
    assert f"0 of 3 done, 3 {status}" in render(tmp_path)["report.md"].decode()


def test_a_done_run_with_an_undefined_score_is_called_diverged(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    events = toy.events(SUITE[-1], 0, 0.0)
    for event in events:
        if event["kind"] == "final":
            event["bpb"] = math.nan
    write_run(tmp_path, events, toy.config(SUITE[-1], 0, (0,)), toy.PROVENANCE)
    assert analysis(tmp_path).frames.of("slow").status[0] == "diverged"


@pytest.mark.slow
def test_one_seed_gives_values_and_no_conclusion(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,), watermark="not a result")
    text = render(tmp_path)["report.md"].decode()
    assert "> **NOT A RESULT**" in text
    assert "Fewer than 3 seeds, so nothing is concluded: `fast` (-0.0635 to scratch" in text
    assert "**better**" not in text


def test_six_seeds_may_be_called_significant(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=tuple(range(7)), noise=1e-4)
    assert analysis(tmp_path).words == {
        "fast": "significantly better",
        "slow": "significantly worse",
    }


def test_noise_alone_is_no_evidence(tmp_path: Path) -> None:
    same = Planted(name="same", sizes=(toy.SMALL, toy.TARGET))
    write_records(tmp_path, (*toy.CONTROLS, same), seeds=(0, 1, 2, 3), noise=0.02)
    assert analysis(tmp_path).words == {"same": "no evidence"}


def test_growth_table_shows_the_jump_and_its_recovery(tmp_path: Path) -> None:
    write_records(tmp_path)
    event = row(analysis(tmp_path), "growth_events", "fast")
    assert event["changed"] == "n_layer 2 to 4"
    assert event["budget_share"] == pytest.approx(0.25)
    assert event["jump"] == pytest.approx(0.3, abs=1e-6)
    assert 0 < float(str(event["recovery_share"])) < 0.1


def test_shared_stages_are_executed_once(tmp_path: Path) -> None:
    twin = Planted(name="twin", sizes=(toy.SMALL, toy.TARGET))
    write_records(tmp_path, (*SUITE, twin), seeds=(0,))
    table = analysis(tmp_path).tables["shared_compute"].set_index("what")
    assert table.flops["charged"] == pytest.approx(9.75 * toy.BUDGET)
    shared = 0.25 + 0.25 + 1  # fast and twin; scratch_quarter and restart_only; untrained_source
    assert table.flops["executed"] == pytest.approx((9.75 - shared) * toy.BUDGET)


def test_refuses_runs_that_differ_outside_method_and_seed(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    toy.rewrite(tmp_path, toy.run_id("fast", 0),
                config=lambda config: config["workload"].update(batch_size=16))  # fmt: skip
    with pytest.raises(RecordError, match=r"differ in workload\.batch_size"):
        render(tmp_path)


def test_refuses_scores_of_different_text(tmp_path: Path) -> None:
    write_records(tmp_path)
    events = toy.events(SUITE[-1], 0, 0.0)
    for event in events:
        if event["kind"] == "final":
            event["block_bytes"] = [2048] * 64
    write_run(tmp_path, events, toy.config(SUITE[-1], 0, (0, 1, 2)), toy.PROVENANCE)
    with pytest.raises(RecordError, match="different blocks of the val split"):
        render(tmp_path)


def test_refuses_a_finished_run_without_its_score(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    events = [e for e in toy.events(SUITE[-1], 0, 0.0) if e.get("split") != "test"]
    write_run(tmp_path, events, toy.config(SUITE[-1], 0, (0,)), toy.PROVENANCE)
    with pytest.raises(RecordError, match=r"done, but it has final scores of \['val'\] only"):
        render(tmp_path)


def test_a_suite_that_has_not_run_is_one_clear_line(tmp_path: Path) -> None:
    write_records(tmp_path, SUITE[:1], seeds=(0,), missing=(("scratch", 0),))
    with pytest.raises(RecordError, match="none of its 1 runs has records yet"):
        render(tmp_path)


def test_warns_of_repeated_data_and_of_implausible_scores(tmp_path: Path) -> None:
    lucky = Planted(name="lucky", offset=-1.6, sizes=(toy.NARROW | {"n_layer": 1}, toy.TARGET))
    write_records(tmp_path, (*SUITE, replace(lucky, budget=1.0)), seeds=(0,))
    events = toy.events(lucky, 0, 0.0)
    events[0]["train_bytes"] = 10_000
    write_run(tmp_path, events, toy.config(lucky, 0, (0,)), toy.PROVENANCE)
    text = page(analysis(tmp_path))
    assert re.search(r"\*\*Repeated data, up to \d+\.\d\d epochs:\*\* `lucky`", text)
    assert "suspect leakage: below 0.93 bpb:** `lucky` (done: seed 0)" in text


def test_a_short_text_of_a_methods_own_that_is_repeated_is_named(tmp_path: Path) -> None:
    fast = next(method for method in SUITE if method.name == "fast")
    write_records(tmp_path, seeds=(0,))
    own = {"name": "short", "splits": {"val_start": 0.5}, "size": 2e5}

    def repeat(config: dict[str, Any]) -> None:
        config["method"]["stages"] = [{"rate": None, "corpus": None}, {"rate": None, "corpus": own}]

    toy.rewrite(tmp_path, toy.run_id("fast", 0), config=repeat)
    read = sum(
        e["tokens"] for e in toy.events(fast, 0, 0.0) if e["kind"] == "charge" and e["stage"]
    )
    warning = f"**Repeated data, up to {read / 1e5:.2f} epochs:** `fast`."
    assert warning in page(analysis(tmp_path))


def test_settings_that_differ_are_listed_and_no_others(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    table = analysis(tmp_path).tables["what_differs"].set_index("method")
    assert set(table.columns) == {"role", "target", "args.at", "budget"}
    assert table["args.at"]["fast"] == "[0.25]"


def test_methods_that_are_the_same_to_the_last_digit_are_named(tmp_path: Path) -> None:
    same = replace(SUITE[-1], name="other")
    text = page(analysis(write_records(tmp_path, (*SUITE, same), seeds=(0,))))
    assert "so one method at these sizes: `slow` and `other`." in text


def test_provenance_of_each_stage_is_told_once_per_run(tmp_path: Path) -> None:
    write_records(tmp_path, SUITE[:1], seeds=(0, 1))
    stages = [*toy.PROVENANCE, *toy.PROVENANCE, toy.PROVENANCE[0] | {"commit": "1" * 40}]
    write_run(tmp_path, toy.events(SUITE[0], 0, 0.0), toy.config(SUITE[0], 0, (0, 1)), stages)
    table = analysis(tmp_path).tables["environment"]
    commits = table[table.key == "commit"]
    assert list(zip(commits.value, commits.runs, strict=True)) == [("0" * 40, 2), ("1" * 40, 1)]


def test_every_run_id_is_in_the_page(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0, 1), missing=(("slow", 1),))
    text = page(analysis(tmp_path))
    assert all(toy.run_id(method.name, seed) in text for method in SUITE for seed in (0, 1))


@pytest.mark.slow
def test_tables_keep_every_digit(tmp_path: Path) -> None:
    write_records(tmp_path, noise=0.01)
    runs = pd.read_csv(io.BytesIO(render(tmp_path)["tables/runs.csv"]))
    finals = [e for e in toy.events(SUITE[0], 0, 0.01) if e.get("split") == "test"]
    assert runs.test_bpb[0] == finals[0]["bpb"]


@pytest.mark.slow
def test_watermarks_change_every_figure(tmp_path: Path) -> None:
    plain = render(write_records(tmp_path / "a", seeds=(0,)))
    marked = render(write_records(tmp_path / "b", seeds=(0,), watermark="not a result"))
    figures = [name for name in plain if name.endswith(".png")]
    assert len(figures) >= 2
    assert all(plain[name] != marked[name] for name in figures)


def test_labels_are_moved_apart_as_little_as_possible() -> None:
    assert spread([0.5, 0.1], 0.1) == pytest.approx([0.5, 0.1])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.0, 0.01, 0.02], 0.1) == pytest.approx([0.0, 0.1, 0.2])
    crowded = sorted(spread([0.5] * 100, 0.1))
    assert [crowded[0], crowded[-1]] == pytest.approx([0.0, 1.0])
    assert spread([], 0.1) == []


def test_seeds_that_grow_at_different_times_are_averaged_at_equal_compute() -> None:
    def points(flops: list[float]) -> Curve:
        at = np.array(flops)
        return {"flops": at, "tokens": at, "seconds": at, "bpb": 5 - at}

    curve = mean_curve([points([1.0, 2.0, 4.0]), points([1.5, 3.0])])
    assert list(curve.flops) == [1.5, 2.0, 3.0]
    assert list(curve.bpb) == pytest.approx([3.5, 3.0, 2.0])
    assert list(curve.low) == pytest.approx(list(curve.high))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (formats.bpb(2.69), "2.6900"),
        (formats.bpb(math.inf), "\N{INFINITY}"),
        (formats.difference(-0.078, -0.0912, -0.0648), "-0.0780 [-0.0912, -0.0648]"),
        (formats.difference(-0.00001), "+0.0000"),
        (formats.flops(2e12), "2.00e12"),
        (formats.flops(0.0), "0"),
        (formats.count(1_234_567), "1.23 M"),
        (formats.count(999), "999"),
        (formats.seconds(150.0), "2.5 min"),
        (formats.seconds(math.nan), "\N{EM DASH}"),
        (formats.percent(0.25), "25.0 %"),
        (formats.listed(["a", "b", "c"]), "a, b and c"),
        (formats.plural(1, "seed"), "1 seed"),
        (formats.table([]), "None."),
    ],
)
def test_numbers_are_shown_one_way(shown: str, text: str) -> None:
    assert shown == text


def test_rows_of_one_group_stand_under_its_name() -> None:
    rows = [{"method": name, "n": "3"} for name in ("a", "b", "c")]
    lines = formats.table(rows, groups=["deep", "deep", "wide"]).split("\n")
    assert lines[2:] == ["| **deep** | |", "| a      | 3 |", "| b      | 3 |", "| **wide** | |",
                         "| c      | 3 |"]  # fmt: skip
