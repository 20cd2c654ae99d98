"""Every method keeps the contract, and every check catches a method that breaks its promise."""

import re
from pathlib import Path

import pytest
from tiny_suite import distinct_methods

from benchmark.base.errors import ConfigError
from benchmark.contract import CHECKS, check, judge, subject
from benchmark.contract.subject import Subject, Verdict
from benchmark.plan.config import load_method
from tools.methods_page.page import measured, outdated_rows

BROKEN = {
    "SaysNotWhatItGrows": "declarations",
    "StartsFromNowhere": "declarations",
    "FreezesEverything": "declarations",
    "ClaimsTooMuch": "exactness",
    "ClaimsTooLittle": "exactness",
    "RemembersWeights": "gradients",
    "CopiesMomentsLikeWeights": "moments",
    "BuriesBlocks": "no dead entries",
    "LocksCopies": "copies separate",
    "ClipsWhatItFroze": "frozen weights",
    "TouchesTheSmallModel": "small model untouched",
    "SharesAScale": "small model untouched",
    "DrawsItsOwnSeed": "same seed, same bits",
    "SeedsTheWorld": "process untouched",
    "HoardsAWeight": "optimizer groups",
    "TellsHalfItsCost": "model FLOPs",
    "RunsBackwards": "model FLOPs",
    "LearnsForFree": "growth FLOPs",
    "LooksAhead": "causality",
    "ForgetsABuffer": "resumption",
    "LowersItsDecay": "shared training",
    "ReplaysBatches": "training FLOPs",
    "RemembersWhatItIsScoredOn": "evaluation leaves no trace",
}

TRAINING = (
    "no dead entries",
    "copies separate",
    "frozen weights",
    "optimizer groups",
    "resumption",
    "shared training",
    "training FLOPs",
    "evaluation leaves no trace",
)
"""Checks in which a model is trained: what another optimizer could change."""

SCHEDULE = "schedule: {{target: 'benchmark.schedule:AtFractions', args: {{at: [{}]}}}}\n"
YAML = "name: exits\ntarget: broken_methods:Exits\nargs: {when: growing}\n"


def held(name: str, optimizer: str = "") -> Subject:
    """The method as it is measured for its page."""
    method = load_method(name)
    plugin = measured(method)
    return subject(plugin.target, plugin.args, method.role, optimizer)


def failed(verdicts: dict[str, Verdict]) -> dict[str, str]:
    """Details of the checks that failed."""
    return {name: found.detail for name, found in verdicts.items() if not found.passed}


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct_methods())
def test_every_method_keeps_the_contract_and_measures_what_its_page_says(name: str) -> None:
    method = held(name)
    assert failed(judge(method)) == {}
    assert outdated_rows(method) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", {target: n for n, target in distinct_methods().items()}.values())
def test_a_method_of_every_class_keeps_the_contract_with_muon(name: str) -> None:
    method = held(name, "benchmark.training.muon:Muon")
    assert failed(judge(method, ["declarations", *TRAINING])) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "name"), BROKEN.items())
def test_a_broken_method_is_caught_by_the_check_meant_for_it(broken: str, name: str) -> None:
    checks = dict.fromkeys(["declarations", name])
    assert list(failed(judge(subject(f"broken_methods:{broken}"), checks))) == [name]


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["BuriesBlocksAndSaysSo", "LearnsAndPays"])
def test_a_declared_exception_and_a_paid_bill_are_in_order(sound: str) -> None:
    assert failed(check(f"broken_methods:{sound}")) == {}


@pytest.mark.slow
def test_an_exception_that_is_declared_but_not_there_is_a_fault() -> None:
    checks = {"exactness", "no dead entries", "copies separate"}
    assert set(failed(check("broken_methods:AdmitsWhatIsNotSo"))) == checks


@pytest.mark.slow
def test_without_noise_two_of_three_clones_never_separate() -> None:
    results = check("baselines.hypercloning:HyperCloning", {"snr_db": None})
    assert list(failed(results)) == ["copies separate"]


def test_a_method_that_crashes_has_failed_and_its_error_is_told() -> None:
    assert "KeyError: 'no such thing'" in failed(check("broken_methods:Crashes"))["declarations"]


@pytest.mark.parametrize("when", ["growing", pytest.param("training", marks=pytest.mark.slow)])
def test_a_method_that_exits_while_it_is_checked_has_failed(when: str) -> None:
    failures = failed(check("broken_methods:Exits", {"when": when}))
    assert set(failures.values()) == {"the method exits (code 0) instead of going on"}
    assert set(failures) >= {"declarations" if when == "growing" else "shared training"}


def test_a_class_that_grows_nothing_passes_as_a_control_only() -> None:
    (result,) = check("baselines.scratch:Scratch").values()
    assert not result.passed
    assert "Scratch has no operators and grows nothing, which is for a control" in result.detail
    assert CHECKS["declarations"](subject("baselines.scratch:Scratch", role="control")).passed


def test_a_yaml_is_checked_with_its_arguments_and_those_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "exits.yaml"
    grows = YAML + "ladder: {shrink: {n_layer: 2}, n_growths: 1}\n"
    path.write_text(grows + SCHEDULE.format(0.5))
    assert "exits (code 0)" in failed(check(str(path)))["declarations"]
    with pytest.raises(ConfigError, match="Exits has no 'what'"):
        check(str(path), {"what": "training"})
    for schedule, words in {
        SCHEDULE.format(1.5): r"got \[1\.5\]",
        "": "schedule is missing",
    }.items():
        path.write_text(grows + schedule)
        with pytest.raises(ConfigError, match=rf"^method\.exits\..*{words}"):
            check(str(path))
    path.write_text(YAML)
    with pytest.raises(ConfigError, match=r"ladder.n_growths is 0, and what has role method must"):
        check(str(path))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("SaysNotWhatItGrows", r"_OfNothing.grows must name some of \['d_ff', .*, got nothing"),
        ("StartsFromNowhere", r"source starts block 2 of n_layer=3 from block 2; .* from -1 to 1"),
        ("FreezesEverything", "FreezesEverything freezes every parameter; one must learn"),
    ],
)
def test_a_declaration_without_sense_is_answered_in_one_line(broken: str, message: str) -> None:
    (result,) = check(f"broken_methods:{broken}").values()
    assert re.search(message, result.detail)


def test_every_check_has_a_broken_method() -> None:
    assert set(BROKEN.values()) == set(CHECKS)


def test_a_method_that_does_not_exist_is_the_user_s_mistake() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        check("no_such_module:Method")
