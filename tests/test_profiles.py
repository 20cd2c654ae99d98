"""Performance profiles over several workloads."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_records as toy
from synthetic_records import SUITE, Planted, write_records

from benchmark.base.errors import RecordError
from benchmark.records.folder import load_suite
from benchmark.report.analysis import Analysis, analyse
from benchmark.report.profiles import load_profiles, profiles, table

SPEEDS = (1.3, 1.2, 1.1, 0.9, 1.25)


def workload(folder: Path, number: int) -> Analysis:
    """A suite with its own batch size and its own speed of `fast`, called after its number."""
    methods = [replace(m, speed_up=SPEEDS[number]) if m.name == "fast" else m for m in SUITE]
    only = Planted(name=f"only_w{number}", sizes=(toy.SMALL, toy.TARGET))
    suite = load_suite(write_records(folder / f"w{number}", (*methods, only), seeds=(0,)))
    batch = {"batch_size": 8 * (number + 1)}
    runs = [
        replace(run, config={**run.config, "workload": run.config["workload"] | batch})
        for run in suite.runs
    ]
    return analyse(replace(suite, name=f"w{number}", runs=tuple(runs)))


def workloads(folder: Path, n: int) -> list[Analysis]:
    return [workload(folder, number) for number in range(n)]


def test_scores_are_those_of_the_planted_speed_ups(tmp_path: Path) -> None:
    found = profiles(workloads(tmp_path, 5))
    costs = [1 / s if s > 1 else math.inf for s in SPEEDS]
    assert list(found.costs.loc["fast"]) == pytest.approx(costs, rel=2e-3)
    assert list(found.costs.loc["scratch"]) == [1.0] * 5
    best = [min(cost, 1.0) for cost in costs]
    expected = [(4 - min(1.0 / b, 4)) / 3 for b in best]
    assert found.scores["scratch"] == pytest.approx(sum(expected) / 5, rel=1e-3)
    assert found.scores["fast"] == pytest.approx(4 / 5)
    assert found.scores["slow"] == 0.0


def test_the_pool_is_named_and_so_is_who_is_left_out(tmp_path: Path) -> None:
    found = profiles(workloads(tmp_path, 5))
    assert found.left_out == tuple(f"only_w{i}" for i in range(5))
    text = table(found)
    assert "left out: only_w0, only_w1, only_w2, only_w3 and only_w4" in text
    assert "| within 1.25x |" in text.replace("  ", "")
    assert "`fast`" in text


def test_fewer_than_five_workloads_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="needs 5 workloads or more, got 2: w0, w1"):
        profiles(workloads(tmp_path, 2))


def test_the_same_workload_twice_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_records(tmp_path, seeds=(0,))
    with pytest.raises(RecordError, match="suites toy and toy have the same workload and budget"):
        load_profiles([folder] * 5)
