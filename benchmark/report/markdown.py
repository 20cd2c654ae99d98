"""The report as one markdown page: tables made readable, and the text around them."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.prose import answer, code, tripwires, where_the_target_sits
from benchmark.report.tables import SAME_BUDGET
from benchmark.report.verdicts import BEST_FIXED, SCRATCH
from benchmark.statistics import MIN_SEEDS, MIN_SEEDS_SIGNIFICANT

UNANNEALED = "\N{DAGGER}"

Section = Callable[[Analysis], list[str]]


def page(analysis: Analysis) -> str:
    """The text of `report.md`."""
    suite = analysis.frames.suite
    parts = [f"# {suite.name} {suite.version}: bits per byte (bpb; on enwik8 the literature calls "
             "it bpc)"]  # fmt: skip
    if suite.watermark:
        parts.append(f"> **{suite.watermark.upper()}**")
    parts += [suite.purpose, answer(analysis), *tripwires(analysis)]
    parts += [verdict_table(analysis), _figure("curves_flops", "Loss against training compute")]
    for title, section in SECTIONS.items():
        parts += [f"## {title}", *section(analysis)]
    return "\n\n".join(filter(None, parts)) + "\n"


def verdict_table(analysis: Analysis) -> str:
    """One row per method, controls and fixed sizes below the methods."""
    rows = []
    for row in analysis.tables["summary"].itertuples():
        best = f" (= {BEST_FIXED})" if row.is_best_fixed else ""
        faster = {"speed_up": row.speed_up, "n": row.speed_up_n, "n_reached": row.n_reached,
                  "low": row.speed_up_low, "high": row.speed_up_high}  # fmt: skip
        rows.append({
            "method": f"`{row.method}`{best}",
            "role": str(row.role),
            "test bpb": formats.mean(row._asdict(), "test_bpb", row.n),
            "n": str(row.n),
            f"minus {SCRATCH}": _gap(row, SCRATCH),
            f"minus {BEST_FIXED}": _gap(row, BEST_FIXED),
            "verdict": f"**{row.verdict}**" if row.verdict else "",
            f"speed-up over {SCRATCH}": formats.speed_up(faster),
            "parameters": formats.count(row.n_params),
            "FLOPs": formats.flops(row.flops),
            "tokens": formats.count(row.tokens),
            "epochs": formats.number(row.epochs) + (" (!)" if row.epochs > 1 else ""),
            "time": formats.seconds(row.seconds),
            "status": row.status,
        })  # fmt: skip
    return formats.table(rows)


def reading(analysis: Analysis) -> list[str]:
    """Definitions a reader needs, with this suite's numbers in them."""
    n = int(analysis.frames.runs.n_seeds.max())
    n_methods = len(analysis.words)
    return [
        f"- **Differences** are paired by seed, method minus control on the test split: negative "
        f"is better. Brackets are 95 % Student-t intervals over seeds, from {MIN_SEEDS} seeds on.\n"
        f"- **{BEST_FIXED}** is the fixed size that does best at the whole budget on the "
        f"*validation* split, here `{analysis.controls.best_fixed}`, among "
        f"{code(analysis.controls.fixed)}.\n"
        f"- **Verdict**: *better* needs an interval below zero against {SCRATCH} *and* against "
        f"{BEST_FIXED}; *worse* is an interval above zero against either; otherwise there is "
        f"*no evidence*. Intervals are not adjusted for {formats.plural(n_methods, 'method')}.\n"
        f"- **Significant** is said from {MIN_SEEDS_SIGNIFICANT} seeds on, where the exact "
        f"sign-flip test passes Holm's correction; with {formats.plural(n, 'seed')} its p-value "
        f"cannot be below {formats.number(2 / 2**n)}.\n"
        "- **A run that failed** has an infinite loss. A run without a result is left out of means; "
        "in a speed-up both count as *not reached*.\n"
        "- **FLOPs** are charged by formula, causal attention, everything a method causes "
        "included; evaluation is free. Time is wall-clock on this hardware and secondary."
    ]


def differences(analysis: Analysis) -> list[str]:
    """The statistics behind the verdicts."""
    rows = [
        {
            "method": f"`{row.method}`",
            "minus": row.against,
            "n": str(row.n),
            "difference [t interval]": formats.difference(row.difference, row.low, row.high),
            "bootstrap, seeds x blocks": formats.limits(row.bootstrap_low, row.bootstrap_high),
            "sign-flip p": formats.number(row.p),
            "Holm p": formats.number(row.p_holm),
            "detectable": formats.bpb(row.detectable),
            "seed correlation": formats.number(row.correlation),
        }
        for row in analysis.tables["comparisons"].itertuples()
        if row.role == "method"
    ]
    return [
        _figure("differences", "Paired differences to the controls"),
        "*Detectable* is the smallest true difference that this many seeds find with 80 % power.",
        formats.table(rows),
    ]


