"""The sections of a report: a few words, figures, and tables that say what the CSVs hold."""

from collections.abc import Callable

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.conventions import CONVENTIONS, READING, crossing_of_nothing
from benchmark.report.formats import Columns, bpb, code, count, flops, gap, number, percent
from benchmark.report.frames import grouped, rows
from benchmark.report.leaks import shares
from benchmark.report.prose import (
    fixed_sizes,
    listed,
    n_seeds,
    what_matters,
    where_the_target_sits,
)

COMPUTING = ("numpy", "pytorch-lightning", "safetensors", "torch")
"""Packages that a number may depend on; the others are in the CSV only."""

DESCRIBING = ("summary", "paper")
"""Settings of a method that are text for a reader."""

_DIFFERENCES: Columns = {
    "method": ("method", code),
    "difference": ("", gap),
    "ordinary t": ("", lambda row: formats.limits(row["own_low"], row["own_high"])),
    "p (Holm)": ("", lambda row: f"{number(row['p'])} ({number(row['p_holm'])})"),
    "finds": ("detectable", bpb),
}
_COSTS: Columns = {
    "method": ("method", code),
    "test bpb": ("", formats.mean),
    "params": ("n_params", count),
    "tokens": ("tokens", count),
    "time": ("seconds", formats.seconds),
    "memory": ("peak_memory_bytes", formats.memory),
}
COUNTED: Columns = {
    "method": ("method", code),
    **{name: (key, formats.times) for key, name in CONVENTIONS.items() if key != "ours"},
    "ours": ("", lambda row: formats.within(row, "ours", formats.times)),
}
_GROWTH: Columns = {
    "method": ("method", code),
    "at": ("budget_share", percent),
    "before": ("bpb_before", bpb),
    "after": ("bpb_after", bpb),
    "recovery": (
        "",
        lambda row: (
            percent(row["recovery_share"])
            if row["n_recovered"] == row["n"]
            else f"{row['n_recovered']} of {row['n']} did"
        ),
    ),
    "FLOPs": ("growth_flops", flops),
    "Adam state": ("state_policy", str),
}
_EFFECTS: Columns = {
    "factor": ("factor", str),
    "level": ("", lambda row: row["level"] + " (reference)" * (row["level"] == row["reference"])),
    "runs": ("n", str),
    "failed": ("n_excluded", str),
    "effect on test bpb": ("", lambda row: gap(row, "effect")),
}
_SHARES: Columns = {
    "term": ("term", str),
    "kind": ("kind", str),
    "degrees of freedom": ("degrees", str),
    "share of variance": ("share", percent),
}
_TUNING: Columns = {
    "method": ("method", code),
    "tuned minus default": ("", gap),
    "trials": ("", lambda row: f"{row['trials']}, {row['n_failed']} failed"),
    "at, of C*": ("budget_share", percent),
    "FLOPs, of final": ("flops_share", percent),
}
_TRIALS: Columns = {
    "method": ("tunes", code),
    "trial": ("", lambda row: number(row["trial"]) + " (chosen)" * row["chosen"]),
    "validation bpb": ("val_bpb", bpb),
    "status": ("status", str),
    "settings": ("settings", lambda text: text or formats.DASH),
}
_HULL: Columns = {
    "never grown": ("method", code),
    "params": ("n_params", count),
    "test bpb": ("", formats.mean),
    f"minus {SCRATCH}": ("", lambda row: gap(row, f"vs_{SCRATCH}")),
}
_RUNS: Columns = {
    "method": ("method", code),
    "seed": ("seed", str),
    "run": ("run_id", str),
    "status": ("status", str),
    "test bpb": ("test_bpb", bpb),
    "val bpb": ("val_bpb", bpb),
}


def differences(analysis: Analysis) -> list[str]:
    """The statistics behind the verdicts."""
    table = analysis.tables["comparisons"]
    table = table[table.role == "method"]
    shown = sorted(rows(table), key=lambda row: (row["control"] != SCRATCH, row["control"]))
    lost = [f"{code(row['method'])} {row['n_lost']}" for row in shown if row["n_lost"]]
    return [
        "*Difference* has the interval of the moderated t, which verdicts use. *Ordinary t* is the "
        "interval under the row's own variance alone. *p* is that of the exact sign-flip test, and "
        "after Holm's correction. *Finds* is the smallest true difference that this many seeds "
        "find with 80 % power.",
        f"Pairs without a finite score of the control, or a result of the method: {listed(lost)}."
        if lost
        else "",
        _same_scores(analysis),
        formats.table(
            formats.cells(shown, _DIFFERENCES),
            groups=[f"minus {code(row['control'])}" for row in shown],
        ),
    ]


