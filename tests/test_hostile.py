"""A hostile pass: attacks on the comparison, each refused or flagged by name.

Some are methods, held to the contract or refused before they are planned; some are configurations;
some forge records, with checksums and report made to fit, as somebody would who means it.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_methods import FollowsItsBatches
from tiny_suite import finish, prepare, run_of
from trained_suite import Events, faults, forge, last, replan, run_log

from benchmark.base.errors import ConfigError
from benchmark.cli.main import main
from benchmark.contract import CHECKS, subject
from benchmark.data.corpora import load
from benchmark.plan.config import load_suite as load_config
from benchmark.plan.suite import plan
from benchmark.records.folder import SUMS, checksums
from benchmark.report import files

pytestmark = pytest.mark.slow

METHOD = """
name: hostile
target: "{target}"
ladder: {{shrink: {{n_layer: 2}}, n_growths: 1}}
schedule: {{target: "benchmark.growth.schedule:AtFractions", args: {{at: [0.5]}}}}
{more}
"""
DATA = {"corpus": "letters", "sha256": "", "train": 180_000, "val": 10_000, "test": 10_000}


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def judged(name: str, check: str) -> str:
    """What the contract says of an attack; fails if it says nothing."""
    verdict = CHECKS[check](subject(f"hostile_methods:{name}"))
    assert not verdict.passed
    return verdict.detail


def planned(folder: Path, target: str, more: str = "") -> None:
    """Plan a suite with one method; raises what the harness has against it."""
    prepare(folder)
    (folder / "hostile.yaml").write_text(METHOD.format(target=target, more=more))
    suite = load_config(str(folder / "tiny.yaml"), [f"methods=[{folder / 'hostile.yaml'}]"])
    plan(suite, DATA)


def found_by_audit(results: Path, check: str) -> str:
    """The first fault that one check of an audit finds; fails if there is none."""
    found = faults(results, check)
    assert found
    return found[0]


# A method that peeks at validation


def test_training_batches_do_not_lead_to_held_out_text(tmp_path: Path) -> None:
    """Each split is a memory of its own: what holds training text ends where that ends."""
    method = METHOD.format(target="hostile_methods:FollowsItsBatches", more="")
    run, context = run_of(tmp_path, method)
    finish(run, context)
    corpus = load(context.corpus, context.cache / "corpora")
    assert FollowsItsBatches.found == len(corpus.train) == 180_000
    splits = (corpus.train, corpus.val, corpus.test)
    addresses = {split.untyped_storage().data_ptr() for split in splits}
    assert len(addresses) == 3


# A method that leaks future tokens


def test_a_model_that_sees_what_it_should_predict_is_named() -> None:
    assert "logits of the first 1 tokens depend on later ones" in judged(
        "LeaksTheFuture", "causality"
    )


# A method that repeats data


@pytest.mark.parametrize(
    ("name", "replaced"),
    [("RepeatsItsData", "forward"), ("TrainsMore", "update")],
)
def test_a_method_with_a_training_of_its_own_is_never_planned(
    tmp_path: Path, name: str, replaced: str
) -> None:
    words = f"hostile_methods:{name} replaces {replaced}, which every method shares"
    with pytest.raises(ConfigError, match=words):
        planned(tmp_path, f"hostile_methods:{name}")
    assert replaced in judged(name, "shared training")


def test_a_budget_that_would_read_the_text_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main(["run", "tiny.yaml", "protocol.budget_flops=1e11"])
    assert stopped.value.code == 2
    assert "but one epoch of the corpus has" in capsys.readouterr().err


# A method that hides what its source costs


def test_a_source_that_states_less_than_it_costs_is_named() -> None:
    assert "FLOPs, the formula says" in judged("HidesItsSourceCost", "model FLOPs")


def test_a_source_that_is_in_no_ledger_is_named(results: Path) -> None:
    def without_source(events: Events) -> None:
        paid = [e for e in events if e["kind"] == "charge" and e["stage"] == 0]
        events[:] = [event for event in events if event.get("stage") != 0]
        for event in events:
            for name in ("flops", "tokens"):
                if "step" in event:
                    event[name] -= sum(charge[name] for charge in paid)
            if "step" in event:
                event["step"] -= sum(charge["steps"] for charge in paid)
            if "stage" in event:
                event["stage"] -= 1

    log = run_log(results, "stacking")
    forge(log, events=without_source)
    assert f"runs/{log.name} (stacking, seed 0): ends" in found_by_audit(results, "budget")


# A configuration that gives one method a lower weight decay


@pytest.mark.parametrize(
    "more",
    [
        "optimizer: {weight_decay: 0.0}",
        "protocol: {optimizer: {weight_decay: 0.0}}",
        "tuned: {optimizer.weight_decay: 0.001}",
    ],
)
def test_a_method_cannot_set_what_all_share(tmp_path: Path, more: str) -> None:
    key = more.partition(":")[0]
    with pytest.raises(ConfigError, match=f"unknown key {key}|the planner sets {key}"):
        planned(tmp_path, "baselines.stacking:Stacking", more)


def test_a_lower_weight_decay_in_one_run_is_named(results: Path) -> None:
    log = run_log(results, "stacking", 1)
    forge(log, config=lambda c: c["protocol"]["optimizer"].update(weight_decay=0.01))
    said = found_by_audit(results, "plan")
    place = f"runs/{log.name} (stacking, seed 1)"
    assert said == f"{place}: protocol.optimizer.weight_decay is 0.01, was 0.1 in plan.lock"


# Edited results


def test_a_page_with_an_edited_number_is_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = results / "report.md"
    bpb = next(word.strip("*") for word in page.read_text().split() if word.startswith("**4."))
    page.write_text(page.read_text().replace(bpb, "3.1415", 1))
    assert found_by_audit(results, "report").startswith("report.md: ")
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(results)])
    assert stopped.value.code == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert failed == ["report"]


def test_a_flipped_byte_in_a_record_is_named(results: Path) -> None:
    log = run_log(results, "stacking", 2)
    content = gzip.decompress(log.read_bytes())
    at = content.index(b'"loss": ') + 12  # a digit of a loss that no table shows
    log.write_bytes(gzip.compress(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]))
    said = found_by_audit(results, "checksums")
    assert said == f"runs/{log.name}: changed since it was published"


def test_a_better_score_that_its_blocks_do_not_give_is_named(results: Path) -> None:
    log = run_log(results, "stacking")
    forge(log, events=lambda events: last(events, "final").update(bpb=3.9))
    files.write(results)
    assert (results / SUMS).read_text() == checksums(results)
    assert "(stacking, seed 0), line" in found_by_audit(results, "bits per byte")


def test_a_dropped_seed_is_named(results: Path) -> None:
    log = run_log(results, "scratch", 1)
    log.unlink()

    def without(plan: dict[str, Any]) -> None:
        plan["runs"] = [run for run in plan["runs"] if run["run_id"] != log.name.partition(".")[0]]

    replan(results, without)
    files.write(results)
    assert found_by_audit(results, "plan") == (
        "suite.yaml: scratch, seed 1 is dropped, plan.lock says control"
    )


def test_a_plan_whose_seeds_were_edited_is_named(results: Path) -> None:
    path = results / "plan.lock"
    content = json.loads(path.read_text())
    content["plan"]["methods"]["scratch"]["seeds"] = [0, 2]
    path.write_text(json.dumps(content))
    assert found_by_audit(results, "plan") == (
        "suite.yaml: scratch, seed 1 is control, plan.lock says nothing of it"
    )
    assert found_by_audit(results, "checksums") == "plan.lock: changed since it was published"


# A baseline from the middle of a schedule


def test_a_control_that_stops_before_the_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget 0\.5 is for role rung only, got role control"):
        planned(tmp_path, "baselines.stacking:Stacking", "role: control\nbudget: 0.5")
