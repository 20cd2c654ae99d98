"""The sections of a report that show results."""

import math
from collections.abc import Callable

from benchmark.report import accounts, choices, formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.formats import figure
from benchmark.report.frames import Row, grouped, rows
from benchmark.report.prose import is_crossed, where_the_target_sits

Section = Callable[[Analysis], list[str]]

DIFFERENCES = ("differences", "Difference of every method to its controls")


def differences(analysis: Analysis) -> list[str]:
    """The statistics behind the verdicts."""
    shown = [
        {
            "method": f"`{row['method']}`",
            "minus": _against(row),
            "n": str(row["n"]),
            "pairs lost": str(row["n_lost"]),
            "difference [t interval]": formats.difference(
                row["difference"], row["low"], row["high"]
            ),
            "bootstrap, seeds x blocks": formats.limits(
                row["bootstrap_low"], row["bootstrap_high"]
            ),
            "moderated t": formats.limits(row["moderated_low"], row["moderated_high"]),
            "own share of it": formats.percent(row["own_share"]),
            "sign-flip p": formats.number(row["p"]),
            "Holm p": formats.number(row["p_holm"]),
            "detectable": formats.bpb(row["detectable"]),
            "seed correlation": formats.number(row["correlation"]),
        }
        for row in rows(analysis.tables["comparisons"])
        if row["role"] == "method"
    ]
    return [
        *([figure(*DIFFERENCES)] if lead(analysis) != DIFFERENCES else []),
        "*Detectable* is the smallest true difference that this many seeds find with 80 % power; "
        "pairing by seed helps where the seed correlation is positive. *Pairs lost* are seeds of "
        "the method without a finite score of the control, or without a result of its own. "
        "*Moderated t* is the interval under a standard deviation that is shrunk towards that of "
        "all methods (Smyth 2004); *own share* is the row's in it. Verdicts do not use it yet.",
        _same_scores(analysis),
        formats.table(shown),
    ]


def equal_compute(analysis: Analysis) -> list[str]:
    """Curve bpb at fractions of C*, annealed scratch first."""
    table = analysis.tables["compute_matched"]
    is_reference = (table.role == "rung") | (table.method == SCRATCH)
    groups = [
        (f"{SCRATCH}, annealed at each budget", rows(table[table.is_annealed & is_reference]))
    ]
    by_method = grouped(table[table.role != "rung"])
    groups += [(f"`{name}`", group) for name, group in by_method.items()]
    fractions = sorted(table.fraction.unique())
    shown = []
    for name, group in groups:
        cells = {row["fraction"]: _matched(row) for row in group}
        columns = {formats.fraction(u): cells.get(u, formats.DASH) for u in fractions}
        shown.append({"method": name} | columns)
    return [
        "Validation slice, last evaluation within one step of the budget, mean over seeds. "
        f"{formats.UNANNEALED}: the run goes on, so its learning rate is still high there and the "
        "value would be lower had the run been annealed; compare it with the same mark only.",
        formats.table(shown),
    ]


def speed_ups(analysis: Analysis) -> list[str]:
    """Speed-ups at each loss that annealed scratch runs ended with."""
    shown = []
    for name, group in grouped(analysis.tables["speed_ups"]).items():
        at_end = [row["saving"] for row in group if row["reference"] == SCRATCH]
        shown.append(
            {"method": f"`{name}`"}
            | {f"at {SCRATCH}'s loss of {formats.fraction(row['budget'])}": formats.speed_up(row)
               for row in group}
            | {"saving at C*": formats.percent(next(iter(at_end), math.nan))}
        )  # fmt: skip
    return [
        f"S = compute of {SCRATCH} / compute of the method to reach the loss that {SCRATCH} of the "
        "same seed ends with, annealed at that budget; geometric mean over seeds, 95 % interval; "
        "saving = 1 - 1/S. Log-linear between evaluations, never extrapolated.",
        f"Of a seed that did not reach that loss, S is known only to be below the compute of "
        f"{SCRATCH} / all that the method spent (0 if it failed). Then S is the median of all "
        "seeds, these included: exact where their bounds cannot move it, else `< x` or `x to y`; "
        "without interval and saving.",
        f"S leans low: {SCRATCH} is read at the end of an annealed curve, a method where its own "
        "curve, not annealed yet, crosses that loss; a run annealed for that budget would probably "
        "be below it. At C* the crossing lies in the steep last part of the decay, so S is "
        "close to 1 there even if the final losses are far apart.",
        formats.table(shown),
    ]


