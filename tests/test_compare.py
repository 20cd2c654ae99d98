"""Two results folders: what moved beyond noise, what did not, and what must not be compared."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_records import SUITE, Planted, rewrite, run_id, write_records

from benchmark.base.errors import RecordError
from benchmark.cli.main import main
from benchmark.records.events import Event
from benchmark.records.folder import load_run, load_suite, run_ids
from benchmark.report.compare import Change, compare_folders

SEEDS = (0, 1, 2, 3, 4)


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def records(folder: Path, *, noise: float = 0.002, **offsets: float) -> Path:
    """Results in which some methods are worse by an offset."""
    methods = tuple(replace(m, offset=m.offset + offsets.get(m.name, 0.0)) for m in SUITE)
    return write_records(folder, methods, seeds=SEEDS, noise=noise)


def changes(a: Path, b: Path) -> dict[str, Change]:
    return {change.method: change for change in compare_folders(a, b).methods}


def test_what_moved_is_told_from_noise(tmp_path: Path) -> None:
    other = tuple(replace(m, offset=m.offset + {"fast": 0.05, "slow": -0.05}.get(m.name, 0.0))
                  for m in SUITE)  # fmt: skip
    a, b = records(tmp_path / "a"), write_records(tmp_path / "b", other, seeds=SEEDS, noise=0.003)
    found = changes(a, b)
    assert {name: change.mark for name, change in found.items() if change.mark != "~"} == {
        "fast": "worse",
        "slow": "better",
    }
    fast = found["fast"].difference
    assert fast.n == 5
    assert fast.low < 0.05 < fast.high
    assert [name for name, change in found.items() if change.regressed] == ["fast"]


def test_the_same_results_are_the_same(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    assert {change.mark for change in changes(a, b).values()} == {"~"}
    assert not compare_folders(a, b).regressed
    assert compare_folders(a, b).provenance == {}


def test_too_few_seeds_allow_no_word(tmp_path: Path) -> None:
    worse = tuple(replace(method, offset=method.offset + 0.5) for method in SUITE)
    a = write_records(tmp_path / "a", seeds=(0, 1))
    b = write_records(tmp_path / "b", worse, seeds=(0, 1))
    assert {change.mark for change in changes(a, b).values()} == {"~"}
    assert not compare_folders(a, b).regressed


def test_pairs_are_the_seeds_that_both_have(tmp_path: Path) -> None:
    a = write_records(tmp_path / "a", seeds=(0, 1, 2, 3))
    b = write_records(tmp_path / "b", seeds=(1, 2, 3, 4))
    assert {change.difference.n for change in changes(a, b).values()} == {3}


def test_a_run_whose_records_are_gone_is_named_and_other_seeds_are_not(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    run = next(run for run in load_suite(b).runs if run.method == "slow")
    (b / "runs" / f"{run.run_id}.jsonl.gz").unlink()
    found = compare_folders(a, b)
    assert (found.only_in_a, found.regressed) == ((f"slow seed {run.seed}",), True)
    fewer = write_records(tmp_path / "c", seeds=SEEDS[:-1])
    assert compare_folders(a, fewer).only_in_a == ()


def test_a_method_that_was_lost_or_diverges_has_regressed(tmp_path: Path) -> None:
    a = records(tmp_path / "a")
    gone = write_records(tmp_path / "b", SUITE[:-1], seeds=SEEDS)
    found = compare_folders(a, gone)
    assert (found.only_in_a, found.only_in_b, found.regressed) == (("slow",), (), True)
    back = compare_folders(gone, a)
    assert (back.only_in_a, back.only_in_b, back.regressed) == ((), ("slow",), False)
    wild = tuple(replace(m, status="diverged", ends_at=0.5) if m.name == "fast" else m
                 for m in SUITE)  # fmt: skip
    assert changes(a, write_records(tmp_path / "c", wild, seeds=SEEDS))["fast"].regressed


def edit_plan(folder: Path, **fields: str) -> None:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))


def edit_runs(folder: Path, **changes: Callable[[Any], object]) -> None:
    """Change events, config or provenance of every run."""
    for name in run_ids(folder):
        rewrite(folder, name, **changes)


def test_another_suite_or_version_is_refused_by_name(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    edit_plan(b, version="2.0")
    edit_runs(b, events=lambda events: events[0].update(suite_version="2.0"))
    with pytest.raises(RecordError, match=r"version is 1\.0 and 2\.0; runs may differ only"):
        compare_folders(a, b)
    edit_plan(b, name="other")
    edit_runs(b, events=lambda events: events[0].update(suite="other"))
    with pytest.raises(RecordError, match="suite is toy and other"):
        compare_folders(a, b)


def test_other_shared_settings_are_refused_by_key(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    edit_runs(b, config=lambda config: config["workload"].update(batch_size=16))
    with pytest.raises(RecordError, match=r"workload\.batch_size is 8 and 16; runs may differ"):
        compare_folders(a, b)


def test_what_they_were_made_with_is_told_where_it_differs(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    edit_provenance(b)
    assert compare_folders(a, b).provenance == {"packages.torch": ("2.13.0", "2.14.0")}


def parted(a: Path, b: Path, change: Callable[[list[Event]], object]) -> str | None:
    """The first difference of scratch, seed 0, after a change of its records in B."""
    rewrite(b, run_id("scratch", 0), events=change)
    return compare_folders(a, b).records["scratch seed 0"]


def at(events: list[Event], kind: str, number: int) -> Event:
    return [event for event in events if event["kind"] == kind][number]


@pytest.mark.slow
def test_the_first_record_that_differs_is_named_with_field_and_both_values(tmp_path: Path) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    assert set(compare_folders(a, b).records.values()) == {None}

    def slower(events: list[Event]) -> None:
        for event in events:
            event |= {key: 2 * event[key] for key in event if "seconds" in key or "memory" in key}
        at(events, "stage", 0)["stage_id"] = "of other code"

    assert parted(a, b, slower) is None
    block = parted(a, b, lambda e: at(e, "final", 1)["block_nats"].__setitem__(7, 1.5))
    assert block is not None
    assert re.fullmatch(r"final at step \d+: block_nats\.7 \S+ against 1\.5", block)
    bpb = at(list(load_run(a, run_id("scratch", 0)).events), "evaluation", 9)["bpb"]
    found = parted(a, b, lambda e: at(e, "evaluation", 9).update(bpb=bpb + 1e-9))
    assert found is not None
    place, _, field = found.partition(": ")
    assert re.fullmatch(r"evaluation at step \d+", place)
    left, right = field.removeprefix("bpb ").split(" against ")
    assert float(left) == pytest.approx(bpb, abs=1e-8)
    assert left != right
    missing = parted(a, b, lambda e: e.remove(at(e, "evaluation", 4)))
    assert missing is not None
    assert missing.startswith("evaluation at step ")
    kinds = parted(a, b, lambda e: e.insert(1, {"v": 1, "kind": "micro_batch", "step": 3}))
    assert kinds == "stage at step 0 against micro_batch at step 3"
    assert parted(a, b, lambda e: e.__delitem__(slice(1, None))) == (
        "stage at step 0 against no further record"
    )


def edit_provenance(folder: Path) -> None:
    edit_runs(folder, provenance=lambda made: made[0]["packages"].update(torch="2.14.0"))


def test_the_command_prints_a_table_and_exits_for_ci(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = records(tmp_path / "a"), records(tmp_path / "b", fast=0.05)
    edit_provenance(b)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(a), str(b)])
    out = capsys.readouterr().out
    assert stopped.value.code == 1
    marks = {line.split()[1]: line.split()[0] for line in out.splitlines()[1:] if "[" in line}
    assert (marks["fast"], marks["slow"]) == ("worse", "~")
    assert "45 of 50 runs have the same records, times aside" in out
    assert re.search(r"first difference: fast seed 0: \w+ at step \d+: bpb \S+ against \d", out)
    assert "made with another packages.torch: 2.13.0 in A, 2.14.0 in B" in out
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(a), str(a)])
    assert not stopped.value.code


def test_folders_without_results_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = records(tmp_path / "a")
    empty = write_records(tmp_path / "b", (Planted(name="scratch", role="control"),),
                          seeds=(0,), missing=(("scratch", 0),))  # fmt: skip
    for other in (empty, tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as stopped:
            main(["compare", str(a), str(other)])
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
