"""An audit passes what was published, and names what was tampered with, check by check."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from trained_suite import Events, faults, forge, last, replan, run_folder, train

from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.token_parameters import TokenFormer
from benchmark import cost
from benchmark.audit import CHECKS, audit
from benchmark.audit.band import compared
from benchmark.audit.evidence import Evidence
from benchmark.audit.ledger import parameters, training_flops_per_token
from benchmark.lock import FILE, hold, read
from benchmark.model import ModelConfig, Transformer
from benchmark.records import Event, RunRecord, Suite, load_suite

pytestmark = pytest.mark.slow


def test_what_was_published_passes_every_check(published: Path) -> None:
    found = {finding.name: finding for finding in audit(published)}
    assert set(found) == {"checksums", "records", *CHECKS}
    wrong = {name: finding.detail for name, finding in found.items() if finding.status == "failed"}
    assert wrong == {}
    notes = {name for name, finding in found.items() if finding.status == "note"}
    assert notes == {"reference band"}  # nobody keeps one for a test


def change(key: str, value: object, kind: str, **which: object) -> Callable[[Events], None]:
    """Give a field of the last record of a kind another value, or what a function makes of it."""

    def changed(events: Events) -> None:
        event = last([e for e in events if which.items() <= e.items()], kind)
        event[key] = value(event[key]) if callable(value) else value

    return changed


def drop(*, stage: int) -> Callable[[Events], None]:
    """Forget everything a stage left."""

    def dropped(events: Events) -> None:
        events[:] = [event for event in events if event.get("stage") != stage]

    return dropped


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
    "learning rate": ("scratch", change("lr", 0.006, "train"), "not annealed"),
    "charges": ("stacking", change("flops", half, "charge"), "flops"),
    "totals": ("scratch", change("flops", half, "end"), "charges so far add up to"),
    "source": ("stacking", drop(stage=0), "the first stage starts at step"),
    "budget": ("scratch", ends_early, "steps before its budget"),
    "epochs": ("scratch", change("tokens", 10**9, "end"), "repeats data"),
    "bits per byte": ("stacking", change("bpb", 1.0, "final", split="test"), "bpb is 1.000000"),
    "same text": ("stacking", change("block_bytes", lambda b: b[:-1], "final"), "blocks of"),
    "same slice": ("stacking", change("n_bytes", 100, "evaluation"), "scored 100 bytes, not 512"),
    "same times": (
        "stacking",
        lambda events: events.remove(last(events, "evaluation")),
        "no evaluation within a step of 10/10 of C*",
    ),
    "target": (
        "stacking",
        change("sizes", lambda sizes: sizes | {"n_layer": 1}, "stage"),
        "ends with n_layer 1, not 2",
    ),
}


@pytest.mark.parametrize("check", FORGERIES)
def test_forged_records_are_named_though_their_checksums_are_right(
    results: Path, check: str
) -> None:
    method, forged, words = FORGERIES[check]
    assert faults(results, check) == []
    folder = run_folder(results, method)
    forge(folder, events=forged)
    assert faults(results, "checksums") == []
    found = faults(results, check)
    assert found
    assert f"runs/{folder.name}/events.jsonl ({method}, seed 0)" in found[0]
    assert words in found[0]


def test_a_setting_that_one_run_has_for_itself_is_named(results: Path) -> None:
    folder = run_folder(results, "stacking")

    def lighter(config: Event) -> None:
        config["protocol"]["optimizer"]["weight_decay"] = 0.0
        config["method"]["optimizer"] = "mine"

    forge(folder, config=lighter)
    place = f"runs/{folder.name}/config.yaml (stacking, seed 0)"
    assert faults(results, "shared settings") == [
        f"{place}: protocol.optimizer.weight_decay is 0.0, scratch has 0.1",
        f"{place}: optimizer is not for a method to set",
    ]
    assert any("protocol.optimizer.weight_decay is 0.0" in text for text in faults(results, "plan"))


def test_a_lost_run_is_named(results: Path) -> None:
    folder = run_folder(results, "stacking", 2)
    shutil.rmtree(folder)
    assert faults(results, "seeds") == [f"runs/{folder.name} (stacking, seed 2): missing"]


def test_a_run_that_no_plan_covers_and_one_that_it_misses_are_named(results: Path) -> None:
    replan(results, lambda plan: plan["runs"].remove(plan["runs"][0]))
    (fault,) = faults(results, "plan")
    assert fault == "suite.yaml: scratch, seed 0 is dropped: plan.lock plans it"
    content = json.loads((results / "plan.lock").read_text())
    (results / "plan.lock").unlink()
    assert "plan.lock: there is none" in faults(results, "plan")[0]
    content["plan"]["methods"]["scratch"]["seeds"] = [1, 2]
    (results / "plan.lock").write_text(json.dumps(content))
    (finding,) = [f for f in audit(results) if f.name == "records"]
    assert (finding.status, "the plan was edited" in finding.detail) == ("failed", True)


def test_files_that_changed_went_or_came_are_named(results: Path) -> None:
    folder, other = (run_folder(results, method) for method in ("scratch", "stacking"))
    log = folder / "events.jsonl"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    log.write_bytes(damaged)
    (folder / "provenance.json").unlink()
    (folder / "notes.txt").write_text("mine")
    (other / "SHA256SUMS").unlink()
    assert sorted(faults(results, "checksums")) == sorted([
        f"runs/{folder.name}/events.jsonl: changed since it was published",
        f"runs/{folder.name}/notes.txt: not published with the run",
        f"runs/{folder.name}/provenance.json: missing",
        f"runs/{other.name}/SHA256SUMS: there is none",
    ])  # fmt: skip


def test_a_number_in_a_table_or_on_the_page_is_named_with_its_line(results: Path) -> None:
    summary = results / "tables/summary.csv"
    lines = summary.read_text().splitlines()
    column = lines[0].split(",").index("test_bpb")
    cells = lines[1].split(",")
    cells[column] = "1.0"
    summary.write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    (fault,) = faults(results, "headline")
    assert fault.startswith("tables/summary.csv, line 2 (stacking): test_bpb 1.000000, blocks ")
    found = faults(results, "report")
    assert any(text.startswith("tables/summary.csv, line 2: ") for text in found)


def test_differences_and_intervals_are_recomputed(results: Path) -> None:
    table = results / "tables/comparisons.csv"
    header, first, *others = table.read_text().splitlines()
    names = header.split(",")
    cells = dict(zip(names, first.split(","), strict=True)) | {"high": "-0.1"}
    table.write_text("\n".join([header, ",".join(cells.values()), *others, ""]))
    (fault,) = faults(results, "headline")
    assert "tables/comparisons.csv, line 2 (" in fault
    assert "high -0.100000, blocks give" in fault


def test_a_crippled_scratch_is_named_by_the_reference_band(published: Path, tmp_path: Path) -> None:
    evidence = Evidence.of(published)
    band = {"version": "1.0", "corpus": "letters", "budget_flops": 5e8, "sd": 0.03, "n": 5}
    finals = [e["bpb"] for run in evidence.suite.runs if run.method == "scratch"
              for e in run.of("final") if e["split"] == "val"]  # fmt: skip
    mean = sum(finals) / len(finals)
    said = {}
    for name, value in {"same": mean, "better then": mean - 0.2, "worse then": mean + 0.2}.items():
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(band | {"mean": value}))
        said[name] = list(compared(evidence, tmp_path))
    assert (said["same"], said["worse then"]) == ([], [])
    (remark,) = said["better then"]
    assert remark.is_fault
    assert "a crippled control" in remark.text
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(band | {"mean": mean, "budget_flops": 1e9}))
    (remark,) = compared(evidence, tmp_path)
    assert not remark.is_fault
    assert "budget_flops 1000000000.0, here 500000000.0" in remark.text


def test_every_check_has_a_counterexample() -> None:
    others = {"tuning", "plan", "seeds", "shared settings", "headline", "report", "reference band"}
    assert {*FORGERIES, *others} == set(CHECKS)


def test_damaged_records_end_the_audit(results: Path) -> None:
    log = run_folder(results, "scratch") / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"kind"', b'"kin', 1))
    found = audit(results)
    assert [(finding.name, finding.status) for finding in found] == [
        ("checksums", "failed"), ("records", "failed"),
    ]  # fmt: skip
    assert "events.jsonl, line 1: damaged record" in found[1].detail


def test_a_run_that_has_no_records_yet_is_no_crash(results: Path) -> None:
    shutil.rmtree(results / "runs")
    assert audit(results)[-1].detail == "suite.yaml: no run has records"


@pytest.mark.parametrize(
    ("cls", "more"),
    [
        (Transformer, {}),
        (Transformer, {"activation": "swiglu", "positions": "learned", "tied": True}),
        (TokenFormer, {"n_token": 24}),
        (LowRankTransformer, {"rank": 5}),
        (LowRankTransformer, {"rank": 5, "activation": "swiglu"}),
        (LowRankTransformer, {"rank": 500}),
    ],
)
@pytest.mark.parametrize("causal", [True, False])
def test_the_formula_written_again_agrees_with_the_harness(
    cls: type[Transformer], more: dict[str, int], causal: bool
) -> None:
    config = ModelConfig(d_model=24, n_head=3, d_head=16, d_ff=40, n_layer=3, **more)  # type: ignore[arg-type]
    model = cls.shell(config)
    keys = (config.seq_len + 1) / 2 if causal else config.seq_len
    found = training_flops_per_token(config.sizes(), config.activation, keys)
    assert found == cost.training_flops_per_token(model, causal=causal)
    if cls is Transformer:
        counted = sum(parameter.numel() for parameter in model.parameters())
        assert parameters(config.sizes(), vars(config)) == counted


@pytest.mark.parametrize(
    "frozen",
    [
        ("embed.weight", "blocks.0.qkv.weight"),
        ("embed.weight", "blocks.0.norm_attn.weight", "blocks.0.qkv.weight", "blocks.0.o.weight"),
        ("blocks.1.qkv.weight", "blocks.2.down.weight", "head.weight"),
        tuple(n for n, _ in Transformer.shell(ModelConfig(n_layer=3)).named_parameters()
              if not n.startswith("blocks.1.")),
    ],
)  # fmt: skip
def test_the_formula_with_frozen_weights_agrees_too(frozen: tuple[str, ...]) -> None:
    config = ModelConfig(n_layer=3)
    model, keys = Transformer.shell(config), (config.seq_len + 1) / 2
    found = training_flops_per_token(config.sizes(), config.activation, keys, frozen)
    assert found == cost.training_flops_per_token(model, frozen)


def test_a_cost_that_the_formula_does_not_cover_is_noted(results: Path) -> None:
    folder = run_folder(results, "stacking")
    forge(folder, events=change("n_params", 5, "stage"))
    forge(folder, events=change("n_params_by_group", {"other": 5}, "stage"))
    remarks = list(CHECKS["charges"](Evidence.of(results)))
    assert [remark.is_fault for remark in remarks] == [False]
    assert "the formula does not cover stacking's model" in remarks[0].text


def test_a_growth_that_is_not_of_this_run_is_named(results: Path) -> None:
    folder = run_folder(results, "stacking")
    forge(folder, events=change("from", lambda sizes: sizes | {"d_ff": 32}, "growth"))
    assert "d_ff 32, " in faults(results, "source")[0]
    assert "which this run is not" in faults(results, "source")[0]


def test_amendments_after_results_are_noted(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published.parent.parent, tmp_path / "again"))
    results = train(folder, "protocol.seeds=[0,1]")
    assert len(load_suite(results).runs) == 8
    notes = [remark for remark in CHECKS["plan"](Evidence.of(results)) if not remark.is_fault]
    assert notes[0].text.startswith("plan.lock: scratch: seed 2 removed on ")
    assert "after 12 results" in notes[0].text
    assert faults(results, "plan") == []


SPACE = {"learning_rate.peak": [1e-3, 1e-1]}
TRIED = [0.006, 0.02, 0.05]


def tuned_records(*, chosen: float = 0.02, third: float = 0.05, seed: int = 100) -> Evidence:
    """Two methods with three trials each, of which the second is best, and their final runs."""
    protocol = {"tuning": {"trials": 3, "space": SPACE}}

    def run(name: str, role: str, bpb: float, peak: float, **method: object) -> RunRecord:
        final = {"kind": "final", "split": "val", "block_bytes": [100],
                 "block_nats": [bpb * 100 * math.log(2)]}  # fmt: skip
        tuned = {"learning_rate.peak": peak}
        return RunRecord(
            run_id=name,
            method=name,
            role=role,
            seed=seed if role == "tuning" else 0,
            events=({"kind": "run"}, final, {"kind": "end", "status": "done"}),
            config={"protocol": protocol, "method": {"trial": None, "tuned": tuned} | method},
            provenance=[],
        )

    runs = [run("scratch-tuned", "control", 2.0, 0.02, tunes="scratch"),
            run("stacking-tuned", "method", 2.0, chosen, tunes="stacking")]  # fmt: skip
    for name in ("scratch", "stacking"):
        peaks = [*TRIED[:2], third if name == "stacking" else TRIED[2]]
        runs += [run(f"{name}#{k}", "tuning", bpb, peaks[k], tunes=name, trial=k)
                 for k, bpb in enumerate([2.2, 2.1, 2.3])]  # fmt: skip
    suite = Suite(name="toy", version="1.0", purpose="", watermark=None, runs=tuple(runs),
                  unplanned=())  # fmt: skip
    return Evidence(folder=Path(), suite=suite, lock=None)


def test_a_tuning_that_was_not_equal_or_not_followed_is_named() -> None:
    def said(evidence: Evidence) -> list[str]:
        return [remark.text.partition("): ")[2] for remark in CHECKS["tuning"](evidence)]

    assert said(tuned_records()) == []
    assert said(tuned_records(chosen=0.05)) == ["its settings are not those of trial 1, the best"]
    unequal = "tries learning_rate.peak=0.04 where others try another"
    assert said(tuned_records(third=0.04)) == [unequal]
    assert said(tuned_records(seed=0)) == ["tunes on a seed of the comparison"] * 6
    whole = tuned_records()
    runs = tuple(run for run in whole.suite.runs if run.method != "stacking#0")
    (fault,) = CHECKS["tuning"](replace(whole, suite=replace(whole.suite, runs=runs)))
    assert fault.text == "suite.yaml: stacking has 2 trials, not 3"


def test_results_that_no_plan_ever_named_are_named(results: Path) -> None:
    plan = read(results).current
    del plan["methods"]["stacking"]
    folder = run_folder(results, "stacking")
    replan(results, lambda plan: plan.update(
        runs=[run for run in plan["runs"] if run["method"] != "stacking"]
    ))  # fmt: skip
    (results / FILE).unlink()
    hold(results, plan)
    (fault,) = (text for text in faults(results, "plan") if folder.name in text)
    assert fault == (
        f"runs/{folder.name} (stacking, seed 0): has results, and plan.lock never planned it"
    )


def test_a_number_of_parameters_that_the_tensors_do_not_have_is_named(results: Path) -> None:
    forge(run_folder(results, "scratch"), events=change("n_params", 7, "stage"))
    assert "n_params 7, its tensors have " in faults(results, "charges")[-1]


def test_a_curve_that_ends_elsewhere_than_validation_is_named(results: Path) -> None:
    def better(events: Events) -> None:
        end = last(events, "evaluation")
        end |= {"nats": end["nats"] * 0.97, "bpb": end["bpb"] * 0.97}

    forge(run_folder(results, "stacking"), events=better)
    assert "the same text has " in faults(results, "same slice")[-1]


def test_settings_without_tuning_and_settings_that_nobody_may_tune_are_named() -> None:
    evidence = tuned_records()

    def changed(name: str, **method: object) -> list[str]:
        runs = [
            replace(run, config={**run.config, "method": {**run.config["method"], **method}})
            if run.method == name
            else run
            for run in evidence.suite.runs
        ]
        suite = replace(evidence.suite, runs=tuple(runs))
        found = CHECKS["tuning"](replace(evidence, suite=suite))
        return [remark.text.partition("): ")[2] for remark in found]

    (alone,) = changed("stacking-tuned", tunes="", tuned={"optimizer.weight_decay": 0.0})
    assert alone == "has optimizer.weight_decay for itself, without tuning"
    tuned = {"learning_rate.peak": TRIED[0], "optimizer.weight_decay": 0.0}
    assert "tries optimizer.weight_decay, which is nobody's to tune" in changed(
        "stacking#0", tuned=tuned
    )
    assert changed("stacking#0", tunable={"schedule.args.at": [0.1, 0.5]}) == []
