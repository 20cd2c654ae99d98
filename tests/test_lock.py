"""The plan is locked before the first run; what changes later is dated, kept and marked."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.base.errors import RecordError
from benchmark.records import lock
from benchmark.records.lock import Plan, hold, plan_of, read, unlike

CORPUS = {"corpus": "letters", "sha256": "0" * 64, "train": 900, "val": 50, "test": 50}


def config(method: str, seed: int, **protocol: object) -> dict[str, Any]:
    """Resolved configuration of a run that never happens."""
    return {
        "suite": "toy",
        "suite_version": "1.0",
        "seed": seed,
        "workload": {"batch_size": 4, "target": {"d_model": 8}},
        "protocol": {
            "budget_flops": 1e9,
            "seeds": [seed],
            "optimizer": {"weight_decay": 0.1},
            **protocol,
        },
        "method": {"name": method, "role": "method", "budget": 1.0, "args": {}, "summary": "s"},
    }


def planned(methods: dict[str, list[int]], **protocol: object) -> Plan:
    """A plan of these methods with these seeds."""
    configs = [config(method, seed, **protocol) for method in methods for seed in methods[method]]
    return plan_of(configs, CORPUS, "science")


BOTH = {"scratch": [0, 1], "stacking": [0, 1]}


def finish_runs(folder: Path, n: int) -> None:
    """Leave the files of `n` runs that have ended."""
    (folder / "runs").mkdir()
    for i in range(n):
        (folder / "runs" / f"{i:016x}.jsonl.gz").touch()


def seeds(plan: Plan) -> dict[str, list[int]]:
    return {method: entry["seeds"] for method, entry in plan["methods"].items()}


def test_the_first_command_locks_the_whole_plan(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    locked = read(tmp_path)
    assert seeds(locked.current) == BOTH
    assert (locked.results, locked.amendments) == (0, ())
    assert locked.first == locked.current
    assert locked.current["budget_flops"] == 1e9
    assert {"metric", "target_loss", "tests", "science", "corpus"} <= locked.current.keys()


def test_the_same_plan_again_changes_no_byte(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    before = (tmp_path / lock.FILE).read_bytes()
    finish_runs(tmp_path, 4)
    hold(tmp_path, planned(BOTH))
    assert (tmp_path / lock.FILE).read_bytes() == before


def test_later_seeds_and_methods_are_a_dated_amendment(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    finish_runs(tmp_path, 4)
    more = {"scratch": [0, 1, 2], "stacking": [0, 1, 2], "lemon": [0, 1, 2]}
    hold(tmp_path, planned(more))
    (amendment,) = read(tmp_path).amendments
    assert amendment.results == 4
    assert amendment.date.endswith("+00:00")
    assert amendment.added == {"scratch": [2], "stacking": [2], "lemon": [0, 1, 2]}
    assert seeds(read(tmp_path).current) == more
    assert seeds(read(tmp_path).first) == BOTH
    when = f"on {amendment.date[:10]}, after 4 results"
    assert amendment.marks["scratch"] == f"seed 2 added {when}"
    assert amendment.marks["lemon"] == f"seeds 0, 1, 2 added {when}"


def test_a_planned_run_that_is_dropped_is_marked_too(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    finish_runs(tmp_path, 4)
    hold(tmp_path, planned({"scratch": [0, 1], "stacking": [1]}))
    hold(tmp_path, planned({"scratch": [0, 1]}))
    first, second = read(tmp_path).amendments
    assert (first.removed, second.removed) == ({"stacking": [0]}, {"stacking": [1]})
    assert first.marks["stacking"].startswith("seed 0 removed on ")
    assert seeds(read(tmp_path).current) == {"scratch": [0, 1]}


def test_before_any_result_an_amendment_is_kept_and_marks_nothing(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    hold(tmp_path, planned({"scratch": [0]}))
    (amendment,) = read(tmp_path).amendments
    assert (amendment.results, amendment.marks) == (0, {})


def test_another_budget_and_other_settings_of_a_method_are_amendments(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    finish_runs(tmp_path, 1)
    other = [config("scratch", 0), config("stacking", 0)]
    other[1]["method"]["args"] = {"order": "interleaved"}
    for one in other:
        one["protocol"]["budget_flops"] = 2e9
    hold(tmp_path, plan_of(other, CORPUS, "science"))
    (amendment,) = read(tmp_path).amendments
    assert amendment.changed["budget_flops"] == [1e9, 2e9]
    assert amendment.changed.keys() == {"budget_flops", "methods.stacking.settings"}
    assert "settings changed" in amendment.marks["stacking"]
    assert read(tmp_path).current["budget_flops"] == 2e9


def test_words_about_a_method_are_no_setting(tmp_path: Path) -> None:
    hold(tmp_path, planned(BOTH))
    same = [config(method, seed) for method in BOTH for seed in BOTH[method]]
    for one in same:
        one["method"]["summary"] = "in other words"
    hold(tmp_path, plan_of(same, CORPUS, "science"))
    assert read(tmp_path).amendments == ()


def test_what_tuning_will_choose_is_not_asked_beforehand() -> None:
    tuned = {"name": "a-tuned", "tunes": "a", "trial": None}
    chosen = tuned | {"tuned": {"learning_rate.peak": 0.01}}
    assert lock.settings(tuned) == lock.settings(chosen)
    trial = tuned | {"trial": 3}
    assert lock.settings(trial) != lock.settings(trial | {"args": {"n": 1}})


OTHERS = {
    "protocol.optimizer.weight_decay is 0.0, was 0.1": planned(
        BOTH, optimizer={"weight_decay": 0.0}
    ),
    "corpus.sha256 is 'f', was": plan_of(
        [config("scratch", 0)], CORPUS | {"sha256": "f"}, "science"
    ),
    "version is '2.0', was '1.0'": plan_of(
        [config("scratch", 0) | {"suite_version": 2.0}], CORPUS, "science"
    ),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_plan_with_another_protocol_begins_anew_and_follows_nothing(
    tmp_path: Path, difference: str
) -> None:
    hold(tmp_path, planned(BOTH))
    finish_runs(tmp_path, 2)
    before = read(tmp_path)
    hold(tmp_path, OTHERS[difference])
    after = read(tmp_path)
    assert (after.current, after.amendments) == (OTHERS[difference], ())
    assert unlike(before.current, after.current)[0].startswith(difference)
    assert not after.follows(before)
    assert after.results == 2


def test_an_amended_plan_follows_the_one_that_it_amends(tmp_path: Path) -> None:
    hold(tmp_path, planned({"scratch": [0]}))
    before = read(tmp_path)
    hold(tmp_path, planned(BOTH))
    after = read(tmp_path)
    assert after.follows(before)
    assert after.follows(after)
    assert not before.follows(after)
    assert after.named() == {(method, seed) for method in BOTH for seed in BOTH[method]}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"amendments": 3}', "\udcff"])
def test_a_damaged_plan_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / lock.FILE).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RecordError, match=r"plan.lock: damaged plan") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_plan_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"plan.lock: cannot be read"):
        read(tmp_path)


def test_a_plan_that_came_after_results_says_so(tmp_path: Path) -> None:
    finish_runs(tmp_path, 3)
    hold(tmp_path, planned(BOTH))
    assert read(tmp_path).results == 3


def test_results_of_an_older_version_are_not_counted(tmp_path: Path) -> None:
    finish_runs(tmp_path, 2)
    for number, version in enumerate(("1.0", "0.9")):
        log = tmp_path / "runs" / f"{number:016x}.jsonl.gz"
        with gzip.open(log, "wt") as file:
            file.write(json.dumps({"kind": "run", "suite_version": version}) + "\n")
    hold(tmp_path, planned(BOTH))
    assert read(tmp_path).results == 1