def equal_compute(analysis: Analysis) -> list[str]:
    """Curve bpb at fractions of C*, annealed scratch first."""
    table = analysis.tables["compute_matched"]
    fractions = sorted(table.fraction.unique())
    annealed = table[table.is_annealed & ((table.role == "rung") | (table.method == SCRATCH))]
    groups = [(f"{SCRATCH}, annealed at each budget", annealed)]
    full = table[table.role != "rung"]
    groups += [(str(name), rows) for name, rows in full.groupby("method", sort=False)]
    rows = []
    for name, group in groups:
        cells = {row.fraction: row for row in group.itertuples()}
        rows.append({"method": f"`{name}`" if group is not annealed else name} | {
            _fraction(fraction): _matched(cells[fraction]) if fraction in cells else formats.DASH
            for fraction in fractions
        })  # fmt: skip
    return [
        f"Validation slice, last evaluation within one step of the budget, mean over seeds. "
        f"{UNANNEALED} the learning rate is still high there: compare such a value with another "
        f"{UNANNEALED}, or know that it is read too high.",
        formats.table(rows),
    ]


def speed_ups(analysis: Analysis) -> list[str]:
    """Speed-ups at each loss that annealed scratch runs ended with."""
    table, rows = analysis.tables["speed_ups"], []
    for name, group in table.groupby("method", sort=False):
        cells = {row.budget: formats.speed_up(row._asdict()) for row in group.itertuples()}
        saving = group[group.reference == SCRATCH].saving
        rows.append({"method": f"`{name}`"} | {
            f"to {SCRATCH}'s loss at {_fraction(budget)}": cell for budget, cell in cells.items()
        } | {"saving at C*": formats.percent(saving.iloc[0]) if len(saving) else formats.DASH})  # fmt: skip
    return [
        f"S = compute of {SCRATCH} / compute of the method to reach the loss that {SCRATCH} of the "
        "same seed ends with, annealed at that budget; geometric mean over seeds. Log-linear "
        "between evaluations, never extrapolated. Below C* the methods are not annealed, so S is "
        "read too low there.",
        formats.table(rows),
    ]


def growth_events(analysis: Analysis) -> list[str]:
    """What each growth changed, cost and lost."""
    rows = [
        {
            "method": f"`{row.method}`",
            "growth": row.changed or "none (same size)",
            "parameters": f"{formats.count(row.n_params_from)} to {formats.count(row.n_params_to)}",
            "at": formats.percent(row.budget_share),
            "bpb before": formats.bpb(row.bpb_before),
            "after": formats.bpb(row.bpb_after),
            "jump": formats.difference(row.jump),
            "recovery, of C*": formats.percent(row.recovery_share)
            if row.n_recovered == row.n
            else f"not recovered ({row.n_recovered} of {row.n} did)",
            "growth FLOPs": formats.flops(row.growth_flops),
            "tokens": formats.count(row.growth_tokens),
            "time": formats.seconds(row.growth_seconds),
            "Adam state": row.state_policy,
        }
        for row in analysis.tables["growth_events"].itertuples()
    ]
    return [
        "Means over seeds, on the validation slice. Recovery: compute until the loss is back at or "
        "below its value before the growth.",
        formats.table(rows),
    ]


def hull(analysis: Analysis) -> list[str]:
    """Fixed sizes at C*."""
    rows = [
        {
            "size": f"`{row.method}`" + (" (the target)" if row.is_target else ""),
            "parameters": formats.count(row.n_params),
            "without embedding": formats.count(row.n_params_nonembedding),
            "test bpb": formats.mean(row._asdict(), "test_bpb", row.n),
            "n": str(row.n),
            "status": row.status,
        }
        for row in analysis.tables["hull"].itertuples()
    ]
    return [where_the_target_sits(analysis), _figure("hull", "Loss of every fixed size at C*"),
            formats.table(rows)]  # fmt: skip


def curves(_: Analysis) -> list[str]:
    """The remaining figures."""
    return [
        _figure("methods", "Each method beside scratch and the best fixed size"),
        "Equal text and equal time are secondary readings: smaller models read more text per FLOP.",
        _figure("curves_tokens_time", "Loss against bytes read and against time"),
    ]


