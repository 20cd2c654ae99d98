"""Is a difference real? Paired intervals, exact tests, speed-ups at equal loss.

The seed is the unit: blocks of text only add the variance of sampling the test set. Sums over
seeds use `math.fsum`, so a report has the same bytes on every machine. A percentile bootstrap
over 3 to 5 seeds covers far less than it says; the intervals here are Student's t, and the
bootstrap is widened by the factor that makes it agree with t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats takes three times as long to import

LEVEL = 0.95
POWER = 0.80
MAX_BLOCKS = 256

MIN_SEEDS = 3
"""With fewer, values are shown and nothing is concluded."""

MIN_SEEDS_SIGNIFICANT = 6
"""The sign-flip test cannot fall below 5 % with fewer: its floor is 2 / 2**n."""

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

    detectable: float
    """Smallest true difference found with 80 % power at this n."""

    correlation: float
    """Of method and control over seeds; pairing pays only if it is positive."""


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """S = control's cost / method's cost at equal loss; above 1 is faster.

    The geometric mean if every seed reached the loss. Else the median of all seeds, without an
    interval: of a seed that did not reach it, S is known to be below control's cost / what the
    method spent. The median is exact if these bounds do not touch it, as when more than half of
    the seeds reached the loss and were faster; else it lies between `estimate.value`, 0 unless
    more than half reached it, and `below`.
    """

    estimate: Estimate
    n_reached: int
    below: float = math.nan
    """What the median is below; nan where it, or the mean, is exact."""


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and Student-t interval; no interval below three values or with a non-finite one."""
    n = len(values)
    if n == 0:
        return Estimate(n=0, value=math.nan)
    if not all(map(math.isfinite, values)):
        return Estimate(n=n, value=sum(values) / n)
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
    sd = deviation(differences)
    return Comparison(
        difference=mean_interval(differences),
        sd=sd,
        p_value=sign_flip(differences),
        detectable=minimum_detectable_effect(sd, len(differences)),
        correlation=_correlation(method, control),
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


def minimum_detectable_effect(sd: float, n: int) -> float:
    """Smallest true mean difference that the paired t test finds with 80 % power.

    The noncentral t passes its upper limit that often; passing the lower one instead is too rare
    to count.
    """
    if n <= 1:
        return math.nan
    return float(special.nctdtrinc(n - 1, 1 - POWER, t_limit(n - 1))) * sd / math.sqrt(n)


def t_limit(degrees: float) -> float:
    """Student's t that 95 % of draws stay within, either side of zero."""
    return float(special.stdtrit(degrees, (1 + LEVEL) / 2))


def verdict(comparison: Comparison) -> Verdict:
    """What the paired interval allows to say when lower is better."""
    difference = comparison.difference
    if difference.n < MIN_SEEDS:
        return "insufficient seeds"
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 or difference.value == math.inf else "no evidence"


def joint_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Better only against every control, worse against any; `verdicts` holds one or more."""
    order: tuple[Verdict, ...] = ("insufficient seeds", "worse", "no evidence", "better")
    return min(verdicts, key=order.index)


def is_significant(n: int, p_holm: float) -> bool:
    """Whether the word may be used: enough seeds, and p below 5 % after Holm's correction."""
    return n >= MIN_SEEDS_SIGNIFICANT and p_holm < 1 - LEVEL


def hierarchical_bootstrap(
    nats: ArrayLike, block_bytes: ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Interval of a bpb difference over seeds and blocks of text, both resampled.

    Percentile limits are widened about the estimate by t/z * sqrt(n / (n - 1)), without which
    they cover 74 % instead of 95 % at n = 3. Neighbouring blocks are merged down to 256: nearby
    text is alike, so many small blocks are fewer independent ones than they seem.

    Args:
        nats: (seeds, blocks), method minus control of the same seed and block.
        block_bytes: (blocks,).
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    E, weights = _merged(np.asarray(nats, float)), _merged(np.asarray(block_bytes, float))
    S, K = E.shape
    value = math.fsum(E.ravel()) / S / (math.fsum(weights) * math.log(2))
    if S < MIN_SEEDS or not math.isfinite(value):
        return Estimate(n=S, value=value)
    draws, seeds = _draws(K, resamples, (seed, 0)), _draws(S, resamples, (seed, 1))
    sums = np.einsum("bs,bs->b", draws @ E.T, seeds / S) / (draws @ weights * math.log(2))
    low, high = np.quantile(sums, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    wider = t_limit(S - 1) / float(special.ndtri((1 + LEVEL) / 2)) * math.sqrt(S / (S - 1))
    return Estimate(
        n=S,
        value=value,
        low=value + (float(low) - value) * wider,
        high=value + (float(high) - value) * wider,
    )


def cost_to_target(flops: Sequence[float], bpb: Sequence[float], target: float) -> float:
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


def value_at(x: Sequence[float], values: Sequence[float], at: float) -> float:
    """A curve read at `at`, linear in log x between the two points around it.

    nan outside of the curve, which is never extrapolated, and where it is not finite.

    Args:
        x: positions, above zero and never falling; of equal ones, the last counts.
        values: one for each position.
        at: where to read.
    """
    after = int(np.searchsorted(np.asarray(x, float), at, side="right"))
    if after == 0 or not math.isfinite(at):
        return math.nan
    if x[after - 1] == at:
        return float(values[after - 1]) if math.isfinite(values[after - 1]) else math.nan
    if after == len(x):
        return math.nan
    share = math.log(at / x[after - 1]) / math.log(x[after] / x[after - 1])
    value = values[after - 1] * (1 - share) + values[after] * share
    return value if math.isfinite(value) else math.nan


def speed_up(
    control: Sequence[float], method: Sequence[float], spent: Sequence[float] | None = None
) -> SpeedUp:
    """Speed-up from costs to the same loss, paired by seed.

    Args:
        control: the control's cost of each seed.
        method: the method's; infinite where it did not reach the loss.
        spent: what the method spent in all, by which it had not; infinite for a run that failed,
            which is never faster than anything. All infinite if not given.
    """
    limits = [math.inf] * len(method) if spent is None else spent
    n_reached = sum(math.isfinite(cost) for cost in method)
    ratios = [_ratio(a, b) for a, b in zip(control, method, strict=True)]
    if not ratios or 0.0 in ratios or math.inf in ratios:
        least = [b if math.isfinite(b) else c for b, c in zip(method, limits, strict=True)]
        most = [_ratio(a, b) for a, b in zip(control, least, strict=True)]
        median = _censored_median(ratios, most)
        return SpeedUp(estimate=median[0], n_reached=n_reached, below=median[1])
    logs = mean_interval([math.log(ratio) for ratio in ratios])
    parts = {"value": logs.value, "low": logs.low, "high": logs.high}
    return SpeedUp(
        estimate=Estimate(n=logs.n, **{name: math.exp(x) for name, x in parts.items()}),
        n_reached=n_reached,
    )


def _ratio(control: float, method: float) -> float:
    return control / method if math.isfinite(method) else 0.0


def _censored_median(least: Sequence[float], most: Sequence[float]) -> tuple[Estimate, float]:
    """The median of values known up to their bounds, and what it is below if that leaves it open.

    Sorted by their least and by their most, the middle ones bound the median (of an even number,
    the mean of the two in the middle).
    """
    n = len(least)
    if n == 0:
        return Estimate(n=0, value=math.nan), math.nan
    middle = slice((n - 1) // 2, n // 2 + 1)
    lows, highs = sorted(least)[middle], sorted(most)[middle]
    low, high = (math.fsum(part) / len(part) for part in (lows, highs))
    low = low if 0.0 not in lows else 0.0
    return Estimate(n=n, value=low), math.nan if low == high else high


def expected_best(losses: Sequence[float]) -> list[float]:
    """Expected lowest loss of k of n tuning trials, for k = 1 to n (Dodge et al. 2019).

    Exact, over all choices of k trials without replacement: arXiv:1909.03004 with minima. A trial
    that failed has an infinite loss, and so has every k that could choose such trials alone.
    """
    ordered, n = sorted(losses), len(losses)
    return [
        math.fsum(
            loss * (math.comb(n - i, k) - math.comb(n - i - 1, k)) / math.comb(n, k)
            for i, loss in enumerate(ordered)
            if n - i >= k
        )
        for k in range(1, n + 1)
    ]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    scale = deviation(a) * deviation(b)
    if len(a) < MIN_SEEDS or not math.isfinite(scale) or scale == 0:
        return math.nan
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    products = ((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return math.fsum(products) / (len(a) - 1) / scale


def _merged(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    n = blocks.shape[-1]
    starts = np.unique(np.arange(MAX_BLOCKS) * n // MAX_BLOCKS)
    return np.add.reduceat(blocks, starts, axis=-1)


@lru_cache(maxsize=4)
def _draws(n: int, resamples: int, stream: tuple[int, int]) -> NDArray[np.float64]:
    """How often each of n is drawn, (resamples, n): the same in every comparison."""
    rng = np.random.default_rng(stream)
    return rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float)
