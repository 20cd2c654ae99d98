"""An audit passes what was published, and names what was tampered with, check by check."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from trained_suite import Events, faults, forge, last, replan, run_log, train

from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.token_parameters import TokenFormer
from benchmark.audit import CHECKS, audit
from benchmark.audit.band import compared
from benchmark.audit.evidence import Evidence, Remark
from benchmark.audit.ledger import training_flops_per_token
from benchmark.audit.overlap import shared_text
from benchmark.audit.parameters import tensors
from benchmark.audit.shipped import compared as compared_files
from benchmark.base.paths import CONFIGS
from benchmark.data.tripwires import overlap
from benchmark.model import cost
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.records import lock
from benchmark.records.events import Event
from benchmark.records.folder import RunRecord, Suite, load_suite
from benchmark.records.lock import FILE, hold, read, settings
from benchmark.records.sums import SUMS, seal
from benchmark.stage.recorder import _counts

pytestmark = pytest.mark.slow


def test_what_was_published_passes_every_check(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published.parent.parent)  # where its text is
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


def rename(events: Events, old: str, new: str) -> None:
    """Give a stage another id."""
    for event in events:
        if event.get("stage_id") == old:
            event["stage_id"] = new


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
    "sizes": (
        "stacking",
        change("sizes", lambda sizes: sizes | {"n_layer": 1}, "stage"),
        "ends with n_layer 1, not 2",
    ),
    "growth": (
        "stacking",
        change("bpb_before", half, "growth"),
        "the curve has ",
    ),
    "parameters": (
        "scratch",
        change("n_params", 7, "stage"),
        "n_params 7, its tensors have ",
    ),
    "course": (
        "scratch",
        change("flops", lambda x: 0.99 * x, "evaluation"),
        "what came before leads to",
    ),
    "ends": ("stacking", change("status", "failed", "end"), "its records go on to the end"),
    "shared stages": (
        "scratch_half",
        lambda events: next(e for e in events if e["kind"] == "train").update(loss=1.0),
        "not what scratch, seed 0, tells of it",
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
    assert faults(results, "shared settings") == [
        f"{place}: protocol.optimizer.weight_decay is 0.0, scratch has 0.1",
        f"{place}: optimizer is not for a method to set",
    ]
    assert any("protocol.optimizer.weight_decay is 0.0" in text for text in faults(results, "plan"))


def test_a_lost_run_is_named(results: Path) -> None:
    log = run_log(results, "stacking", 2)
    log.unlink()
    assert faults(results, "seeds") == [f"runs/{log.name} (stacking, seed 2): missing"]


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
        return list(compared(evidence, tmp_path))

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
    others = {"tuning", "plan", "seeds", "shared settings", "headline", "report", "reference band",
              "shipped files", "corpus", "provenance"}  # fmt: skip
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
    assert tensors(config.sizes(), vars(config)) == _counts(model)


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


def test_somebody_elses_architecture_is_noted_and_never_a_shipped_one(results: Path) -> None:
    """Counts that no known model has switch the formula off for foreign classes alone."""
    log = run_log(results, "stacking")
    forge(log, events=change("n_params", 5, "stage"))
    forge(log, events=change("n_params_nonembedding", 4, "stage"))
    forge(log, events=change("n_params_by_group", {"embed.weight": 1, "other": 4}, "stage"))
    assert "parameters in blocks.down.weight, a model" in faults(results, "parameters")[0]
    forge(log, config=lambda config: config["method"].update(target="theirs.method:Method"))
    assert faults(results, "parameters") == []
    for check in ("parameters", "charges"):
        remarks = list(CHECKS[check](Evidence.of(results)))
        assert [remark.is_fault for remark in remarks] == [False]
        assert "stacking" in remarks[0].text


def test_parameters_that_rest_are_there(results: Path) -> None:
    forge(run_log(results, "stacking"), events=change("frozen", ["blocks.9.o.weight"], "stage"))
    assert "blocks.9.o.weight rests, which is not there" in faults(results, "parameters")[0]


def test_a_growth_that_is_not_of_this_run_is_named(results: Path) -> None:
    log = run_log(results, "stacking")
    forge(log, events=change("from", lambda sizes: sizes | {"d_ff": 32}, "growth"))
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
    log = run_log(results, "stacking")
    replan(results, lambda plan: plan.update(
        runs=[run for run in plan["runs"] if run["method"] != "stacking"]
    ))  # fmt: skip
    (results / FILE).unlink()
    hold(results, plan)
    (fault,) = (text for text in faults(results, "plan") if log.name in text)
    assert fault == (
        f"runs/{log.name} (stacking, seed 0): has results, and plan.lock never planned it"
    )


def test_a_curve_that_ends_elsewhere_than_validation_is_named(results: Path) -> None:
    def better(events: Events) -> None:
        end = last(events, "evaluation")
        end |= {"nats": end["nats"] * 0.97, "bpb": end["bpb"] * 0.97}

    forge(run_log(results, "stacking"), events=better)
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


def test_a_table_that_no_report_has_is_named_and_the_interactive_page_may_be_left_out(
    results: Path,
) -> None:
    (results / "tables" / "best_of.csv").write_text("method,bpb\nours,1.0\n")
    (results / "report.html").unlink()
    assert faults(results, "report") == ["tables/best_of.csv: no report has it"]


@pytest.fixture
def at_hand(results: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results whose text is there to be read."""
    monkeypatch.chdir(published.parent.parent)
    return results


