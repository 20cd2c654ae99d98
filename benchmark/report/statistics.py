"""Is a difference real? Paired intervals, exact tests, speed-ups at equal loss.

The seed is the unit: blocks of text only add the variance of sampling the test set. Sums over
seeds use `math.fsum`, so a report has the same bytes on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes three times as long to import

LEVEL = 0.95
POWER = 0.80

MIN_SEEDS = 3
"""With fewer, values are shown and nothing is concluded."""

MIN_SEEDS_SIGNIFICANT = 6
"""The sign-flip test cannot fall below 5 % with fewer: its floor is 2 / 2**n."""

Points = Sequence[float] | NDArray[np.float64]
Verdict = Literal["better", "worse", "no evidence", "insufficient seeds"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value from n observations and its 95 % interval; nan limits where n gives none."""

    n: int
    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Method minus control over n paired seeds; negative is better for bits per byte."""

    difference: Estimate
    sd: float
    """Standard deviation of the paired differences."""

    p_value: float
    """Two-sided exact sign-flip test."""


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and Student-t interval; no interval below three values or with a non-finite one."""
    n = len(values)
    if n == 0 or not all(map(math.isfinite, values)):
        return Estimate(n=n, value=sum(values) / n if n else math.nan)
    mean = math.fsum(values) / n
    if n < MIN_SEEDS:
        return Estimate(n=n, value=mean)
    half = t_limit(n - 1) * deviation(values) / math.sqrt(n)
    return Estimate(n=n, value=mean, low=mean - half, high=mean + half)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; nan below two values or with a non-finite one."""
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):  # noqa: PLR2004
        return math.nan
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def compare(method: Sequence[float], control: Sequence[float]) -> Comparison:
    """Paired comparison; the i-th values of both belong to the same seed."""
    differences = [a - b for a, b in zip(method, control, strict=True)]
    return Comparison(
        difference=mean_interval(differences),
        sd=deviation(differences),
        p_value=sign_flip(differences),
    )


def sign_flip(differences: Sequence[float]) -> float:
    """Share of the 2**n sign patterns whose |sum| is at least the observed one (Fisher 1935)."""
    n = len(differences)
    assert n <= 20, "enumerates every pattern"  # noqa: PLR2004
    if n == 0 or not all(map(math.isfinite, differences)):
        return math.nan
    signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    sums = np.abs(signs @ np.asarray(differences))
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the family-wise error (Holm 1979); nan stays nan."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[i] = largest
    return adjusted


def minimum_detectable_effect(error: float, degrees: float) -> float:
    """Smallest true mean difference that a t test finds with 80 % power.

    The noncentral t passes its upper limit that often; passing the lower one instead is too rare
    to count.

    Args:
        error: standard error of the mean.
        degrees: degrees of freedom; below 1 nothing is found.
    """
    if degrees < 1:
        return math.nan
    return float(special.nctdtrinc(degrees, 1 - POWER, t_limit(degrees))) * error


def t_limit(degrees: float) -> float:
    """Student's t that 95 % of draws stay within, either side of zero."""
    return float(special.stdtrit(degrees, (1 + LEVEL) / 2))


def verdict(difference: Estimate) -> Verdict:
    """What the interval of a paired difference allows to say when lower is better."""
    if difference.n < MIN_SEEDS:
        return "insufficient seeds"
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 or difference.value == math.inf else "no evidence"


def in_words(verdict: str, n: int, worse_than: str = "") -> str:
    """A verdict, with what a reader has to know of one from so few seeds.

    Args:
        verdict: the verdict, which may be empty.
        n: seeds.
        worse_than: the control that a method is worse than, if it is to be named.
    """
    is_unadjusted = verdict in ("better", "worse") and n < MIN_SEEDS_SIGNIFICANT
    control = f" than {worse_than}" if worse_than and verdict.endswith("worse") else ""
    return f"{verdict}{control}" + f" (n = {n}, unadjusted)" * is_unadjusted


def joint_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Better only against every control, worse against any; `verdicts` holds one or more."""
    order: tuple[Verdict, ...] = ("insufficient seeds", "worse", "no evidence", "better")
    return min(verdicts, key=order.index)


def is_significant(n: int, p_holm: float) -> bool:
    """Whether the word may be used: enough seeds, and p below 5 % after Holm's correction."""
    return n >= MIN_SEEDS_SIGNIFICANT and p_holm < 1 - LEVEL


def cost_to_target(flops: Points, bpb: Points, target: float) -> float:
    """Compute at which the running minimum of a curve first is at or below `target`.

    Between the two evaluations around it, log-linear in compute; never extrapolated. Infinite if
    the target is not reached, if any value is not finite, or if there is no curve.
    """
    best = np.minimum.accumulate(np.asarray(bpb, float)) if len(bpb) else np.array([math.nan])
    if not (np.isfinite(best).all() and math.isfinite(target)):
        return math.inf
    hits = np.flatnonzero(best <= target)
    if hits.size == 0:
        return math.inf
    i = int(hits[0])
    if i == 0 or flops[i - 1] <= 0:
        return float(flops[i])
    share = float((best[i - 1] - target) / (best[i - 1] - best[i]))
    return math.exp(math.log(flops[i - 1]) * (1 - share) + math.log(flops[i]) * share)


def ratio_of_costs(control: Sequence[float], method: Sequence[float]) -> Estimate:
    """Geometric mean over seeds of control / method, paired; nan unless all costs are finite.

    Args:
        control: the control's cost of each seed.
        method: the method's; infinite where it did not reach the loss.
    """
    if not method or not all(map(math.isfinite, (*control, *method))):
        return Estimate(n=len(method), value=math.nan)
    logs = mean_interval([math.log(a / b) for a, b in zip(control, method, strict=True)])
    return Estimate(n=logs.n, **{x: math.exp(getattr(logs, x)) for x in ("value", "low", "high")})
