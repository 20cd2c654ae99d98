"""What several suites say together is what was planted in them, and each number has its runs."""

import io
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_records as toy
from synthetic_records import NARROW, SMALL, SUITE, TARGET, Planted, write_records
from trained_suite import train

from benchmark.base.paths import ROOT
from benchmark.records.folder import load_suite
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.conventions import crossing_of_nothing, speed_up, worth_of_doubling
from benchmark.report.frames import rows
from benchmark.report.statistics import t_limit
from tools.findings import LADDER, Study, findings
from tools.study import regime, rounding, trend
from tools.study.mixes import mixes

CONTROLS = tuple(method for method in SUITE if method.role != "method")
GROWN = Planted(name="tokenformer", sizes=(NARROW, TARGET), grows_at=(0.25,))
OTHER = Planted(name="stacking", sizes=(SMALL, TARGET), offset=0.01)
PER_DECADE = 0.02


def ladder(folder: Path, monkeypatch: pytest.MonkeyPatch, n: int = 3) -> list[Analysis]:
    """Rungs a decade apart, of which each adds `PER_DECADE` to a method's difference."""
    found = []
    for k in range(n):
        monkeypatch.setattr(toy, "BUDGET", 1e11 * 10**k)
        monkeypatch.setattr(toy, "NAME", LADDER[k])
        methods = (*CONTROLS, replace(GROWN, offset=PER_DECADE * (k - 1)), OTHER)
        found.append(analyse_folder(write_records(folder / LADDER[k], methods, noise=0.002)))
    return found


def test_a_ladder_has_the_slope_that_was_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climbed = ladder(tmp_path, monkeypatch)
    table = trend.trend(reversed(climbed))
    assert list(table.budget_flops.unique()) == [1e11, 1e12, 1e13]
    slopes = {row["method"]: row for row in rows(trend.slopes(table))}
    assert slopes["tokenformer"]["low"] < PER_DECADE < slopes["tokenformer"]["high"]
    assert slopes["tokenformer"]["factor_high"] < 1
    assert slopes["stacking"]["low"] < 0 < slopes["stacking"]["high"]
    text = trend.extension(climbed, table)
    assert "C* = 1.00e14 FLOPs with the 3 seeds" in text
    assert "10 times the last rung's" in text
    assert [row["larger"] for row in trend.hull(climbed)] == [0, 0, 0]


def points(middle: Sequence[float], error: float, degrees: float = 7.0) -> pd.DataFrame:
    """Rungs with these differences, whose intervals follow from one standard error."""
    half = t_limit(degrees) * error
    table = pd.DataFrame({"difference": middle, "budget_flops": 10.0 ** np.arange(len(middle))})
    return table.assign(
        method="m", degrees=degrees, low=table.difference - half, high=table.difference + half,
        speed_up=1.0, speed_up_low=0.9, speed_up_high=1.1,
    )  # fmt: skip


def test_a_slopes_interval_holds_the_truth_about_19_times_out_of_20() -> None:
    rng = np.random.default_rng(0)
    fits = [rows(trend.slopes(points([0.1 * k + rng.normal(0, 0.01) for k in range(4)], 0.01)))[0]
            for _ in range(300)]  # fmt: skip
    assert 0.93 < np.mean([fit["low"] < 0.1 < fit["high"] for fit in fits]) <= 1.0


def test_points_that_lie_on_no_line_widen_the_interval() -> None:
    lines = ([0, 0.1, 0.2, 0.3], [0, 0.2, 0.1, 0.3])
    straight, bent = (rows(trend.slopes(points(line, 0.01)))[0] for line in lines)
    assert bent["high"] - bent["low"] > 10 * (straight["high"] - straight["low"])