def retell(path: Path, *keys: str, value: object) -> None:
    """Change corpus.json, and the folder's checksums with it."""
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content, indent=2))
    seal(path.parent)


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("val", "longest"), 32, "val.longest is 32, the text gives less than 32"),
        (("sha256",), "0" * 64, "corpus.json: sha256 is 000"),
        (("val", "n_bytes"), 5, "val.n_bytes is 5, the text gives 10000"),
        (("entropy_rate_bits",), 1.0, "only a synthetic source has one"),
        (
            ("test", "shares_in_train", "64"),
            0.5,
            "test.shares_in_train.64 is 0.5, the text gives 0.0",
        ),
    ],
)
def test_forged_tripwires_are_named(
    at_hand: Path, keys: tuple[str, ...], value: object, words: str
) -> None:
    assert faults(at_hand, "corpus") == []
    retell(at_hand / "corpus.json", *keys, value=value)
    assert faults(at_hand, "checksums") == []
    assert any(words in text for text in faults(at_hand, "corpus"))


def test_tripwires_that_agree_with_themselves_are_counted_again(at_hand: Path) -> None:
    path = at_hand / "corpus.json"
    retell(path, "val", "windows_in_train", "32", value=7)
    retell(path, "val", "shares_in_train", "32", value=7 / (10_000 - 31))
    (fault,) = faults(at_hand, "corpus")
    assert fault == "corpus.json: val.windows_in_train.32 is 7, the text gives 0"


