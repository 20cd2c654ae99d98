"""Which choices matter, and by how much: main effects of a crossed design.

Ordinary least squares on the test bpb of every finished run, with the seed as a block and each
factor's levels against its reference, the first level in the plan. Runs that did not finish cannot
enter a mean: they are left out, and counted at their level. Shares are of the variance within
seeds, each the part that no other term explains; in an unbalanced design they need not add up.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.records.events import ABSENT
from benchmark.report.frames import Frames
from benchmark.report.statistics import t_limit

DIGITS = 9
"""Of effects, beyond which linear algebra differs between machines."""

_EFFECTS = ["factor", "level", "reference", "n", "n_excluded", "effect", "effect_low",
            "effect_high"]  # fmt: skip
_SHARES = ["term", "kind", "degrees", "share"]


def cells(frames: Frames) -> dict[str, Mapping[str, str]]:
    """The methods that are cells of a crossed design, with their level of each factor."""
    crossed = {name: settings.get("levels") for name, settings in frames.settings.items()}
    return {name: levels for name, levels in crossed.items() if levels}


def design(frames: Frames, crossed: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """A row for each run with a result of a cell: levels of its factors, then seed and bpb.

    bpb is infinite if the run failed. A factor with one level is left out.

    Args:
        frames: the suite.
        crossed: level of each factor, by method.
    """
    runs = frames.runs
    has_result = (runs.role == "method") & ~runs.status.isin(ABSENT)
    runs = runs[runs.method.isin(list(crossed)) & has_result]
    levels = pd.DataFrame([crossed[method] for method in runs.method], index=runs.index)
    levels = levels[[name for name in levels if len(levels[name].dropna().unique()) > 1]]
    return levels.assign(seed=runs.seed, bpb=runs.test_bpb).reset_index(drop=True)


def main_effects(found: pd.DataFrame) -> pd.DataFrame:
    """Change in bpb from a factor's reference to each other level, with a 95 % interval.

    nan where the runs that finished cannot tell a level from the others.
    """
    terms = [column for factor in varied(found) for column in _columns(found, factor)]
    fit = _Fit(found, terms)
    listed, free = [], 0
    for factor in varied(found):
        levels, finite = list(found[factor].dropna().unique()), np.isfinite(found.bpb)
        for level in levels:
            effect, error = (0.0, math.nan) if level == levels[0] else fit.effects[free]
            free += level != levels[0]
            half = t_limit(fit.degrees) * error if fit.degrees > 0 else math.nan
            numbers = [round(float(x), DIGITS) for x in (effect, effect - half, effect + half)]
            has = found[factor] == level
            counts = [int((has & finite).sum()), int((has & ~finite).sum())]
            listed.append([factor, level, levels[0], *counts, *numbers])
    return pd.DataFrame(listed, columns=_EFFECTS)


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """Share of the variance within seeds that each factor, and each pair of factors, explains."""
    whole = {factor: _columns(found, factor) for factor in varied(found)}
    everything = [column for columns in whole.values() for column in columns]
    total, full = _Fit(found, []).residual, _Fit(found, everything)
    listed = []
    for name in whole:
        rest = [column for other in whole if other != name for column in whole[other]]
        listed.append([name, "factor", *_explained(_Fit(found, rest), full)])
    for a, b in combinations(whole, 2):
        products = [x * y for x in whole[a] for y in whole[b]]
        joint = _Fit(found, [*everything, *products])
        listed.append([f"{a} x {b}", "interaction", *_explained(full, joint)])
    listed.append(["left over", "residual", full.degrees, full.residual])
    table = pd.DataFrame(listed, columns=_SHARES)
    ratio = table.share.clip(lower=0) / total if total > 0 else table.share * math.nan
    return table.assign(share=ratio.round(DIGITS))


class _Fit:
    """Least squares of bpb on some columns over the finished runs, seeds as blocks."""

    def __init__(self, found: pd.DataFrame, terms: Sequence[NDArray[np.float64]]) -> None:
        keep = np.isfinite(found.bpb.to_numpy(float))
        y, blocks = found.bpb.to_numpy(float)[keep], pd.get_dummies(found.seed[keep], dtype=float)
        X = np.column_stack([*(term[keep] for term in terms), blocks])
        beta, _, rank, _ = np.linalg.lstsq(X, y, rcond=None)
        self.residual = float(np.sum((y - X @ beta) ** 2))
        self.degrees = len(y) - int(rank)
        """Of freedom that are left over."""

        known = np.isclose(np.diag(np.linalg.pinv(X) @ X), 1.0)  # no combination of the others
        spread = self.residual / self.degrees if self.degrees > 0 else math.nan
        variances = np.maximum(np.diag(np.linalg.pinv(X.T @ X)), 0.0)  # a rounding may lie below
        both = np.column_stack([beta, np.sqrt(variances * spread)])
        self.effects = np.where(known[:, None], both, math.nan)
        """Of each column, and its standard error; nan where it cannot be estimated."""


def _explained(without: _Fit, with_it: _Fit) -> tuple[int, float]:
    """Degrees of freedom and sum of squares that the larger of two fits explains beyond."""
    return without.degrees - with_it.degrees, without.residual - with_it.residual


def varied(found: pd.DataFrame) -> list[str]:
    """The factors of a design."""
    return [str(name) for name in found.columns if name not in ("seed", "bpb")]


def _columns(found: pd.DataFrame, factor: str) -> list[NDArray[np.float64]]:
    """Indicators of the levels of a factor but its reference."""
    levels = found[factor].dropna().unique()
    return [(found[factor] == level).to_numpy(float) for level in levels[1:]]