def test_a_method_that_gains_what_a_doubling_does_is_twice_as_fast(tmp_path: Path) -> None:
    worth = worth_of_doubling(analyse_folder(write_records(tmp_path)).frames)
    assert worth == pytest.approx(2**0.25 - 1)
    assert speed_up(-worth, worth) == pytest.approx(2)
    assert speed_up(worth, worth) == pytest.approx(0.5)
    kept = tuple(method for method in SUITE if method.role != "rung")
    assert math.isnan(worth_of_doubling(analyse_folder(write_records(tmp_path / "b", kept)).frames))


def test_conventions_are_worked_out_by_hand(tmp_path: Path) -> None:
    own = Planted(name="own", role="control", offset=-0.05)
    method = replace(GROWN, offset=0.02, controls=("own",))
    found = analyse_folder(write_records(tmp_path, (*CONTROLS, own, method)))
    (row,) = rows(found.tables["conventions"].query("method == 'tokenformer'"))
    alone = 2 ** (-0.02 / (2**0.25 - 1))
    assert row["no_control"] == row["one_seed"] == pytest.approx(alone)
    assert row["source_free"] == pytest.approx(alone / 0.75)
    assert row["at_target"] == pytest.approx(alone / 0.75, rel=1e-3)
    assert row["equal_tokens"] == pytest.approx(
        0.25 * toy.n_params(TARGET) / toy.n_params(NARROW) + 0.75, rel=1e-3
    )
    assert row["ours"] == pytest.approx(2 ** (-0.07 / (2**0.25 - 1)))
    assert row["ours_control"] == "own"
    assert row["published"] == "above 2x"
    assert row["crossing"] == pytest.approx(alone, rel=0.01)


def test_a_scratch_that_is_read_before_its_end_flatters_every_method_by_as_much(
    tmp_path: Path,
) -> None:
    kinds = tuple(replace(method, unannealed=0.2) for method in SUITE)
    found = analyse_folder(write_records(tmp_path, kinds))
    for row in rows(found.tables["conventions"]):
        gain = row["crossing"] / row["no_control"]
        assert gain == pytest.approx(crossing_of_nothing(found.frames))
        assert gain > 1.5
        assert math.isnan(row["at_target"]) == (row["method"] == "restart_only")


def test_scratch_itself_is_faster_than_scratch_that_is_read_before_its_end(tmp_path: Path) -> None:
    kinds = [tuple(replace(m, unannealed=x) for m in SUITE) for x in (0.0, 0.2)]
    fair, unfair = (
        crossing_of_nothing(analyse_folder(write_records(tmp_path / str(i), k)).frames)
        for i, k in enumerate(kinds)
    )
    assert fair == pytest.approx(1, abs=0.01)
    assert unfair > 1.5


def test_a_map_has_every_cell_of_a_crossed_suite() -> None:
    found = analyse_folder(ROOT / "results/cpu_factors")
    table = regime.regime([found])
    assert len(table) == 48
    assert set(table["at"]) == {"0.25", "0.5"}
    below = int((table.vs_scratch_high < 0).sum())
    assert f"of 48 cells with a target of 65.8 k (1x) parameters {below} below scratch" in (
        regime.where_it_pays(table)
    )


def mix(name: str, offset: float, **choices: object) -> Planted:
    """A method that grows widths and depth, or what it says."""
    choices = {"shrink": {"d_model": 2, "n_layer": 2}} | choices
    return Planted(name=name, offset=offset, sizes=(SMALL, TARGET), ladder=tuple(choices.items()))


def test_the_effect_of_each_choice_is_found_apart(tmp_path: Path) -> None:
    late = [["d_model"], ["n_layer"]]
    mixed = (
        mix("once", 0.0, n_growths=1),
        mix("twice", 0.01, n_growths=2),
        mix("often", 0.03, n_growths=4),
        mix("by_factors", 0.07, n_growths=4, path="exponential"),
        mix("widths_first", 0.03, n_growths=2, order="sequential", groups=late),
        mix("depth_first", 0.11, n_growths=2, order="sequential", groups=late[::-1]),
        mix("rank", 0.17, n_growths=3, path="exponential", shrink={"rank": 8}),
    )
    effects, _ = mixes(analyse_folder(write_records(tmp_path, (*CONTROLS, *mixed))).frames)
    found = {(row["factor"], row["level"]): row["effect"] for row in rows(effects)}
    planted = {("growths", "2"): 0.01, ("growths", "3 or 4"): 0.03, ("path", "exponential"): 0.04,
               ("order", "sequential"): 0.02, ("first", "depth"): 0.08,
               ("sizes", "rank"): 0.1}  # fmt: skip
    assert {key: found[key] for key in planted} == pytest.approx(planted, abs=1e-6)