def test_without_the_text_tripwires_are_as_stated_and_without_tripwires_there_is_a_fault(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (remark,) = CHECKS["corpus"](Evidence.of(results))
    assert (remark.is_fault, "is not at hand" in remark.text) == (False, True)
    (results / "corpus.json").unlink()
    assert "there is none" in faults(results, "corpus")[0]


@pytest.mark.parametrize("longest", [0, 40, 150])
def test_shared_text_counts_as_the_tripwires_do(longest: int) -> None:
    """Two ways to the same numbers, on texts with planted passages and without."""
    random = np.random.default_rng(longest)
    train, held_out = (random.integers(0, 256, n, dtype=np.uint8) for n in (50_000, 4_000))
    held_out[700 : 700 + longest] = train[123 : 123 + longest]
    held_out[2000:2035] = train[40_000:40_035]
    right = asdict(overlap(train, held_out))
    found = shared_text(train, held_out, right["longest"])
    assert found.pop("longest") == right["longest"] == max(longest, 35)
    for length, count in right["windows_in_train"].items():
        assert found.pop(f"windows_in_train.{length}") == count
    assert found == {"offset": right["offset"], "train_offset": right["train_offset"]}
    for wrong in {31, right["longest"] - 1, right["longest"] + 1}:
        assert isinstance(shared_text(train, held_out, wrong)["longest"], str)


def relock(results: Path, forge_plan: Callable[[Event], None]) -> None:
    """Rewrite plan.lock from the first entry on, with hashes that fit."""
    path = results / FILE
    content = json.loads(path.read_text())
    content.pop("sha256")
    entries = content.pop("amendments")
    forge_plan(content)
    path.unlink()
    content["sha256"] = lock._digest(content)
    path.write_text(json.dumps(content | {"amendments": entries}))
    seal(results)


def test_a_control_that_a_method_no_longer_names_is_named(results: Path, tmp_path: Path) -> None:
    """In every record, and with a plan that was made to fit."""
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    stacking = configs / "method" / "stacking.yaml"
    stacking.write_text("controls: [scratch_small]\n" + stacking.read_text())
    found = list(compared_files(Evidence.of(results), configs))
    assert [remark.text.partition("): ")[2] for remark in found] == [
        "controls is [], configs/method/stacking.yaml has ['scratch_small']"
    ]
    assert found[0].is_fault
    for seed in range(3):
        log = run_log(results, "stacking", seed)
        forge(log, config=lambda config: config["method"].update(controls=["scratch_half"]))
    method = Evidence.of(results).suite.runs[-1].config["method"]
    assert "its settings are not those that plan.lock holds" in faults(results, "plan")[0]
    relock(results, lambda content: content["plan"]["methods"]["stacking"].update(
        settings=settings(method)
    ))  # fmt: skip
    assert faults(results, "plan") == []
    assert (
        "controls is ['scratch_half'], configs/method/stacking.yaml has []"
        in faults(results, "shipped files")[0]
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("args", {"noise": 1.0}), ("schedule", {"args": {"at": [0.7]}}), ("role", "control")],
)
def test_a_method_under_a_shipped_name_is_the_shipped_one(
    results: Path, key: str, value: object
) -> None:
    def changed(config: Event) -> None:
        method = config["method"]
        method[key] = method[key] | value if isinstance(value, dict) else value

    forge(run_log(results, "stacking"), config=changed)
    assert "configs/method/stacking.yaml has" in faults(results, "shipped files")[0]


