"""Which choices matter, and by how much: main effects of a crossed design.

Ordinary least squares on the test bpb of every finished run, with the seed as a block and each
factor's levels against its reference, the first level in the plan. Runs that did not finish cannot
enter a mean: they are left out, and counted at their level. Shares are of the variance within
seeds, each the part that no other term explains; in an unbalanced design they need not add up.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.report.frames import ABSENT, Frames, Row, rows
from benchmark.report.statistics import t_limit

DIGITS = 9
"""Of effects, beyond which linear algebra differs between machines."""

_EFFECTS = ["factor", "level", "reference", "n", "n_excluded", "effect", "low", "high"]
_SHARES = ["term", "kind", "degrees", "share"]

Levels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Design:
    """The runs of a crossed design: as many levels, seeds and scores as there are runs."""

    levels: list[Levels]
    """Factor to level of each run, failed ones included."""

    seeds: list[int]
    bpb: list[float]
    """Infinite if the run failed."""

    @property
    def factors(self) -> dict[str, list[str]]:
        """Levels of each factor that has two or more, in order of appearance."""
        names = dict.fromkeys(name for levels in self.levels for name in levels)
        found = {n: list(dict.fromkeys(run[n] for run in self.levels if n in run)) for n in names}
        return {name: levels for name, levels in found.items() if len(levels) > 1}


def cells(frames: Frames) -> dict[str, Levels]:
    """The methods that are cells of a crossed design, with their level of each factor."""
    crossed = {name: settings.get("levels") for name, settings in frames.settings.items()}
    return {name: levels for name, levels in crossed.items() if levels}


def design(frames: Frames) -> Design:
    """The runs whose method is a cell of a crossed design and that have a result."""
    crossed = cells(frames)
    runs = [row for row in rows(frames.runs) if row["method"] in crossed]
    runs = [row for row in runs if row["status"] not in ABSENT and row["role"] == "method"]
    return Design(
        levels=[crossed[row["method"]] for row in runs],
        seeds=[row["seed"] for row in runs],
        bpb=[row["test_bpb"] for row in runs],
    )


def main_effects(found: Design) -> pd.DataFrame:
    """Change in bpb from a factor's reference to each other level, with a 95 % interval.

    nan where the runs that finished cannot tell a level from the others.
    """
    if not found.factors:
        return pd.DataFrame(columns=_EFFECTS)
    finite = [math.isfinite(bpb) for bpb in found.bpb]
    terms = {(f, level): _is_level(found, f, level) for f, levels in found.factors.items()
             for level in levels}  # fmt: skip
    free = [key for key in terms if key[1] != found.factors[key[0]][0]]
    fit = _fit(found, [terms[key] for key in free])
    return pd.DataFrame(
        [
            {
                "factor": factor,
                "level": level,
                "reference": found.factors[factor][0],
                "n": int(sum(has and ok for has, ok in zip(column, finite, strict=True))),
                "n_excluded": int(
                    sum(has and not ok for has, ok in zip(column, finite, strict=True))
                ),
                **_effect(fit, free.index((factor, level)) if (factor, level) in free else None),
            }
            for (factor, level), column in terms.items()
        ],
        columns=_EFFECTS,
    )


def shares(found: Design) -> pd.DataFrame:
    """Share of the variance within seeds that each factor, and each pair of factors, explains."""
    whole = {name: _columns(found, name) for name in found.factors}
    if not whole:
        return pd.DataFrame(columns=_SHARES)
    total = _fit(found, []).residual
    full = _fit(found, _all(whole.values()))
    listed: list[Row] = []
    for name in whole:
        rest = _fit(found, _all(columns for other, columns in whole.items() if other != name))
        listed.append(_share(name, "factor", rest, full, total))
    for a, b in combinations(whole, 2):
        products = [x * y for x in whole[a] for y in whole[b]]
        joint = _fit(found, [*_all(whole.values()), *products])
        listed.append(_share(f"{a} x {b}", "interaction", full, joint, total))
    left = {"term": "left over", "kind": "residual", "degrees": full.degrees,
            "share": _ratio(full.residual, total)}  # fmt: skip
    return pd.DataFrame([*listed, left], columns=_SHARES)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Least squares on the finished runs, seeds as blocks."""

    effects: NDArray[np.float64]
    errors: NDArray[np.float64]
    """Standard errors of the terms; nan where they cannot be estimated."""

    residual: float
    degrees: int
    """Of freedom that are left over."""


def _fit(found: Design, terms: Sequence[NDArray[np.float64]]) -> _Fit:
    keep = np.isfinite(found.bpb)
    y, seeds = np.asarray(found.bpb)[keep], np.asarray(found.seeds)[keep]
    X = np.stack([*terms, *(np.asarray(found.seeds) == s for s in dict.fromkeys(seeds))], 1)[keep]
    X = X.astype(float)
    beta, _, rank, _ = np.linalg.lstsq(X, y, rcond=None)
    residual, degrees = float(np.sum((y - X @ beta) ** 2)), len(y) - int(rank)
    known = _is_estimable(X)[: len(terms)]
    spread = residual / degrees if degrees > 0 else math.nan
    variances = np.maximum(np.diag(np.linalg.pinv(X.T @ X)), 0.0)  # a rounding may lie below
    errors = np.sqrt(variances * spread)[: len(terms)]
    effects = np.where(known, beta[: len(terms)], math.nan)
    return _Fit(
        effects=effects,
        errors=np.where(known, errors, math.nan),
        residual=residual,
        degrees=degrees,
    )


def _is_estimable(X: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns are no combination of the others."""
    ranges = np.linalg.pinv(X) @ X
    return np.asarray(np.isclose(np.diag(ranges), 1.0))


def _effect(fit: _Fit, position: int | None) -> Row:
    if position is None:
        return {"effect": 0.0, "low": math.nan, "high": math.nan}
    value, error = fit.effects[position], fit.errors[position]
    half = t_limit(fit.degrees) * error if fit.degrees > 0 else math.nan
    limits = {"effect": value, "low": value - half, "high": value + half}
    return {name: round(float(limit), DIGITS) for name, limit in limits.items()}


def _share(term: str, kind: str, without: _Fit, with_it: _Fit, total: float) -> Row:
    explained = without.residual - with_it.residual
    return {
        "term": term,
        "kind": kind,
        "degrees": without.degrees - with_it.degrees,
        "share": _ratio(explained, total),
    }


def _ratio(part: float, total: float) -> float:
    return round(max(0.0, part) / total, DIGITS) if total > 0 else math.nan


def _is_level(found: Design, factor: str, level: str) -> NDArray[np.float64]:
    return np.asarray([float(run.get(factor) == level) for run in found.levels])


def _columns(found: Design, factor: str) -> list[NDArray[np.float64]]:
    return [_is_level(found, factor, level) for level in found.factors[factor][1:]]


def _all(groups: Iterable[list[NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
    return [column for group in groups for column in group]
