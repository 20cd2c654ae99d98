"""One or two runs against the band of scratch: the rule errs as often as it says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic_records as toy
import yaml
from scipy import stats
from synthetic_records import write_records

from benchmark.records.folder import load_suite
from benchmark.report.analysis import analyse
from benchmark.report.frames import frames, rows
from benchmark.report.markdown import page
from benchmark.report.single_runs import held, single_runs

BAND = {"version": "1.0", "corpus": "wikipedia", "budget_flops": toy.BUDGET}


def band(folder: Path, **changes: object) -> Path:
    """A folder with a band for the toy suite around what its scratch reaches."""
    folder.mkdir()
    seeds = {seed: 2.5 + 0.01 * (seed - 2) for seed in range(5)}
    (folder / "toy.yaml").write_text(yaml.safe_dump({**BAND, "seeds": seeds, **changes}))
    return folder


def test_a_single_run_is_worked_out_by_hand() -> None:
    row = held([2.4], [2.5, 2.51, 2.49])
    half = stats.t.ppf(0.975, 2) * 0.01 * math.sqrt(1 + 1 / 3)
    assert row["difference"] == pytest.approx(-0.1)
    assert (row["low"], row["high"]) == pytest.approx((-0.1 - half, -0.1 + half))
    assert row["word"] == "better than scratch's band"
    assert held([2.6], [2.5, 2.51, 2.49])["word"] == "worse than scratch's band"
    assert held([2.52], [2.5, 2.51, 2.49])["word"] == "within scratch's band"
    assert held([2.4, math.inf], [2.5, 2.51, 2.49])["word"] == "worse than scratch's band"


@pytest.mark.parametrize("n", [1, 2])
def test_runs_that_are_like_scratch_are_within_its_band_19_times_out_of_20(n: int) -> None:
    rng = np.random.default_rng(n)
    drawn = [(rng.normal(0, 1, n).tolist(), rng.normal(0, 1, 12).tolist()) for _ in range(4000)]
    words = [held(bpb, scratch)["word"] for bpb, scratch in drawn]
    assert words.count("within scratch's band") / 4000 == pytest.approx(0.95, abs=0.01)


def test_only_methods_with_too_few_seeds_are_held_to_it(tmp_path: Path) -> None:
    data = frames(load_suite(write_records(tmp_path / "one", seeds=(0,))))
    found = {row["method"]: row["word"] for row in rows(single_runs(data, band(tmp_path / "b")))}
    assert found["scratch"] == "within scratch's band"
    assert found["fast"] == "better than scratch's band"
    assert found["slow"] == "worse than scratch's band"
    three = frames(load_suite(write_records(tmp_path / "three")))
    assert single_runs(three, tmp_path / "b").empty


@pytest.mark.parametrize("key", ["version", "corpus", "budget_flops"])
def test_a_band_of_another_workload_judges_nobody(tmp_path: Path, key: str) -> None:
    data = frames(load_suite(write_records(tmp_path / "one", seeds=(0,))))
    assert single_runs(data, band(tmp_path / "b", **{key: "another"})).empty
    assert single_runs(data, tmp_path / "nowhere").empty


def test_the_page_says_that_the_rule_is_no_verdict(tmp_path: Path) -> None:
    suite = load_suite(write_records(tmp_path / "one", seeds=(0,)))
    found = analyse(suite)
    table = single_runs(found.frames, band(tmp_path / "b"))
    text = page(replace(found, tables={**found.tables, "single_runs": table}))
    section = text.partition("## Single runs against the band of scratch")[2].partition("## ")[0]
    assert section.strip().startswith("**No verdicts.**")
    assert "better than scratch's band" in section
    assert set(found.words.values()) == {"insufficient seeds"}