def test_a_shipped_suite_of_another_version_is_noted_and_its_own_settings_are_held(
    results: Path, tmp_path: Path
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    suite = configs / "suite" / "tiny.yaml"
    content = {"version": "1.0", "watermark": "not a result", "methods": ["scratch", "net2net"],
               "workload": {"batch_size": 8}, "protocol": {"cuts": [0.4]}}  # fmt: skip
    suite.write_text(yaml.safe_dump(content))
    found = list(compared_files(Evidence.of(results), configs))
    assert [(remark.text, remark.is_fault) for remark in found] == [
        ("suite.yaml: watermark is None, configs/suite/tiny.yaml has 'not a result'", True),
        ("suite.yaml: workload.batch_size is 4, configs/suite/tiny.yaml has 8", False),
        ("suite.yaml: net2net is missing, configs/suite/tiny.yaml has it", False),
    ]
    suite.write_text(yaml.safe_dump(content | {"version": "2.0"}))
    (remark,) = compared_files(Evidence.of(results), configs)
    assert not remark.is_fault
    assert "is version 2.0, not the one of the runs" in remark.text


@pytest.mark.parametrize(
    ("amended", "words"),
    [
        ("2020-01-01T00:00:00+00:00", "the plan is of 20"),
        ("2999-01-01T00:00:00+00:00", "amendment 1 is of 2999-01-01T00:00:00+00:00, after today"),
    ],
)
def test_dates_that_cannot_be_are_named(results: Path, amended: str, words: str) -> None:
    path = results / FILE
    content = json.loads(path.read_text())
    entry = {"date": amended, "results": 0, "added": {}, "removed": {}, "changed": {}}
    content["amendments"] = [entry | {"sha256": lock._digest([content["sha256"], entry])}]
    path.write_text(json.dumps(content))
    assert words in faults(results, "plan")[0]


def test_a_metric_that_reports_are_not_made_by_is_named(results: Path) -> None:
    relock(results, lambda content: content["plan"].update(metric="bits per word"))
    assert faults(results, "plan")[0].startswith("plan.lock: metric is 'bits per word', reports")


def test_what_a_stage_was_made_with_is_the_same_in_all_its_runs(results: Path) -> None:
    log = run_log(results, "scratch_half")
    forge(log, provenance=lambda entries: entries[0].update(python="2"))
    assert "was made with else in scratch, seed 0" in faults(results, "provenance")[0]
    forge(log, provenance=lambda entries: entries.pop())
    assert "in one of both only" in faults(results, "provenance")[0]


@pytest.mark.parametrize("kind", ["train", "evaluation", "charge", "stage"])
def test_a_record_more_or_less_leaves_a_trace(results: Path, kind: str) -> None:
    log = run_log(results, "stacking")
    whole = log.read_bytes()
    forge(log, events=lambda events: events.remove(last(events, kind)))
    assert faults(results, "course")
    log.write_bytes(whole)
    forge(log, events=lambda events: events.insert(
        events.index(last(events, kind)), dict(last(events, kind))
    ))  # fmt: skip
    assert faults(results, "course")


def test_a_diverged_run_whose_losses_are_finite_is_named(results: Path) -> None:
    def diverged(events: Events) -> None:
        events[-1].update(status="diverged", error="the training loss is nan after 7 steps")
        events[:] = [event for event in events if event["kind"] != "final"]

    forge(run_log(results, "scratch"), events=diverged)
    assert "diverged, though every training loss is finite" in faults(results, "ends")[0]


def test_a_tuned_run_that_no_longer_names_its_control_is_named() -> None:
    """Its settings are not in the plan, as trials choose them; those of its default are."""
    whole = tuned_records()
    final = next(run for run in whole.suite.runs if run.method == "stacking-tuned")
    default = replace(final, method="stacking", config={
        **final.config, "method": {"trial": None, "tuned": {}, "controls": ["scratch_half"]}
    })  # fmt: skip
    runs = (*whole.suite.runs, default)
    found = CHECKS["tuning"](replace(whole, suite=replace(whole.suite, runs=runs)))
    assert [remark.text.partition("): ")[2] for remark in found] == [
        "controls is None, stacking has ['scratch_half']"
    ]


def test_growth_at_another_time_than_its_schedule_is_named(results: Path) -> None:
    forge(
        run_log(results, "stacking"),
        config=lambda config: config["method"]["schedule"]["args"].update(at=[0.3]),
    )
    assert "its schedule says 1.5e+08" in faults(results, "growth")[0]


def test_a_source_of_other_sizes_than_the_ladder_is_named(results: Path) -> None:
    forge(
        run_log(results, "stacking"),
        config=lambda config: config["method"]["ladder"].update(shrink={"n_layer": 1}),
    )
    assert "starts with n_layer 1, not 2" in faults(results, "sizes")[0]


def test_the_text_of_a_shipped_corpus_is_that_of_its_manifest(results: Path) -> None:
    for run in load_suite(results).runs:
        forge(
            results / "runs" / run.run_id,
            config=lambda config: config["workload"]["corpus"].update(
                name="wikipedia", kind="package"
            ),
        )
    found = faults(results, "corpus")
    assert any("corpus.size is 0, configs/corpus/wikipedia.yaml has 6089746" in t for t in found)
    assert any("corpus is letters, the manifest says wikipedia" in text for text in found)


def test_a_budget_that_the_plan_does_not_give_is_named(results: Path) -> None:
    relock(results, lambda content: content["plan"]["methods"]["stacking"].update(budget=0.5))
    assert "budget 1 C*, plan.lock says 0.5" in faults(results, "plan")[0]
