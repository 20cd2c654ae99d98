"""A working folder is one's own; what is published was checked, and is not trained again."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
import synthetic_records as toy
from trained_suite import METHODS, ROOT, faults, forge, last, replan, run_log, train

from benchmark import load_results
from benchmark.base.errors import RecordError
from benchmark.cli.main import main
from benchmark.records.folder import load_suite, run_ids
from benchmark.records.lock import hold, plan_of, read
from benchmark.report.files import check
from benchmark.session.publish import publish

LOCAL = Path("results/local/tiny")
PUBLISHED = Path("results/tiny")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny suite is trained to the end."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "here"


def growbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command leaves, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main(arguments)
    code = int(stopped.value.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run(*settings: str, seeds: str = "[0,1,2]") -> subprocess.CompletedProcess[str]:
    return growbench("run", "tiny.yaml", METHODS, f"protocol.seeds={seeds}", *settings)


@pytest.mark.slow
def test_published_results_are_those_of_the_working_folder_checked_and_sealed(here: Path) -> None:
    done = growbench("publish", str(LOCAL))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("results/tiny: 12 runs, 12 of them new, ")
    assert "SHA256SUMS covers every record" in done.stdout
    assert check(PUBLISHED) == faults(PUBLISHED, "checksums") == []
    files = {path.name for path in PUBLISHED.iterdir()}
    assert files == {"SHA256SUMS", "corpus.json", "figures", "plan.lock", "report.md", "runs",
                     "shared.jsonl", "suite.yaml", "tables"}  # fmt: skip
    mine, theirs = load_results(here / LOCAL), load_results(PUBLISHED)
    for name in ("runs", "evaluations", "losses", "growths"):
        pd.testing.assert_frame_equal(getattr(mine, name), getattr(theirs, name), check_exact=True)
    with pytest.raises(RecordError, match="is the published folder itself"):
        publish(PUBLISHED, Path("results"))


def lose(results: Path) -> None:
    run_log(results, "stacking", 2).unlink()


def improve(results: Path) -> None:
    forge(run_log(results, "stacking"), events=lambda e: last(e, "final").update(bpb=1.0))


def drop(results: Path) -> None:
    replan(results, lambda plan: plan["runs"].pop())


def unlock(results: Path) -> None:
    (results / "plan.lock").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(("change", "words"), [
    (lose, r"1 of 12 planned runs have not ended: stacking seed 2; growbench run trains them"),
    (improve, r"the audit finds faults, so nothing is published: bits per byte: .*line \d+"),
    (drop, r"the audit finds faults.*stacking, seed 2 is dropped"),
    (unlock, r"plan\.lock: cannot be read"),
])  # fmt: skip
def test_what_is_incomplete_or_edited_is_not_published(
    here: Path, change: Callable[[Path], None], words: str
) -> None:
    assert here.is_dir()
    change(LOCAL)
    with pytest.raises(RecordError, match=words):
        publish(LOCAL, Path("results"))
    assert not PUBLISHED.exists()
    assert list(Path("results").iterdir()) == [Path("results/local")]


@pytest.mark.slow
def test_a_published_run_is_shown_as_such_and_not_trained_again(here: Path) -> None:
    publish(LOCAL, Path("results"))
    before = (PUBLISHED / "SHA256SUMS").read_bytes()
    shutil.rmtree(LOCAL)
    shutil.rmtree(here / ".growbench")
    planned = growbench("plan", "tiny.yaml", METHODS, "protocol.seeds=[0,1,2]", "--no-probe").stdout
    assert planned.count("3 runs published") == 4
    done = run()
    assert done.returncode == 0, done.stderr
    assert "12 of 12 runs were finished before, 12 of them published; nothing" in done.stdout
    assert not list(here.glob(".growbench/stages/*"))
    assert (LOCAL / "report.md").read_text().count(" done, published ") == 12
    assert (PUBLISHED / "SHA256SUMS").read_bytes() == before
    again = run("--again", "methods=[scratch]", seeds="[0]")
    assert again.returncode == 0, again.stderr
    assert list(here.glob(".growbench/stages/*"))
    assert "published" not in (LOCAL / "report.md").read_text()


@pytest.mark.slow
def test_further_seeds_amend_the_published_plan_and_are_published_with_the_rest(here: Path) -> None:
    publish(LOCAL, Path("results"))
    shutil.rmtree(LOCAL)
    first = read(PUBLISHED)
    assert run(seeds="[0,1,2,3]").returncode == 0
    assert load_suite(LOCAL).published == run_ids(PUBLISHED)
    assert "16 runs, 4 of them new" in publish(LOCAL, Path("results"))[0]
    lock = read(PUBLISHED)
    assert lock.follows(first)
    assert [(a.results, a.added["scratch"]) for a in lock.amendments] == [(12, [3])]
    assert load_suite(PUBLISHED).published == frozenset()


@pytest.mark.slow
def test_a_plan_that_lies_where_results_will_be_published_is_the_one_that_they_keep(
    here: Path,
) -> None:
    PUBLISHED.mkdir(parents=True)
    content = json.loads((LOCAL / "plan.lock").read_text())
    planned = json.dumps(content | {"date": "2026-01-01T00:00:00+00:00"})
    (PUBLISHED / "plan.lock").write_text(planned)
    with pytest.raises(RecordError, match=r"is of the plan of 2026-01-01T00:00:00"):
        publish(LOCAL, Path("results"))
    (LOCAL / "plan.lock").unlink()
    assert run().returncode == 0
    assert "12 runs, 12 of them new" in publish(LOCAL, Path("results"))[0]
    assert read(PUBLISHED).date == "2026-01-01T00:00:00+00:00"


@pytest.mark.slow
def test_results_of_another_plan_are_overwritten_only_if_that_is_asked_for(
    here: Path,
) -> None:
    publish(LOCAL, Path("results"))
    assert run("protocol.curve_bytes=1024", "methods=[scratch]", seeds="[0]").returncode == 0
    refused = growbench("publish", str(LOCAL))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "growbench: results/tiny: is of another plan: protocol.curve_bytes is 1024, was "
        "512; --replace overwrites it\n"
    )
    done = growbench("publish", str(LOCAL), "--replace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("results/tiny: 1 runs, 1 of them new, ")


def of_version(folder: Path, version: str) -> Path:
    """Results of this version of the toy suite."""
    results = toy.write_records(folder / "toy", toy.SUITE[:1], seeds=(0,))
    config = toy.config(toy.SUITE[0], 0, (0,)) | {"suite_version": version}
    hold(results, plan_of([config], {}, "science"))
    run_id = toy.run_id("scratch", 0)
    toy.rewrite(results, run_id, events=lambda events: events[0].update(suite_version=version))
    replan(results, lambda plan: plan.update(version=version))
    return results


def test_results_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    of_version(tmp_path / "results", "1.0")
    mine = of_version(tmp_path / "local", "1.1")
    with pytest.raises(RecordError, match=r"is of version 1\.0, these are of 1\.1"):
        publish(mine, tmp_path / "results")


def test_git_does_not_see_a_working_folder() -> None:
    ignored = ["results/local/cpu/plan.lock", "results/cpu/report.html", ".growbench/stages/x"]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", *ignored, "results/cpu/plan.lock"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout.split() == ignored


@pytest.mark.slow
def test_a_command_that_is_killed_in_a_fresh_clone_leaves_no_trace_in_git(tmp_path: Path) -> None:
    cloned = subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=False)
    if cloned.returncode:
        pytest.skip("not a git checkout")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "clone"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmark", "run", "cpu", "protocol.seeds=[3]"]
    process = subprocess.Popen(command, cwd=tmp_path / "clone", env=environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("clone/.growbench/stages/*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.kill()
    process.wait()
    status = ["git", "-C", str(tmp_path / "clone"), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""
    assert (tmp_path / "clone/results/local/cpu/plan.lock").is_file()
