"""A results folder loads in one line, into frames that docs/results.md describes."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_records import BUDGET, SUITE, TARGET, rewrite, run_id, write_records

from benchmark import load_results
from benchmark.base.errors import RecordError

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/results.md").read_text()
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_every_column_is_described_and_no_other(tmp_path: Path) -> None:
    found = load_results(write_records(tmp_path))
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert list(sections) == ["runs", "evaluations", "losses", "growths"]
    for name, section in sections.items():
        rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
        columns = list(getattr(found, name).columns)
        assert columns[: len(rows)] == [column for column, what in rows if what]
        sizes = {
            column.removeprefix("from_").removeprefix("to_") for column in columns[len(rows) :]
        }
        assert sizes <= TARGET.keys()


def test_frames_hold_what_was_planted(tmp_path: Path) -> None:
    failed = write_records(tmp_path, missing=(("slow", 1),))
    found = load_results(failed)
    assert len(found.runs) == 3 * len(SUITE)
    end = found.runs[(found.runs.method == "scratch") & (found.runs.seed == 0)].iloc[0]
    assert (end.status, end.fraction, end.n_layer) == ("done", 1.0, 4)
    assert end.test_bpb == pytest.approx(2.5)
    missing = found.runs[(found.runs.method == "slow") & (found.runs.seed == 1)].iloc[0]
    assert (missing.status, missing.test_bpb) == ("missing", math.inf)
    fast = found.evaluations[found.evaluations.run_id == found.runs.run_id.iloc[0]]
    assert len(fast) == 20
    assert fast.flops.iloc[-1] == BUDGET
    growth = found.growths[found.growths.method == "fast"].iloc[0]
    assert (growth.growth, growth.from_n_layer, growth.to_n_layer) == (1, 2, 4)
    assert growth.bpb_after > growth.bpb_before


def test_training_losses_are_rows(tmp_path: Path) -> None:
    folder = write_records(tmp_path)
    where = {"step": 5, "tokens": 80, "flops": 0.25 * BUDGET, "seconds": 1.5}
    event = {"v": 1, "kind": "train", "loss": 2.5, "lr": 0.01, **where}
    rewrite(folder, run_id("scratch", 0), events=lambda events: events.insert(2, event))
    (row,) = load_results(folder).losses.to_dict("records")
    expected = where | {"method": "scratch", "seed": 0, "fraction": 0.25, "loss": 2.5, "lr": 0.01}
    assert expected.items() <= row.items()


def test_printed_they_are_a_summary(tmp_path: Path) -> None:
    lines = repr(load_results(write_records(tmp_path))).splitlines()
    assert re.fullmatch(r"toy: \d+ runs \(\d+ done\); rows: runs \d+, .*, growths \d+", lines[0])
    assert lines[2].split() == ["method", "role", "mean", "std", "count"]
    means = [float(line.split()[2]) for line in lines[3:]]
    assert means == sorted(means)
    assert 0 < len(means) <= 10


def test_every_frame_has_one_row_per_thing(tmp_path: Path) -> None:
    found = load_results(str(write_records(tmp_path)))
    assert found.runs.run_id.is_unique
    assert not found.evaluations.duplicated(["run_id", "step"]).any()
    assert not found.growths.duplicated(["run_id", "growth"]).any()


def test_a_folder_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"suite\.yaml"):
        load_results(tmp_path)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    write_records(tmp_path / "results/cpu", noise=0.01)
    _, example, _ = CODE.findall(PAGE)
    printed = run(example, tmp_path)
    assert "jump" in printed
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.slow
def test_importing_costs_nothing_and_loading_no_torch(tmp_path: Path) -> None:
    write_records(tmp_path / "results/cpu")
    heavy = "print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    loading = "from benchmark import load_results; load_results('results/cpu')"
    printed = run(f"import sys, benchmark; {heavy}; {loading}; {heavy}", tmp_path)
    before, after = printed.splitlines()
    assert before == "[]"
    assert "torch" not in after