def shared_compute(analysis: Analysis) -> list[str]:
    """How much training was shared, and how long evaluation took."""
    runs = analysis.frames.runs
    table = analysis.tables["shared_compute"].set_index("what")
    share = runs.eval_seconds.sum() / (runs.eval_seconds.sum() + runs.seconds.sum())
    rows = [
        {
            "": what,
            "FLOPs": formats.flops(table.flops[what]),
            "unmasked attention": formats.flops(table.flops_unmasked[what]),
            "tokens": formats.count(table.tokens[what]),
            "time": formats.seconds(table.seconds[what]),
        }
        for what in ("charged", "executed")
    ]
    return [
        "A stage that several runs have in common is trained once and charged to each: "
        f"{formats.number(table.flops['ratio'])} FLOPs charged for one executed. Evaluation took "
        f"{formats.percent(share)} of the wall-clock and is not charged.",
        formats.table(rows),
    ]


def settings(analysis: Analysis) -> list[str]:
    """Everything all runs share."""
    return [_plain(analysis.tables["settings"])]


def what_differs(analysis: Analysis) -> list[str]:
    """Everything in which methods differ, nothing else may."""
    rows = []
    for row in analysis.tables["what_differs"].to_dict("records"):
        mine = {key: value for key, value in row.items() if value and key != "method"}
        shown = "; ".join(f"{key} = {value}" for key, value in mine.items())
        rows.append({"method": f"`{row['method']}`", "settings": shown})
    return [formats.table(rows, alignment="left")]


def failures(analysis: Analysis) -> list[str]:
    """Runs that did not end well, and folders that the plan does not know."""
    runs = analysis.frames.runs
    rows = [
        {
            "method": f"`{row.method}`",
            "seed": str(row.seed),
            "status": row.status,
            "got to": formats.percent(row.flops / row.budget_flops),
            "error": row.error,
            "run": row.run_id,
        }
        for row in runs[runs.status != "done"].itertuples()
    ]
    unplanned = analysis.frames.suite.unplanned
    note = f"Not in the plan, hence in no table: {code(unplanned)}." if unplanned else ""
    return [formats.table(rows), note]


def runs(analysis: Analysis) -> list[str]:
    """One row per planned run."""
    rows = [
        {
            "run": row.run_id,
            "method": f"`{row.method}`",
            "seed": str(row.seed),
            "status": row.status,
            "test bpb": formats.bpb(row.test_bpb),
            "val bpb": formats.bpb(row.val_bpb),
            "FLOPs": formats.flops(row.flops),
            "of budget": formats.percent(row.flops / row.budget_flops),
            "tokens": formats.count(row.tokens),
            "time": formats.seconds(row.seconds),
            "memory": formats.memory(row.peak_memory_bytes),
        }
        for row in analysis.frames.runs.itertuples()
    ]
    return [formats.table(rows)]


def environment(analysis: Analysis) -> list[str]:
    """Where and with what the runs were made; packages only those that compute."""
    table = analysis.tables["environment"]
    computing = {f"packages.{name}" for name in ("torch", "pytorch-lightning", "numpy", "safetensors")}
    shown = table[~table.key.str.startswith("packages.") | table.key.isin(computing)]
    return [_plain(shown), "Every installed package: `tables/environment.csv`."]


SECTIONS: dict[str, Section] = {
    "How to read this": reading,
    "Differences, and how sure they are": differences,
    "Equal compute": equal_compute,
    "Speed-up at equal loss": speed_ups,
    "Growth": growth_events,
    "Where the target sits": hull,
    "Curves": curves,
    "Shared compute": shared_compute,
    "What every run shares": settings,
    "What differs": what_differs,
    "Failures": failures,
    "Runs": runs,
    "Environment": environment,
}


def _figure(name: str, caption: str) -> str:
    return f"[![{caption}](figures/{name}.png)](figures/{name}.svg)"


def _gap(row: Any, control: str) -> str:
    names = (f"vs_{control}", f"vs_{control}_low", f"vs_{control}_high")
    return formats.difference(*(getattr(row, name) for name in names))


def _fraction(fraction: float) -> str:
    parts = round(1 / fraction)
    if abs(parts * fraction - 1) > SAME_BUDGET:
        return f"{formats.number(fraction)} C*"
    return "C*" if parts == 1 else f"C*/{parts}"


def _matched(row: Any) -> str:
    return formats.bpb(row.bpb) + ("" if row.is_annealed else f" {UNANNEALED}")


def _plain(table: pd.DataFrame) -> str:
    rows = [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]
    return formats.table(rows, alignment="left")
