"""Statistics against numbers worked out by hand, other implementations and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from benchmark.report.statistics import (
    Estimate,
    Verdict,
    compare,
    cost_to_target,
    deviation,
    holm,
    is_significant,
    joint_verdict,
    mean_interval,
    minimum_detectable_effect,
    ratio_of_costs,
    sign_flip,
    verdict,
)

numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


def test_interval_of_one_two_three_is_two_plus_minus_4_303_over_root_three() -> None:
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert estimate.value == 2.0
    assert estimate.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2.0 - estimate.low == pytest.approx(estimate.high - 2.0)


@given(st.lists(numbers, min_size=3, max_size=9))
def test_interval_agrees_with_scipy(values: list[float]) -> None:
    estimate = mean_interval(values)
    if deviation(values) > 1e-6:  # scipy warns where it loses every digit
        interval = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, math.inf, 2.0]])
def test_no_interval_from_too_few_or_infinite_values(values: list[float]) -> None:
    estimate = mean_interval(values)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.value == pytest.approx(sum(values) / len(values))


def test_comparison_is_paired_and_signed_method_minus_control() -> None:
    comparison = compare([1.0, 2.0, 3.5], [1.5, 2.5, 4.0])
    assert comparison.difference.value == pytest.approx(-0.5)
    assert comparison.sd == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="longer"):
        compare([1.0], [1.0, 2.0])


def test_sign_flip_counts_patterns() -> None:
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip([1.0, -2.0, 4.0]) == 6 / 8  # |+-1 +-2 +-4| >= 3 fails for two of eight
    assert sign_flip([1.0] * 6) == 2 / 64
    assert sign_flip([0.0, 0.0]) == 1.0


@given(st.lists(numbers, min_size=1, max_size=7))
def test_sign_flip_agrees_with_a_naive_loop(values: list[float]) -> None:
    patterns = itertools.product([1, -1], repeat=len(values))
    sums = [abs(math.fsum(s * v for s, v in zip(signs, values, strict=True))) for signs in patterns]
    naive = sum(total >= abs(math.fsum(values)) - 1e-9 for total in sums) / len(sums)
    assert sign_flip(values) == naive


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    adjusted = holm([math.nan, 0.02])
    assert math.isnan(adjusted[0])
    assert adjusted[1] == 0.02


def test_minimum_detectable_effect_is_found_four_times_in_five() -> None:
    assert minimum_detectable_effect(1 / math.sqrt(3), 2) == pytest.approx(3.26, abs=0.01)
    assert minimum_detectable_effect(1e-4, 9_999) == pytest.approx(2.8016e-4, rel=1e-3)
    n, true = 5, minimum_detectable_effect(1 / math.sqrt(5), 4)
    draws = np.random.default_rng(0).normal(true, 1.0, (20_000, n))
    half = scipy_stats.t.ppf(0.975, n - 1) * draws.std(axis=1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(draws.mean(axis=1)) > half) == pytest.approx(0.80, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_minimum_detectable_effect_exceeds_the_interval(n: int) -> None:
    error = 1 / math.sqrt(n)
    assert minimum_detectable_effect(error, n - 1) > scipy_stats.t.ppf(0.975, n - 1) * error
    assert math.isnan(minimum_detectable_effect(error, 0))


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ([1.0, 1.1, 1.05], "better"),
        ([3.0, 3.1, 3.05], "worse"),
        ([1.0, 3.0, 2.0], "no evidence"),
        ([2.0, 2.0, 2.0], "no evidence"),
        ([1.0, 1.1], "insufficient seeds"),
        ([1.0, math.inf, 1.1], "worse"),
    ],
)
def test_verdict_words(method: list[float], word: Verdict) -> None:
    assert verdict(compare(method, [2.0] * len(method)).difference) == word


def test_better_means_better_than_every_control() -> None:
    assert joint_verdict(["better", "better"]) == "better"
    assert joint_verdict(["better", "no evidence"]) == "no evidence"
    assert joint_verdict(["no evidence", "worse"]) == "worse"
    assert joint_verdict(["worse", "insufficient seeds"]) == "insufficient seeds"


def test_significance_needs_six_seeds() -> None:
    assert not is_significant(5, 0.0)
    assert is_significant(6, 2 / 64)
    assert not is_significant(6, 0.06)
    assert not is_significant(6, math.nan)


def test_cost_to_target_interpolates_log_linearly_between_the_evaluations_around_it() -> None:
    assert cost_to_target([1.0, 4.0], [3.0, 1.0], 2.0) == pytest.approx(2.0)
    assert cost_to_target([1.0, 4.0, 16.0], [3.0, 2.0, 1.0], 2.0) == 4.0


def test_cost_to_target_never_extrapolates() -> None:
    assert cost_to_target([1.0, 2.0], [3.0, 2.5], 2.4) == math.inf
    assert cost_to_target([8.0, 16.0], [3.0, 2.0], 5.0) == 8.0
    assert cost_to_target([], [], 1.0) == math.inf


def test_cost_to_target_follows_the_running_minimum() -> None:
    noisy = cost_to_target([1.0, 2.0, 4.0, 8.0], [3.0, 2.0, 2.9, 1.0], 1.5)
    assert noisy == pytest.approx(cost_to_target([4.0, 8.0], [2.0, 1.0], 1.5))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_curve_that_is_not_finite_reaches_nothing(bad: float) -> None:
    assert cost_to_target([1.0, 2.0, 3.0], [3.0, bad, 1.0], 2.0) == math.inf


def test_a_target_reached_at_no_cost_is_not_interpolated() -> None:
    assert cost_to_target([0.0, 4.0], [3.0, 1.0], 2.0) == 4.0


def test_d4_a_nan_in_a_curve_is_no_loss_of_zero_that_reaches_every_target() -> None:
    """D4 of the defects of other harnesses: a log parser that reads nan as 0."""
    assert cost_to_target([1.0, 2.0], [3.0, math.nan], 0.5) == math.inf
    assert verdict(compare([math.inf] * 3, [2.0] * 3).difference) == "worse"


def test_d12_a_faster_method_has_a_speed_up_above_one() -> None:
    """D12: speed-up defined one way in the code and the other way in the text."""
    assert ratio_of_costs([3.0] * 3, [2.0] * 3).value == pytest.approx(1.5)
    assert ratio_of_costs([2.0] * 3, [3.0] * 3).value == pytest.approx(1 / 1.5)


def test_faster_methods_have_speed_ups_above_one() -> None:
    faster = ratio_of_costs([4.0, 4.0, 4.0], [2.0, 2.0, 2.0])
    assert faster == Estimate(n=3, value=2.0, low=2.0, high=2.0)


def test_speed_up_is_a_geometric_mean_with_a_t_interval_of_its_logarithm() -> None:
    result = ratio_of_costs([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert result.value == pytest.approx(2.0)
    assert math.log(result.high / 2) == pytest.approx(half, rel=1e-6)
    assert math.log(2 / result.low) == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("method", [[2.0, math.inf, 1.0], [math.inf] * 3, []])
def test_there_is_no_speed_up_where_a_seed_did_not_reach_the_loss(method: list[float]) -> None:
    found = ratio_of_costs([4.0] * len(method), method)
    assert math.isnan(found.value)


def test_finds_a_planted_speed_up_of_1_3() -> None:
    compute = np.geomspace(0.05, 1.0, 24)

    def curve(speed: float) -> list[float]:
        return [float(1.5 + (speed * c) ** -0.25) for c in compute]

    target = curve(1.0)[-1]
    costs = [cost_to_target(list(compute), curve(speed), target) for speed in (1.0, 1.3)]
    assert ratio_of_costs([costs[0]], [costs[1]]).value == pytest.approx(1.3, abs=1e-3)


def test_d13_a_comparison_looks_at_every_value_not_at_the_last() -> None:
    """D13: a check after the loop, with a tolerance of 100 %."""
    base = [2.0, 2.1, 2.2]
    for i in range(3):
        moved = [value + 1e-9 * (position == i) for position, value in enumerate(base)]
        assert compare(moved, base).difference.value == pytest.approx(1e-9 / 3, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 5, 8])
def test_nothing_is_called_different_at_the_rate_that_chance_allows(n_seeds: int) -> None:
    rng, n_tables, n_methods = np.random.default_rng(n_seeds), 400, 10
    words: list[Verdict] = []
    n_significant = 0
    for _ in range(n_tables):
        control = rng.normal(2.5, 0.01, n_seeds)
        noise = rng.normal(0, 0.01, (n_methods, n_seeds))
        found = [compare((control + own).tolist(), control.tolist()) for own in noise]
        words += [verdict(comparison.difference) for comparison in found]
        adjusted = holm([comparison.p_value for comparison in found])
        n_significant += any(is_significant(n_seeds, p) for p in adjusted)
    share = {word: words.count(word) / len(words) for word in ("better", "worse", "no evidence")}
    assert share["no evidence"] == pytest.approx(0.95, abs=0.012)
    assert share["better"] == pytest.approx(0.025, abs=0.009)
    assert share["worse"] == pytest.approx(0.025, abs=0.009)
    assert n_significant / n_tables <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / n_tables)