def costs(analysis: Analysis) -> list[str]:
    """What each row of the verdict table reached and used."""
    return [
        "Means over the seeds that have a result; the interval is Student's. Every row that ended "
        f"was charged C*. {_shared(analysis)}",
        _by_group(analysis, analysis.tables["summary"], _COSTS),
    ]


def by_convention(analysis: Analysis) -> list[str]:
    """The same runs as other papers count theirs, and as this one does."""
    table = analysis.tables["conventions"]
    if table.empty:
        return []
    readings = "; ".join(f"*{CONVENTIONS[key]}*: {text}" for key, text in READING.items())
    nothing = crossing_of_nothing(analysis.frames)
    return [
        f"A speed-up is the compute that {SCRATCH}, annealed, needs for the loss a method ends "
        f"with, over what the method spent: {readings}.",
        f"What a convention gives for nothing: `{RESTART_ONLY}` does not grow, and {SCRATCH} "
        f"annealed at C*/2 is {number(nothing)} times as fast as its own curve on the way to C*.",
        _by_group(analysis, table, COUNTED),
    ]


def growth_events(analysis: Analysis) -> list[str]:
    """What each growth changed, cost and lost."""
    return [
        "Means over seeds, bpb on the validation slice. Shares of C*: *at*, and *recovery*, until "
        "the loss is back at or below its value before the growth, or how many seeds got there. "
        "`tables/growth_events.csv` has sizes, tokens and time of growing.",
        _by_group(analysis, analysis.tables["growth_events"], _GROWTH),
    ]


def factors(analysis: Analysis) -> list[str]:
    """Main effects of a crossed design; nothing where there is none."""
    if "main_effects" not in analysis.tables:
        return []
    effects, parts = (analysis.tables[name] for name in ("main_effects", "effect_shares"))
    return [
        what_matters(effects, parts),
        "![Main effects of the factors](figures/main_effects.png)",
        "Least squares on test bpb with the seed as a block, 95 % intervals: each level against "
        "the factor's reference, the other factors held alike. A failed run has no finite score: "
        "it is left out here and counted, so a level at which many fail looks better than it is. "
        "An operator brings along what it grows, and so the source that it starts from: its effect "
        "is that of all three. Cells with the same source and seed share its training; with "
        f"{formats.plural(n_seeds(analysis), 'seed')} the intervals are for these seeds.",
        formats.table(formats.cells(rows(effects), _EFFECTS)),
        "Shares are of the variance within seeds, each what no other term explains; an interaction "
        "is what a pair of factors explains beyond all main effects.",
        formats.table(formats.cells(rows(parts), _SHARES)),
    ]


def tuning(analysis: Analysis) -> list[str]:
    """Default and tuned scores, what tuning cost, and every trial."""
    ledger, tried = (analysis.tables.get(name) for name in ("tuning", "tuning_trials"))
    if ledger is None or tried is None:
        return []
    return [
        "Trials are scored on the validation split, with seeds that no final run has; trial 0 is "
        "the default. Their FLOPs are listed here, in no budget; they are in no other table.",
        formats.table(formats.cells(rows(ledger), _TUNING)),
        formats.table(formats.cells(rows(tried), _TRIALS), alignment="left"),
    ]


def hull(analysis: Analysis) -> list[str]:
    """Fixed sizes at C*."""
    sizes = formats.cells(rows(fixed_sizes(analysis)), _HULL)
    return [where_the_target_sits(analysis), formats.table(sizes)]


def curves(analysis: Analysis) -> list[str]:
    """Loss in the course of training."""
    return [
        "The chart of report.html has the whole course of every method and seed.",
        "![Loss minus scratch in the last fifth of training](figures/curves_flops.png)",
    ]


def settings(analysis: Analysis) -> list[str]:
    """Everything all runs share."""
    table = analysis.tables["settings"]
    groups: dict[str, list[str]] = {}
    for key, value in zip(table.key, table.value, strict=True):
        part, _, name = key.rpartition(".")
        groups.setdefault(part, []).append(f"{name} {value or 'none'}")
    return ["\n".join(f"- **{part}**: {', '.join(leaves)}" for part, leaves in groups.items())]


def what_differs(analysis: Analysis) -> list[str]:
    """Everything in which methods differ; nothing else may."""
    table = analysis.tables["what_differs"]
    keys = [key for key in table.columns if key not in ("method", *DESCRIBING)]
    usual = {key: table[key].mode().iloc[0] for key in keys}
    shown = []
    for row in rows(table):
        unusual = [f"{k} = {row[k] or 'none'}" for k, value in usual.items() if row[k] != value]
        what = [row.get(key, "") for key in DESCRIBING] + unusual
        shown.append(f"- {code(row['method'])}: {'; '.join(filter(None, what)) or 'as most'}")
    return [
        "Settings that are not those of most methods; all of them are in "
        "`tables/what_differs.csv`.",
        "\n".join(shown),
    ]