def test_noise_of_rounding_is_that_of_a_single_run(tmp_path: Path) -> None:
    one, other = (
        analyse_folder(write_records(tmp_path / str(x), (replace(SUITE[0], offset=x), *SUITE[1:])))
        for x in (0.0, 0.01)
    )
    table = rounding.rounding(one, other).set_index("method")
    assert table.rounding_sd["scratch"] == pytest.approx(0.01 / math.sqrt(2))
    assert table.rounding_sd["fast"] == 0
    assert "2 of 2 verdicts changed" not in rounding.how_much(table.reset_index(), one, other)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results in which some suites of the study are there."""
    ladder(tmp_path, monkeypatch, n=2)
    monkeypatch.setattr(toy, "NAME", "tokenformer")
    for folder, noise in (("tokenformer", 0.01), ("tokenformer_again", 0.012)):
        write_records(tmp_path / folder, (*CONTROLS, GROWN, OTHER), noise=noise)
    monkeypatch.setattr(toy, "NAME", "tokenformer_tuned")
    tuned = replace(GROWN, name="tokenformer-tuned", tunes="tokenformer", offset=0.05)
    write_records(tmp_path / "tokenformer_tuned", (*CONTROLS, GROWN, tuned), noise=0.001)
    return tmp_path


@pytest.mark.slow
def test_findings_say_what_is_there_and_what_is_not(published: Path) -> None:
    files = findings(Study(published))
    page = files["README.md"].decode()
    assert page.startswith("# Findings\n\n**At equal compute TokenFormer ends ")
    assert " Tuned by as many trials as its controls, `tokenformer-tuned` ends +0.0" in page
    assert "Suite `ladder_4` is planned, not trained yet." in page
    assert "Suite `mixes` is planned, not trained yet." in page
    images = set(re.findall(r"\((figures/[^)]+)\)", page))
    assert images == files.keys() - {"README.md"}
    assert "figures/trend.png" in images
    assert files == findings(Study(published))
    known = {run.run_id for folder in published.iterdir() for run in load_suite(folder).runs}
    tables = {name: content for name, content in files.items() if name.endswith(".csv")}
    assert {Path(name).stem for name in tables} == {"trend", "conventions", "rounding_tokenformer"}
    for content in tables.values():  # every number names its runs
        ids = " ".join(pd.read_csv(io.BytesIO(content)).run_ids).split()
        assert ids
        assert set(ids) <= known


def test_a_suite_that_has_not_ended_is_not_in_the_findings(tmp_path: Path) -> None:
    write_records(tmp_path / "tokenformer", missing=(("fast", 1),))
    assert "Suite `tokenformer` is planned, not trained yet." in (
        findings(Study(tmp_path))["README.md"].decode()
    )


@pytest.mark.slow
def test_suites_that_were_trained_have_findings(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name, budget in (("ladder_1", 2.5e8), ("ladder_2", 5e8)):
        shutil.copytree(train(tmp_path / name, f"protocol.budget_flops={budget}"), results / name)
    shutil.copytree(results / "ladder_2", results / "tokenformer")
    shutil.copytree(results / "ladder_2", results / "tokenformer_again")
    files = findings(Study(results))
    assert {"figures/trend.png", "figures/rounding_tiny.png"} <= files.keys()
    assert "an SD of 0.0000 bpb from rounding alone" in files["README.md"].decode()
