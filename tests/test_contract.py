"""Every method keeps the contract, and every check of the contract catches a method that does not."""

import json

import pytest

from benchmark.config import CONFIGS, load_method
from benchmark.contract import CHECKS, CheckResult, check
from benchmark.errors import ConfigError

BROKEN = {
    "ClaimsTooMuch": "exactness",
    "ClaimsTooLittle": "exactness",
    "RemembersWeights": "gradients",
    "CopiesMomentsLikeWeights": "moments",
    "BuriesBlocks": "no dead entries",
    "LocksCopies": "copies separate",
    "TouchesTheSmallModel": "small model untouched",
    "SharesAGain": "no shared storage",
    "DrawsItsOwnSeed": "same seed, same bits",
    "SeedsTheWorld": "global randomness untouched",
    "UntiesTheHead": "tied head",
    "HoardsAWeight": "optimizer groups",
    "TellsHalfItsCost": "model FLOPs",
    "LearnsForFree": "growth FLOPs",
    "LooksAhead": "causality",
    "ForgetsABuffer": "resumption",
    "GrowsMoreThanItSays": "refusals",
}


def distinct_methods() -> list[str]:
    """Names of the configured methods, one for each class with its arguments."""
    names = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))
    configs = {name: load_method(name) for name in names}
    first = {json.dumps([c.target, c.args], sort_keys=True): n for n, c in reversed(configs.items())}
    return sorted(first.values())


def failed(results: list[CheckResult]) -> dict[str, str]:
    """Details of the checks that failed."""
    return {result.name: result.detail for result in results if not result.passed}


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct_methods())
def test_every_method_keeps_the_contract(name: str) -> None:
    method = load_method(name)
    assert failed(check(method.target, dict(method.args))) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "name"), BROKEN.items())
def test_a_broken_method_is_caught_by_the_check_meant_for_it(broken: str, name: str) -> None:
    assert list(failed(check(f"broken_methods:{broken}"))) == [name]


def test_every_check_has_a_broken_method() -> None:
    assert set(BROKEN.values()) == set(CHECKS)


def test_a_method_that_does_not_exist_is_the_user_s_mistake() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        check("no_such_module:Method")