def runs(analysis: Analysis) -> list[str]:
    """One row per planned run, tuning trials last."""
    table, published = analysis.frames.runs, analysis.frames.suite.published
    said = table.status + table.run_id.isin(published).map({True: ", published", False: ""})
    said += table.error.map(lambda error: f": {error}" if error else "")
    return [_by_group(analysis, table.assign(status=said), _RUNS)]


def plan(analysis: Analysis) -> list[str]:
    """What was fixed before the first run, and what changed since."""
    lock, changes = analysis.lock, analysis.tables.get("amendments")
    if lock is None:
        return ["Not pre-registered: there is no `plan.lock`."]
    seen, tests = formats.plural(lock.results, "result"), "; ".join(lock.first.get("tests", ()))
    return [
        f"`plan.lock` of {lock.date}, when there were {seen}. Metric: {lock.first.get('metric')}. "
        f"Tests: {tests}.",
        "No amendments." if changes is None else formats.table(rows(changes.map(str)), "left"),
    ]


def leaks(analysis: Analysis) -> list[str]:
    """How much of the held-out text a model may have read in training."""
    found = [f"{percent(share)} of {split}" for split, share in shares(analysis.overlap).items()]
    most = analysis.frames.runs.epochs.max()
    looked = (
        f"In windows of {analysis.overlap['window']} bytes, at every offset, "
        f"{formats.listed(found)} stands word for word in the training text."
        if found
        else "The overlap of training and held-out text was not looked for."
    )
    return [f"{looked} The most that a run has read is {most:.3g} epochs."]


def environment(analysis: Analysis) -> list[str]:
    """Where and with what the runs were made."""
    table = analysis.tables["environment"]
    computing = table.key.isin([f"packages.{name}" for name in COMPUTING])
    shown = grouped(table[~table.key.str.startswith("packages.") | computing], "key")
    values = {key: [f"{row['value']} ({row['runs']})" for row in own] for key, own in shown.items()}
    return [
        "Values, each with how many runs have it. Every installed package: "
        "`tables/environment.csv`.",
        "\n".join(f"- **{key}**: {'; '.join(found)}" for key, found in values.items()),
    ]


Section = Callable[[Analysis], list[str]]

SECTIONS: dict[str, Section] = {
    "Differences, and how sure they are": differences,
    "What each row reached and cost": costs,
    "Speed-up, as others count and as we do": by_convention,
    "Growth": growth_events,
    "Which choices matter": factors,
    "Tuning": tuning,
    "Where the target sits": hull,
    "Curves": curves,
}
"""What was found."""

APPENDIX: dict[str, Section] = {
    "What every run shares": settings,
    "What differs": what_differs,
    "Runs": runs,
    "Plan": plan,
    "Leaks and repeats": leaks,
    "Environment": environment,
}
"""What lets a reader check it."""


def _by_group(analysis: Analysis, table: pd.DataFrame, columns: Columns) -> str:
    """A table with headings of what grows, when; of the other roles by what they are."""
    group = analysis.tables["summary"].set_index("method").group
    others = "other runs of scratch and of tuning"
    groups = [str(group.get(method, others)) for method in table.method]
    return formats.table(formats.cells(rows(table), columns), groups=groups)


def _shared(analysis: Analysis) -> str:
    """How much training was shared, and how long evaluation took."""
    evaluating, training = analysis.frames.runs[["eval_seconds", "seconds"]].sum()
    ratio = rows(analysis.tables["shared_compute"])[-1]["flops"]
    share = evaluating / (evaluating + training) if evaluating else 0.0
    return (
        "A stage that several runs have in common is trained once and charged to each: "
        f"{number(ratio)} FLOPs charged for one executed. Evaluation took {percent(share)} of the "
        "wall-clock and is not charged."
    )


def _same_scores(analysis: Analysis) -> str:
    """Methods that are one and the same at these sizes."""
    runs = analysis.frames.runs[analysis.frames.runs.role == "method"]
    scores: dict[tuple[float, ...], list[str]] = {}
    for method, group in grouped(runs[runs.status == "done"]).items():
        scores.setdefault(tuple(row["test_bpb"] for row in group), []).append(code(method))
    same = [formats.listed(methods) for methods in scores.values() if len(methods) > 1]
    text = "The same to the last digit at every seed, so one method at these sizes: "
    return f"{text}{'; '.join(same)}." if same else ""
