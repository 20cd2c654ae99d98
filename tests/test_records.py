"""The record: what is written is what is read, whatever interrupts it."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic_records as toy
import yaml

from benchmark.base.errors import RecordError
from benchmark.records.events import EventLog, atomic_write_text, read_events
from benchmark.records.folder import load_run, load_suite, run_file, write_run
from benchmark.records.provenance import code_version, provenance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "events.jsonl"


def test_reads_what_was_written(path: Path) -> None:
    with EventLog(path) as log:
        log.append("evaluation", bpb=2.1000000000000001, step=3, sizes={"n_layer": 2})
        log.append("end", status="done", error=None)
    assert read_events(path) == [
        {"v": 1, "kind": "evaluation", "bpb": 2.1, "step": 3, "sizes": {"n_layer": 2}},
        {"v": 1, "kind": "end", "status": "done", "error": None},
    ]


def test_writes_non_finite_numbers_as_strings_and_reads_them_as_numbers(path: Path) -> None:
    with EventLog(path) as log:
        log.append("evaluation", bpb=math.nan, nested={"nats": [1.5, math.inf, -math.inf]})
    assert b'"nan"' in path.read_bytes()
    (event,) = read_events(path)
    assert math.isnan(event["bpb"])
    assert event["nested"]["nats"] == [1.5, math.inf, -math.inf]


def test_drops_a_torn_last_line(path: Path) -> None:
    with EventLog(path) as log:
        log.append("train", loss=1.0)
    path.write_bytes(path.read_bytes() + b'{"v":1,"kind":"train","lo')
    assert [event["loss"] for event in read_events(path)] == [1.0]


def test_a_reopened_log_continues_after_a_torn_line(path: Path) -> None:
    with EventLog(path) as log:
        log.append("train", loss=1.0)
    path.write_bytes(path.read_bytes() + b'{"v":1,"kind"')
    with EventLog(path) as log:
        log.append("train", loss=2.0)
    assert [event["loss"] for event in read_events(path)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "damaged",
    [b'{"v":1,"kind":', b"[1]", b'{"v":2,"kind":"train"}', b'{"v":1}', b"\xff", b"", b'{"v": NaN}'],
)
def test_names_the_file_and_line_of_a_damaged_record(path: Path, damaged: bytes) -> None:
    with EventLog(path) as log:
        log.append("train", loss=1.0)
    path.write_bytes(path.read_bytes() + damaged + b"\n")
    with pytest.raises(RecordError, match=r"events\.jsonl, line 2: "):
        read_events(path)


def test_a_missing_log_is_one_clear_line(path: Path) -> None:
    with pytest.raises(RecordError, match=r"events\.jsonl: cannot be read"):
        read_events(path)


def test_truncates_to_an_earlier_offset(path: Path) -> None:
    with EventLog(path) as log:
        log.append("train", loss=1.0)
        kept = log.offset
        log.append("train", loss=2.0)
        log.truncate_to(kept)
        assert log.offset == kept == path.stat().st_size
        log.append("train", loss=3.0)
    assert [event["loss"] for event in read_events(path)] == [1.0, 3.0]


@pytest.mark.parametrize("offset", [-1, 5, 10**6])
def test_refuses_to_truncate_inside_a_record_or_past_the_end(path: Path, offset: int) -> None:
    with EventLog(path) as log:
        log.append("train", loss=1.0)
        with pytest.raises(RecordError, match="not the end of a record"):
            log.truncate_to(offset)
        log.truncate_to(0)
    assert read_events(path) == []


def test_a_kill_loses_no_earlier_record(path: Path) -> None:
    script = """
import itertools, pathlib, sys
from benchmark.records.events import EventLog
log = EventLog(pathlib.Path(sys.argv[1]))
for i in itertools.count():
    log.append("train", number=i, padding="x" * 5000)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=Path.cwd())
    while not path.exists() or path.stat().st_size < 100_000:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    numbers = [event["number"] for event in read_events(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 19


def test_a_published_run_replaces_the_old_one_whole(tmp_path: Path) -> None:
    method = toy.SUITE[0]
    run_id = toy.run_id(method.name, 0)
    for noise in (0.0, 0.1):
        events = toy.events(method, 0, noise)
        write_run(tmp_path, events, toy.config(method, 0, (0,)), toy.PROVENANCE)
        run = load_run(tmp_path, run_id)
        assert (list(run.events), run.provenance) == (events, toy.PROVENANCE)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"shared.jsonl", f"{run_id}.jsonl.gz"}


def test_what_runs_share_is_stored_once(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:2], seeds=(0, 1, 2))
    kinds = [part["kind"] for part in read_events(tmp_path / "shared.jsonl")]
    assert sorted(kinds) == ["environment", "method", "method", "settings"]
    toy.rewrite(
        tmp_path, toy.run_id("scratch", 1), provenance=lambda made: made[0].update(n_cores=3)
    )
    assert [run.environments[0]["n_cores"] for run in load_suite(tmp_path).runs] == [
        2,
        3,
        2,
        2,
        2,
        2,
    ]


