"""Variances shrunk towards a common one: estimator, limits, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import special

from benchmark.report.moderation import Prior, prior
from benchmark.report.statistics import t_limit

ROWS = 20


def test_rows_of_one_variance_share_it_whole() -> None:
    """Hand-computed: equal logarithms have no excess over what luck explains."""
    found = prior([0.01] * 6, [2] * 6)
    assert math.isinf(found.degrees)
    assert found.variance == pytest.approx(1e-4 * math.exp(-float(special.digamma(1.0))))
    sd, degrees, own = found.moderated(0.3, 2)
    assert sd == pytest.approx(math.sqrt(found.variance))
    assert math.isinf(degrees)
    assert own == 0


def test_a_row_alone_keeps_its_own() -> None:
    assert prior([0.01, 0.02], [2, 2]).moderated(0.01, 2) == (0.01, 2, 1.0)
    assert prior([0.01, math.nan, math.inf, 0.0], [2] * 4).degrees == 0


def test_the_moderated_variance_is_the_weighted_mean() -> None:
    sd, degrees, own = Prior(variance=4.0, degrees=6.0).moderated(1.0, 2)
    assert sd == pytest.approx(math.sqrt((6 * 4 + 2 * 1) / 8))
    assert (degrees, own) == (8.0, 0.25)


def test_recovers_the_prior_that_variances_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    true = 1e-4 * 8.0 / rng.chisquare(8.0, 20_000)
    own = np.sqrt(true * rng.chisquare(2, true.shape) / 2)
    found = prior(list(own), [2.0] * len(own))
    assert found.degrees == pytest.approx(8.0, rel=0.1)
    assert found.variance == pytest.approx(1e-4, rel=0.05)


def simulated(n: int, spread: float, effect: float) -> tuple[float, float, float, float]:
    """Coverage and power of the moderated and of the ordinary t, over tables of 20 rows of n seeds.

    Args:
        n: seeds.
        spread: standard deviation of the logarithm of the rows' true standard deviations.
        effect: true difference, in units of the middle standard deviation.
    """
    rng = np.random.default_rng(n)
    hits = np.zeros(4)
    n_tables = 400
    for _ in range(n_tables):
        sd = np.exp(spread * rng.standard_normal(ROWS))
        mean = effect + sd * rng.standard_normal(ROWS) / math.sqrt(n)
        own = sd * np.sqrt(rng.chisquare(n - 1, ROWS) / (n - 1))
        common = prior(list(own), [n - 1.0] * ROWS)
        for i in range(ROWS):
            shrunk, degrees, _ = common.moderated(own[i], n - 1)
            widths = (
                t_limit(min(degrees, ROWS * (n - 1))) * shrunk / math.sqrt(n),
                t_limit(n - 1) * own[i] / math.sqrt(n),
            )
            hits[:2] += [abs(mean[i] - effect) <= width for width in widths]
            hits[2:] += [abs(mean[i]) > width for width in widths]
    moderated, ordinary, power, power_ordinary = hits / (n_tables * ROWS)
    return moderated, ordinary, power, power_ordinary


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.7])
def test_intervals_cover_95_percent_and_find_more(n: int, spread: float) -> None:
    """Rows that vary alike, unlike, and very unlike: a factor of 4 between common ones."""
    coverage, ordinary, power, power_ordinary = simulated(n, spread, effect=1.0)
    assert 0.93 <= coverage <= 0.97
    assert 0.93 <= ordinary <= 0.97
    assert power > power_ordinary
