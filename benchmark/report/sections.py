"""The sections of a report that show results."""

from collections.abc import Callable

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import Row, rows
from benchmark.report.prose import where_the_target_sits
from benchmark.report.tables import SAME_BUDGET
from benchmark.report.verdicts import BEST_FIXED, SCRATCH

Section = Callable[[Analysis], list[str]]

UNANNEALED = "\N{DAGGER}"


def figure(name: str, caption: str) -> str:
    """A figure that links to its vector version."""
    return f"[![{caption}](figures/{name}.png)](figures/{name}.svg)"


def differences(analysis: Analysis) -> list[str]:
    """The statistics behind the verdicts."""
    shown = [
        {
            "method": f"`{row['method']}`",
            "minus": row["against"],
            "n": str(row["n"]),
            "difference [t interval]": formats.difference(
                row["difference"], row["low"], row["high"]
            ),
            "bootstrap, seeds x blocks": formats.limits(
                row["bootstrap_low"], row["bootstrap_high"]
            ),
            "sign-flip p": formats.number(row["p"]),
            "Holm p": formats.number(row["p_holm"]),
            "detectable": formats.bpb(row["detectable"]),
            "seed correlation": formats.number(row["correlation"]),
        }
        for row in rows(analysis.tables["comparisons"])
        if row["role"] == "method"
    ]
    return [
        figure("differences", "Paired differences to the controls"),
        "*Detectable* is the smallest true difference that this many seeds find with 80 % power; "
        "pairing by seed helps where the seed correlation is positive.",
        formats.table(shown),
    ]


def equal_compute(analysis: Analysis) -> list[str]:
    """Curve bpb at fractions of C*, annealed scratch first."""
    table = analysis.tables["compute_matched"]
    is_reference = (table.role == "rung") | (table.method == SCRATCH)
    groups = [(f"{SCRATCH}, annealed at each budget", table[table.is_annealed & is_reference])]
    by_method = table[table.role != "rung"].groupby("method", sort=False)
    groups += [(f"`{name}`", group) for name, group in by_method]
    fractions = sorted(table.fraction.unique())
    shown = []
    for name, group in groups:
        cells = {row["fraction"]: _matched(row) for row in rows(group)}
        columns = {_fraction(u): cells.get(u, formats.DASH) for u in fractions}
        shown.append({"method": name} | columns)
    return [
        "Validation slice, last evaluation within one step of the budget, mean over seeds. "
        f"{UNANNEALED}: the run goes on, so its learning rate is still high there and the value "
        "would be lower had the run been annealed; compare it with the same mark only.",
        formats.table(shown),
    ]


def speed_ups(analysis: Analysis) -> list[str]:
    """Speed-ups at each loss that annealed scratch runs ended with."""
    shown = []
    for name, group in analysis.tables["speed_ups"].groupby("method", sort=False):
        at_end = group[group.reference == SCRATCH].saving
        shown.append(
            {"method": f"`{name}`"}
            | {f"at {SCRATCH}'s loss of {_fraction(row['budget'])}": formats.speed_up(row)
               for row in rows(group)}
            | {"saving at C*": formats.percent(at_end.iloc[0] if len(at_end) else float("nan"))}
        )  # fmt: skip
    return [
        f"S = compute of {SCRATCH} / compute of the method to reach the loss that {SCRATCH} of the "
        "same seed ends with, annealed at that budget; geometric mean over seeds, 95 % interval; "
        "saving = 1 - 1/S. Log-linear between evaluations, never extrapolated. Below C* the "
        f"methods are not annealed and {SCRATCH} is, so S is a lower bound there.",
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


def curves(_: Analysis) -> list[str]:
    """The remaining figures."""
    return [
        figure("methods", "Each method beside scratch and the best fixed size"),
        "Equal text and equal time are secondary readings: smaller models read more text per FLOP.",
        figure("curves_tokens_time", "Loss against bytes read and against time"),
    ]


SECTIONS: dict[str, Section] = {
    "Differences, and how sure they are": differences,
    "Equal compute": equal_compute,
    "Speed-up at equal loss": speed_ups,
    "Growth": growth_events,
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


def _fraction(fraction: float) -> str:
    parts = round(1 / fraction)
    if abs(parts * fraction - 1) > SAME_BUDGET:
        return f"{formats.number(fraction)} C*"
    return "C*" if parts == 1 else f"C*/{parts}"


def _matched(row: Row) -> str:
    return formats.bpb(row["bpb"]) + ("" if row["is_annealed"] else f" {UNANNEALED}")
