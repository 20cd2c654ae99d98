"""An audit passes what was published, and names what was tampered with, check by check."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from trained_suite import Events, faults, forge, last, replan, run_log, train

from benchmark.audit import CHECKS, audit
from benchmark.audit.band import reference
from benchmark.audit.evidence import Evidence, Remark
from benchmark.base.errors import RecordError
from benchmark.records.events import Event
from benchmark.records.folder import SUMS, load_suite, seal
from benchmark.records.lock import FILE

pytestmark = pytest.mark.slow


def test_what_was_published_passes_every_check(published: Path) -> None:
    found = {finding.name: finding for finding in audit(published)}
    assert set(found) == {"checksums", "records", *CHECKS}
    wrong = {name: finding.detail for name, finding in found.items() if finding.status == "failed"}
    assert wrong == {}
    notes = {name for name, finding in found.items() if finding.status == "note"}
    assert notes == {"reference band"}  # nobody keeps one for a test


def test_a_stage_that_only_grows_passes(tmp_path: Path) -> None:
    """Learning the map costs more than what is left until the stage ends."""
    (tmp_path / "learned.yaml").write_text("defaults: ligo\nname: ligo\nargs: {n_steps: 3}\n")
    settings = ("methods=[scratch,learned.yaml]", "protocol.seeds=[0]", "protocol.cuts=[0.55]")
    results = train(tmp_path, *settings)
    (grown,) = (run for run in load_suite(results).runs if run.method == "ligo")
    assert 0 in [event["steps"] for event in grown.of("charge") if event["what"] == "train"]
    assert [f.name for f in audit(results) if f.status == "failed"] == []


def change(key: str, value: object, kind: str, **which: object) -> Callable[[Events], None]:
    """Give a field of the last record of a kind another value, or what a function makes of it."""

    def changed(events: Events) -> None:
        event = last([e for e in events if which.items() <= e.items()], kind)
        event[key] = value(event[key]) if callable(value) else value

    return changed


def ends_early(events: Events) -> None:
    """Cut the last stage off, and say that the run ended there."""
    n = max(event.get("stage", 0) for event in events)
    finals = [event for event in events if event["kind"] == "final"]
    end = events[-1]
    kept = [event for event in events[:-1] if event.get("stage") != n]
    at = {key: last(kept, "evaluation")[key] for key in ("step", "tokens", "flops", "seconds")}
    events[:] = [*kept, *finals, end]
    for event in (*finals, end):
        event.update(at)


def half(x: float) -> float:
    return x / 2


FORGERIES: dict[str, tuple[str, Callable[[Events], None], str]] = {
    "charges": ("stacking", change("flops", half, "charge"), "flops"),
    "totals": ("scratch", change("flops", half, "end"), "charges so far add up to"),
    "budget": ("scratch", ends_early, "steps before its budget"),
    "epochs": ("scratch", change("tokens", 10**9, "end"), "repeats data"),
    "bits per byte": ("stacking", change("bpb", 1.0, "final", split="test"), "bpb is 1.000000"),
    "same text": ("stacking", change("block_bytes", lambda b: b[:-1], "final"), "blocks of"),
    "parameters": (
        "scratch",
        change("n_params", 7, "stage"),
        "n_params 7, its tensors have ",
    ),
}


@pytest.mark.parametrize("check", FORGERIES)
def test_forged_records_are_named_though_their_checksums_are_right(
    results: Path, check: str
) -> None:
    method, forged, words = FORGERIES[check]
    assert faults(results, check) == []
    log = run_log(results, method)
    forge(log, events=forged)
    assert faults(results, "checksums") == []
    found = faults(results, check)
    assert found
    assert f"runs/{log.name} ({method}, seed 0)" in found[0]
    assert words in found[0]


def test_a_setting_that_one_run_has_for_itself_is_named(results: Path) -> None:
    log = run_log(results, "stacking")

    def lighter(config: Event) -> None:
        config["protocol"]["optimizer"]["weight_decay"] = 0.0
        config["method"]["optimizer"] = "mine"

    forge(log, config=lighter)
    place = f"runs/{log.name} (stacking, seed 0)"
    first, second = faults(results, "plan")
    assert first == f"{place}: protocol.optimizer.weight_decay is 0.0, was 0.1 in plan.lock"
    assert second.startswith(f"{place}: its settings is ")


def test_a_lost_run_is_named(results: Path) -> None:
    log = run_log(results, "stacking", 2)
    log.unlink()
    assert faults(results, "seeds") == [f"runs/{log.name} (stacking, seed 2): missing"]


def test_a_run_that_no_plan_covers_and_one_that_it_misses_are_named(results: Path) -> None:
    replan(results, lambda plan: plan["runs"].remove(plan["runs"][0]))
    (fault,) = faults(results, "plan")
    assert fault == "suite.yaml: scratch, seed 0 is dropped, plan.lock says control"
    content = json.loads((results / "plan.lock").read_text())
    (results / "plan.lock").unlink()
    assert "plan.lock: there is none" in faults(results, "plan")[0]
    content["plan"]["methods"]["scratch"]["seeds"] = [0, 1]
    (results / "plan.lock").write_text(json.dumps(content))
    assert "suite.yaml: scratch, seed 2 is control, plan.lock says nothing of it" in faults(
        results, "plan"
    )


def test_files_that_changed_went_or_came_are_named(results: Path) -> None:
    log, other = (run_log(results, method) for method in ("scratch", "stacking"))
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    log.write_bytes(damaged)
    other.rename(other.with_name("0.jsonl.gz"))
    assert sorted(faults(results, "checksums")) == sorted([
        f"runs/{log.name}: changed since it was published",
        "runs/0.jsonl.gz: not published with the others",
        f"runs/{other.name}: missing",
    ])  # fmt: skip


@pytest.mark.parametrize("name", ["corpus.json", "plan.lock", "shared.jsonl", "suite.yaml"])
def test_the_folder_has_checksums_of_its_own(results: Path, name: str) -> None:
    (results / name).write_text((results / name).read_text() + "\n")
    assert faults(results, "checksums") == [f"{name}: changed since it was published"]
    (results / SUMS).unlink()
    assert faults(results, "checksums") == []
    (finding, *_) = audit(results)
    assert (finding.status, "not published" in finding.detail) == ("note", True)


def test_a_table_with_another_number_is_named(results: Path) -> None:
    summary = results / "tables/summary.csv"
    lines = summary.read_text().splitlines()
    column = lines[0].split(",").index("test_bpb")
    cells = lines[1].split(",")
    cells[column] = "1.0"
    summary.write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    (fault,) = faults(results, "report")
    assert fault.startswith("tables/summary.csv: missing, or not what the records give")


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_crippled_scratch_is_named_by_the_reference_band(
    published: Path, tmp_path: Path, is_listed: bool
) -> None:
    """A seed of the band is held to itself within rounding, others to the spread over seeds."""
    evidence = Evidence.of(published)
    found = {run.seed: e["bpb"] for run in evidence.suite.runs if run.method == "scratch"
             for e in run.of("final") if e["split"] == "val"}  # fmt: skip
    mean = sum(found.values()) / len(found)
    others = {10 + k: mean + 0.02 * (k % 2 - 0.5) for k in range(8)}
    seeds = found if is_listed else others

    def said(shift: float, **more: object) -> list[Remark]:
        band = {"version": "1.0", "corpus": "letters", "budget_flops": 5e8,
                "seeds": {seed: bpb - shift for seed, bpb in seeds.items()}}  # fmt: skip
        band["rounding"] = {"sd": 0.004, "n": 3}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(band | more))
        return list(reference(evidence, tmp_path))

    least = 0.004 / math.sqrt(3) * 2.3534 if is_listed else 0.05  # Student's t, 3 degrees
    assert said(0.0) == said(-0.2) == said(0.9 * least if is_listed else 0.0) == []
    (remark,) = said(1.1 * least)
    assert remark.is_fault
    assert "with seeds 0, 1, 2, configs/bands/tiny.yaml says " in remark.text
    assert "a crippled control" in remark.text
    (remark,) = said(0.0, budget_flops=1e9)
    assert not remark.is_fault
    assert "budget_flops 1000000000.0, here 500000000.0" in remark.text


def test_every_check_has_a_counterexample() -> None:
    others = {"plan", "seeds", "report", "reference band"}
    assert {*FORGERIES, *others} == set(CHECKS)


def test_damaged_records_end_the_audit(results: Path) -> None:
    log = run_log(results, "scratch")
    lines = gzip.decompress(log.read_bytes())
    log.write_bytes(gzip.compress(lines.replace(b'"kind"', b'"kin', 1)))
    found = audit(results)
    assert [(finding.name, finding.status) for finding in found] == [
        ("checksums", "failed"), ("records", "failed"),
    ]  # fmt: skip
    assert ".jsonl.gz, line 1: damaged record" in found[1].detail


def test_a_run_that_has_no_records_yet_is_no_crash(results: Path) -> None:
    shutil.rmtree(results / "runs")
    assert audit(results)[-1].detail == "nothing to check: no run has records"


def test_a_folder_without_results_has_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nothing to check: no suite\.yaml is there"):
        audit(tmp_path)


def test_an_amended_plan_passes(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published.parents[2], tmp_path / "again"))
    results = train(folder, "protocol.seeds=[0,1]")
    assert len(load_suite(results).runs) == 8
    assert faults(results, "plan") == []


def test_a_table_that_no_report_has_is_named_and_the_interactive_page_may_be_left_out(
    results: Path,
) -> None:
    (results / "tables" / "best_of.csv").write_text("method,bpb\nours,1.0\n")
    (results / "report.html").unlink()
    (fault,) = faults(results, "report")
    assert fault.startswith("tables/best_of.csv: ")


def relock(results: Path, forge_plan: Callable[[Event], None]) -> None:
    """Rewrite plan.lock."""
    path = results / FILE
    content = json.loads(path.read_text())
    forge_plan(content)
    path.write_text(json.dumps(content))
    seal(results)


def test_a_method_with_other_settings_than_were_planned_is_named(results: Path) -> None:
    log = run_log(results, "stacking")
    forge(log, config=lambda config: config["method"].update(controls=["scratch_half"]))
    assert "(stacking, seed 0): its settings is " in faults(results, "plan")[0]


def test_a_lost_charge_leaves_a_trace(results: Path) -> None:
    log = run_log(results, "stacking")
    forge(log, events=lambda events: events.remove(last(events, "charge")))
    assert "charges so far add up to" in faults(results, "totals")[0]


def test_a_budget_that_the_plan_does_not_give_is_named(results: Path) -> None:
    relock(results, lambda content: content["plan"]["methods"]["stacking"].update(budget=0.5))
    assert "its budget is 1.0, plan.lock says 0.5" in faults(results, "plan")[0]
