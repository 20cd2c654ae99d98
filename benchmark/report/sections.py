"""The sections of a report that show results."""

import math
from collections.abc import Callable

from benchmark.report import accounts, choices, formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.formats import figure
from benchmark.report.frames import Row, grouped, rows
from benchmark.report.prose import is_crossed, where_the_target_sits
from benchmark.report.statistics import MIN_SEEDS

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
            "difference": formats.gap(row),
            "own variance's share": formats.percent(row["own_share"]),
            "under its own alone": formats.limits(row["own_low"], row["own_high"]),
            "sign-flip p": formats.number(row["p"]),
            "Holm p": formats.number(row["p_holm"]),
            "detectable": formats.bpb(row["detectable"]),
        }
        for row in rows(analysis.tables["comparisons"])
        if row["role"] == "method"
    ]
    return [
        *([figure(*DIFFERENCES)] if lead(analysis) != DIFFERENCES else []),
        "Intervals are those of a moderated t (Smyth 2004): a row's variance over seeds is the "
        "weighted mean of its own and of what all rows have in common, and *own variance's share* "
        "is the weight of its own. *Under its own alone* is the ordinary t interval, no verdict's. "
        "*Detectable* is the smallest true difference that this many seeds find with 80 % power. "
        "*Pairs lost* are seeds of the method without a finite score of the control, or without a "
        "result of its own.",
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
        "saving = 1 - 1/S; neither where a seed did not reach that loss. Log-linear between "
        "evaluations, never extrapolated.",
        f"S leans low: {SCRATCH} is read at the end of an annealed curve, a method where its own "
        "curve, not annealed yet, crosses that loss; a run annealed for that budget would probably "
        "be below it. At C* the crossing lies in the steep last part of the decay, so S is "
        "close to 1 there even if the final losses are far apart.",
        formats.table(shown),
    ]


def single_runs(analysis: Analysis) -> list[str]:
    """Methods with too few seeds for a verdict, against the band of scratch."""
    table = analysis.tables.get("single_runs")
    if table is None:
        return []
    shown = [
        {
            "method": f"`{row['method']}`",
            "n": str(row["n"]),
            "validation bpb": formats.bpb(row["val_bpb"]),
            f"minus {SCRATCH}'s band": formats.gap(row),
            "single-run rule": row["word"],
        }
        for row in rows(table)
    ]
    return [
        f"**No verdicts.** With fewer than {MIN_SEEDS} seeds a method has no spread of its own. "
        "The rule takes that of scratch as known, from "
        f"{table.band_seeds.iloc[0]} seeds on this workload (mean "
        f"{formats.bpb(table.band_bpb.iloc[0])}, `configs/bands`), and asks whether the validation "
        f"bpb lies outside of what one more run of {SCRATCH} would reach, 19 times out of 20. It "
        f"errs where a method varies more over seeds than {SCRATCH} does.",
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
    "Single runs against the band of scratch": single_runs,
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
