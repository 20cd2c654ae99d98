"""Standard deviations of many rows, shrunk towards what they have in common.

With three seeds a row's own standard deviation is mostly luck, and verdicts follow it. Rows of a
table vary alike, so their variances are taken to be drawn from one scaled inverse chi-square
distribution, whose two parameters are estimated from all rows (empirical Bayes); each row's
variance is then the weighted mean of its own and the common one, and its t has the degrees of
freedom of both (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1):3).
ADR 0030 has what simulations say of its coverage and power.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

MIN_ROWS = 3
"""With fewer rows there is nothing in common to estimate; each keeps its own variance."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What the rows of a table have in common."""

    variance: float
    degrees: float
    """How many observations the common variance is worth; 0 if unknown, infinite if all rows have
    the same variance but for luck."""

    most: float = math.inf
    """Degrees of freedom of all rows together, which no row's exceed."""

    def moderated(self, sd: float, degrees: float) -> tuple[float, float, float]:
        """Of a row: standard deviation, degrees of freedom, and share of its own in the variance.

        Args:
            sd: the row's own standard deviation.
            degrees: its degrees of freedom, above 0.
        """
        if self.degrees == 0:
            return sd, degrees, 1.0
        if math.isinf(self.degrees):
            return math.sqrt(self.variance), self.most, 0.0
        total = self.degrees + degrees
        variance = (self.degrees * self.variance + degrees * sd**2) / total
        return math.sqrt(variance), min(total, self.most), degrees / total


def prior(sds: Sequence[float], degrees: Sequence[float]) -> Prior:
    """The prior that fits the rows' variances, by moments of their logarithms (Smyth, section 6.2).

    Args:
        sds: standard deviations; rows whose value is not finite or not positive are left out.
        degrees: degrees of freedom of each.
    """
    known = [(s, d) for s, d in zip(sds, degrees, strict=True) if 0 < s < math.inf and d > 0]
    if len(known) < MIN_ROWS:
        return Prior(variance=math.nan, degrees=0.0)
    s, d = (np.array(column, float) for column in zip(*sorted(known), strict=True))
    logs = np.log(s**2) - special.digamma(d / 2) + np.log(d / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, d / 2).mean())
    mean, most = float(logs.mean()), float(d.sum())
    if excess <= 0:
        return Prior(variance=math.exp(mean), degrees=math.inf, most=most)
    half = _inverse_trigamma(excess)
    variance = math.exp(mean + float(special.digamma(half)) - math.log(half))
    return Prior(variance=variance, degrees=2 * half, most=most)


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value for x > 0, where trigamma falls from infinity to 0."""

    def gap(log_x: float) -> float:
        return math.log(float(special.polygamma(1, math.exp(log_x)))) - math.log(value)

    return math.exp(float(optimize.brentq(gap, -20.0, 40.0)))