def growth_events(analysis: Analysis) -> list[str]:
    """What each growth changed, cost and lost."""
    return [
        "Means over seeds, on the validation slice. Recovery: compute until the loss is back at or "
        "below its value before the growth.",
        formats.table([_growth(row) for row in rows(analysis.tables["growth_events"])]),
    ]


def hull(analysis: Analysis) -> list[str]:
    """Fixed sizes at C*."""
    shown = [
        {
            "size": f"`{row['method']}`"
            + " (the target)" * row["is_target"]
            + f" (= {BEST_FIXED})" * row["is_best_fixed"],
            "parameters": formats.count(row["n_params"]),
            "without embedding": formats.count(row["n_params_nonembedding"]),
            "test bpb": formats.mean(row, "test_bpb", row["n"]),
            "n": str(row["n"]),
            "status": row["status"],
        }
        for row in rows(analysis.tables["hull"])
    ]
    drawn = figure("hull", "Loss of every fixed size at C*")
    return [where_the_target_sits(analysis), drawn, formats.table(shown)]


def lead(analysis: Analysis) -> tuple[str, str]:
    """The one figure beside the verdicts, and what it shows."""
    return choices.EFFECTS if is_crossed(analysis) else DIFFERENCES


def curves(analysis: Analysis) -> list[str]:
    """Loss in the course of training."""
    return [
        figure("curves_flops", "Loss against training compute"),
        figure("methods", "Each method beside scratch and the best fixed size"),
        figure("curves_tokens_time", "Loss against bytes read and against time"),
    ]


SECTIONS: dict[str, Section] = {
    "Differences, and how sure they are": differences,
    "What each row cost": accounts.costs,
    "Equal compute": equal_compute,
    "Who pays for the source": accounts.modes,
    "Speed-up at equal loss": speed_ups,
    "Growth": growth_events,
    "Which choices matter": choices.factors,
    "Tuning": choices.tuning,
    "Where the target sits": hull,
    "Curves": curves,
}


def _growth(row: Row) -> dict[str, str]:
    recovered = formats.percent(row["recovery_share"])
    if row["n_recovered"] < row["n"]:
        recovered = f"not recovered ({row['n_recovered']} of {row['n']} did)"
    return {
        "method": f"`{row['method']}`",
        "growth": row["changed"] or "none (same size)",
        "parameters": f"{formats.count(row['n_params_from'])} to "
        f"{formats.count(row['n_params_to'])}",
        "at, of C*": formats.percent(row["budget_share"]),
        "bpb before": formats.bpb(row["bpb_before"]),
        "after": formats.bpb(row["bpb_after"]),
        "jump": formats.difference(row["jump"]),
        "recovery, of C*": recovered,
        "growth FLOPs": formats.flops(row["growth_flops"]),
        "tokens": formats.count(row["growth_tokens"]),
        "time": formats.seconds(row["growth_seconds"]),
        "Adam state": row["state_policy"],
    }


def _matched(row: Row) -> str:
    return formats.bpb(row["bpb"]) + ("" if row["is_annealed"] else f" {formats.UNANNEALED}")


def _against(row: Row) -> str:
    """The control of a comparison, and what it stands for where that is something else."""
    is_best = f" (= {BEST_FIXED})" * (row["is_best_fixed"] and row["control"] != BEST_FIXED)
    return f"`{row['control']}`{is_best}"


def _same_scores(analysis: Analysis) -> str:
    """Methods that are one and the same at these sizes."""
    runs = analysis.frames.runs[analysis.frames.runs.role == "method"]
    scores: dict[tuple[float, ...], list[str]] = {}
    for method, group in grouped(runs[runs.status == "done"]).items():
        scores.setdefault(tuple(row["test_bpb"] for row in group), []).append(f"`{method}`")
    same = [formats.listed(methods) for methods in scores.values() if len(methods) > 1]
    text = "The same to the last digit at every seed, so one method at these sizes: "
    return f"{text}{'; '.join(same)}." if same else ""