def test_a_damaged_or_foreign_run_file_is_named(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:1], seeds=(0,))
    path = run_file(tmp_path, toy.run_id("scratch", 0))
    whole = path.read_bytes()
    for damaged in (b"", b"2.345 bpb", whole[:-20], whole[:-8] + bytes(8)):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"runs/\w+\.jsonl\.gz: (damaged|the first record)"):
            load_suite(tmp_path)
    path.write_bytes(whole)
    (tmp_path / "shared.jsonl").unlink()
    with pytest.raises(RecordError, match=r"refers to '\w+', which is not in shared\.jsonl"):
        load_suite(tmp_path)


def test_configurations_keep_their_numbers(tmp_path: Path) -> None:
    folder = toy.write_records(tmp_path, toy.SUITE[:1], seeds=(0,))
    (run,) = load_suite(folder).runs
    assert run.config == toy.config(toy.SUITE[0], 0, (0,))


def test_a_run_id_that_looks_like_a_number_stays_a_name(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:1], seeds=(0,))
    given, numeric = toy.run_id("scratch", 0), "2045391731138e07"
    (tmp_path / "suite.yaml").write_text(
        (tmp_path / "suite.yaml").read_text().replace(given, numeric)
    )
    toy.rewrite(tmp_path, given, events=lambda events: events[0].update(run_id=numeric))
    (run,) = load_suite(tmp_path).runs
    assert run.run_id == numeric


def test_missing_and_unfinished_runs_are_represented(tmp_path: Path) -> None:
    broken = toy.Planted(name="broken", status="unfinished", ends_at=0.5)
    toy.write_records(tmp_path, (*toy.SUITE[:1], broken), seeds=(0, 1), missing=(("scratch", 1),))
    suite = load_suite(tmp_path)
    assert [(run.method, run.seed, run.status) for run in suite.runs] == [
        ("scratch", 0, "done"),
        ("scratch", 1, "missing"),
        ("broken", 0, "unfinished"),
        ("broken", 1, "unfinished"),
    ]


def test_runs_outside_the_plan_are_named(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:2], seeds=(0,))
    plan = yaml.safe_load((tmp_path / "suite.yaml").read_text())
    dropped = plan["runs"].pop()
    atomic_write_text(tmp_path / "suite.yaml", yaml.safe_dump(plan))
    assert load_suite(tmp_path).unplanned == (dropped["run_id"],)


def test_refuses_a_run_of_another_version(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:1], seeds=(0,))
    text = (tmp_path / "suite.yaml").read_text()
    (tmp_path / "suite.yaml").write_text(text.replace("'1.0'", "'1.1'"))
    with pytest.raises(RecordError, match=r"suite_version is '1\.0', the plan says '1\.1'"):
        load_suite(tmp_path)


def test_refuses_a_plan_with_the_same_run_twice(tmp_path: Path) -> None:
    toy.write_records(tmp_path, toy.SUITE[:1] * 2, seeds=(0,))
    with pytest.raises(RecordError, match="plans the same run twice"):
        load_suite(tmp_path)


def test_a_folder_without_a_plan_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"suite\.yaml: cannot be read"):
        load_suite(tmp_path)


def test_provenance_follows_the_schema_and_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    found = provenance({"device": "cpu", "threads": 1})
    assert found.keys() < toy.ENVIRONMENT.keys()
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert list(packages) == sorted(packages)
    assert packages["torch"].startswith("2.")
    assert found["env"] == found["env"] | {"OMP_NUM_THREADS": "1"}
    text = repr(found)
    assert "hunter2" not in text
    assert str(Path.cwd()) not in text
    assert os.uname().nodename not in text


def test_provenance_sees_uncommitted_and_new_sources_but_not_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    assert code_version(tmp_path) == {"commit": None, "dirty": None, "diff_sha256": None}
    (tmp_path / "a.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = code_version(tmp_path)
    assert (clean["dirty"], clean["diff_sha256"]) == (False, None)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "report.md").write_text("x")
    assert code_version(tmp_path) == clean
    (tmp_path / "b.py").write_text("2")
    new = code_version(tmp_path)
    (tmp_path / "a.py").write_text("3")
    changed = code_version(tmp_path)
    assert new["dirty"] is changed["dirty"] is True
    assert len({clean["diff_sha256"], new["diff_sha256"], changed["diff_sha256"]}) == 3
    assert code_version(tmp_path / "results")["commit"] is None
