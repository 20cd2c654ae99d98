"""The comparison itself: differences paired by seed, and what they allow to say."""

import math
from collections.abc import Mapping

import pandas as pd

from benchmark.report import statistics
from benchmark.report.controls import SCRATCH, Controls, best_fixed, held_against
from benchmark.report.frames import Frames, Row
from benchmark.report.moderation import prior

DIGITS = 9
"""Of what is estimated from all rows; finer ones differ between machines."""

_COMPARISON = ["against", "method", "role", "control", "n", "n_lost", "is_best_fixed", "difference",
               "low", "high", "own_low", "own_high", "sd", "shrunk_sd", "degrees", "own_share", "p",
               "p_holm", "detectable", "verdict", "significant"]  # fmt: skip


def paired(frames: Frames, method: str, control: str) -> statistics.Comparison:
    """Method minus control over the seeds where the control is done and the method has a result."""
    ours, theirs = (dict(frames.results(name).test_bpb) for name in (method, control))
    seeds = [s for s in ours if math.isfinite(theirs.get(s, math.nan))]
    return statistics.compare([ours[s] for s in seeds], [theirs[s] for s in seeds])


def comparisons(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every method, control and hull size against each of its controls, one row each.

    `low` and `high` are the limits that verdicts use, under a variance shrunk towards that of all
    rows; `own_low` and `own_high` those under the row's own. The methods' tests are one family of
    Holm's correction, whatever control they are against.
    """
    compared = [
        _comparison(frames, method, control)
        | {"against": against, "is_best_fixed": control == best_fixed(frames, found, method)}
        for method in frames.methods("method", "control", "hull")
        for against, control in held_against(frames, found, method).items()
    ]
    _moderate(compared)
    for row in compared:
        limits = {name: row[name] for name in ("n", "low", "high")}
        row["verdict"] = statistics.verdict(statistics.Estimate(value=row["difference"], **limits))
    family = [row for row in compared if row["role"] == "method"]
    for row, p in zip(family, statistics.holm([row["p"] for row in family]), strict=True):
        row |= {"p_holm": p, "significant": statistics.is_significant(row["n"], p)}
    return pd.DataFrame(compared, columns=_COMPARISON)


def _moderate(compared: list[Row]) -> None:
    """Give each row the interval under a standard deviation shrunk towards that of all rows.

    Rows with the same differences are one method at these sizes, so they count once.
    """
    judged = [row for row in compared if math.isfinite(row["own_low"])]
    known = {(round(row["sd"], 12), row["n"] - 1.0) for row in judged}
    common = prior([sd for sd, _ in known], [degrees for _, degrees in known])
    for row in judged:
        sd, degrees, share = common.moderated(row["sd"], row["n"] - 1.0)
        error = sd / math.sqrt(row["n"])
        half = statistics.t_limit(degrees) * error
        found = {"low": row["difference"] - half, "high": row["difference"] + half, "shrunk_sd": sd,
                 "degrees": degrees, "own_share": share,
                 "detectable": statistics.minimum_detectable_effect(error, degrees)}  # fmt: skip
        row |= {name: round(value, DIGITS) for name, value in found.items()}


def verdicts(
    frames: Frames, found: Controls, compared: pd.DataFrame, withheld: Mapping[str, list[str]]
) -> dict[str, str]:
    """One word per method with role "method".

    "no verdict" while a control is missing, and instead of "better" for a method in `withheld`.
    """
    words = {}
    for method in frames.methods("method"):
        mine = compared[compared.method == method]
        is_judged = not found.missing and len(mine) > 0
        word = statistics.joint_verdict(list(mine.verdict)) if is_judged else "no verdict"
        if word == "better" and method in withheld:
            word = "no verdict"
        deciding = mine.significant[mine.verdict == word]
        strong = deciding.all() if word == "better" else deciding.any()
        words[method] = f"significantly {word}" if strong else word
    return words


def worse_than(compared: pd.DataFrame) -> dict[str, str]:
    """The control that decides of each method that is worse, but not worse than scratch."""
    worse = compared[compared.verdict == "worse"].sort_values("difference", kind="stable")
    than_scratch = set(worse.method[worse.control == SCRATCH])
    by_most = dict(zip(worse.method, worse.control, strict=True))
    return {name: control for name, control in by_most.items() if name not in than_scratch}


def _comparison(frames: Frames, method: str, control: str) -> Row:
    comparison = paired(frames, method, control)
    difference = comparison.difference
    return {
        "method": method,
        "role": frames.of(method).role.iloc[0],
        "control": control,
        "n": difference.n,
        "n_lost": len(frames.of(method)) - difference.n,
        "difference": difference.value,
        "low": math.nan,
        "high": math.nan,
        "own_low": difference.low,
        "own_high": difference.high,
        "sd": comparison.sd,
        "p": comparison.p_value,
        "significant": False,
    }
