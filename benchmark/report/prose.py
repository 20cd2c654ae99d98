"""The sentences of a report, generated from its numbers."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import ABSENT, Row, rows
from benchmark.report.verdicts import (
    BEST_FIXED,
    SCRATCH,
    mean_test_bpb,
    oversized,
    paired,
    results,
)
from benchmark.statistics import MIN_SEEDS, verdict

PLAUSIBLE_BPB = 0.93
"""About the best published on enwik8; below it on real text, suspect that the text was seen."""


def answer(analysis: Analysis) -> str:
    """The first paragraph: who beats the controls, by how much, and whether it means anything."""
    sentences = [_setting(analysis)]
    if missing := analysis.controls.missing:
        sentences.append(
            f"**No verdict:** {code(missing)} has no finished run, and without its controls a "
            "comparison shows nothing."
        )
    else:
        sentences += [_oversize(analysis), *_verdicts(rows(analysis.tables["summary"]))]
    return " ".join(filter(None, sentences))


def tripwires(analysis: Analysis) -> list[str]:
    """Warnings that a reader must not miss."""
    runs = analysis.frames.runs
    absent = runs[runs.status.isin(ABSENT)]
    failed = runs[~runs.status.isin([*ABSENT, "done"])]
    repeated = runs[runs.epochs > 1]
    leaked = runs[(runs.test_bpb < PLAUSIBLE_BPB) & (runs.corpus != "synthetic")]
    planned = formats.plural(len(runs), "planned run")
    warnings = {
        f"**Incomplete, {len(absent)} of {planned} without a result:** {_runs(absent)}.": absent,
        f"**Failed, counted as an infinite loss:** {_runs(failed)}.": failed,
        f"**Repeated data, up to {repeated.epochs.max():.2f} epochs:** "
        f"{code(repeated.method.unique())}.": repeated,
        f"**Implausible, suspect leakage: below {PLAUSIBLE_BPB} bpb:** {_runs(leaked)}.": leaked,
    }
    return [warning for warning, affected in warnings.items() if len(affected)]


def where_the_target_sits(analysis: Analysis) -> str:
    """Whether the target is larger than the best size for its budget."""
    sizes = analysis.tables["hull"]
    target = sizes[sizes.is_target & sizes.test_bpb.map(math.isfinite)]
    if target.empty:
        return "Where the target lies is not known: it was not trained from scratch."
    n_params = target.n_params.iloc[0]
    smaller = sizes[sizes.n_params < n_params]
    if smaller.empty:
        return "Where the target lies is not known: no smaller fixed size was trained."
    gaps = {name: paired(analysis.frames, name, SCRATCH).difference for name in smaller.method}
    closest = min(gaps, key=lambda name: gaps[name].value)
    gap = gaps[closest]
    shown = formats.difference(gap.value, gap.low, gap.high)
    if oversized(analysis.frames, analysis.controls, n_params):
        return (
            f"The target is **larger than compute-optimal** at C*: `{closest}`, smaller and never "
            f"grown, differs from it by {shown} on the test split."
        )
    return (
        "The target is **no larger than compute-optimal** at C*: of "
        f"{formats.plural(len(smaller), 'smaller fixed size')} none is better beyond the noise "
        f"between seeds. The closest, `{closest}`, differs from it by {shown} on the test split."
    )


def code(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    return formats.listed([f"`{name}`" for name in names])


def _setting(analysis: Analysis) -> str:
    frames, best = analysis.frames, analysis.controls.best_fixed
    target = next(run.config["workload"]["target"] for run in frames.suite.runs if run.config)
    sizes = ", ".join(f"{key} {target[key]}" for key in ("d_model", "n_layer") if key in target)
    n_seeds = formats.plural(int(frames.runs.n_seeds.max()), "seed")
    start = f"At C* = {formats.flops(frames.budget_flops)} FLOPs with {n_seeds}, the target"
    if not _is_known(analysis):
        return f"{start} ({sizes}) has not been trained from scratch."
    text = (
        f"{start} ({_params(analysis, SCRATCH)} parameters: {sizes}) trained from scratch reaches "
        f"**{formats.bpb(mean_test_bpb(frames, SCRATCH).value)} bpb** on the test split"
    )
    if best is None or best == SCRATCH:
        return f"{text}; no other fixed size does better on the validation split."
    bpb = formats.bpb(mean_test_bpb(frames, best).value)
    return f"{text}; the best fixed size, `{best}` ({_params(analysis, best)}), **{bpb}**."


def _oversize(analysis: Analysis) -> str:
    frames = analysis.frames
    n_params = float(frames.of(SCRATCH).n_params.max())
    beating = oversized(frames, analysis.controls, n_params)
    if not beating:
        return ""
    name, comparison = beating[0]
    share = formats.percent(frames.of(name).n_params.max() / n_params)
    gap, is_sure = comparison.difference, verdict(comparison) == "better"
    shown = formats.difference(gap.value, gap.low, gap.high)
    return (
        f"**The target {'is' if is_sure else 'seems'} oversized at this budget:** `{name}`, with "
        f"{share} of its parameters and no growth, differs from {SCRATCH} by {shown}, so that "
        f"beating {SCRATCH} does not show that growing helps."
    )


def _verdicts(summary: Sequence[Row]) -> list[str]:
    methods = [row for row in summary if row["role"] == "method"]
    groups: dict[str, list[Row]] = {}
    for row in methods:
        groups.setdefault(row["verdict"], []).append(row)
    better = [
        f"**{word.capitalize()} than both controls, {len(groups[word])} of {len(methods)} "
        f"methods (intervals not adjusted for their number):** {_gaps(groups[word])}."
        for word in ("significantly better", "better")
        if word in groups
    ]
    few = groups.get("insufficient seeds", [])
    if not better and len(few) < len(methods):
        n_methods = formats.plural(len(methods), "method")
        better = [f"**None of {n_methods} is shown to be better than both controls.**"]
    unsure = groups.get("no evidence", [])
    worse = groups.get("significantly worse", []) + groups.get("worse", [])
    others = {
        f"No evidence against at least one control: {_names(unsure)}.": unsure,
        f"Worse than {SCRATCH} or than the best fixed size: {_names(worse)}.": worse,
        f"Fewer than {MIN_SEEDS} seeds, so nothing is concluded: {_gaps(few)}.": few,
    }
    return better + [sentence for sentence, group in others.items() if group]


def _gaps(methods: Sequence[Row]) -> str:
    return formats.listed([
        f"`{row['method']}` ({_gap(row, SCRATCH)} to {SCRATCH}, {_gap(row, BEST_FIXED)} to "
        f"{BEST_FIXED})"
        for row in methods
    ])  # fmt: skip


def _gap(row: Row, control: str) -> str:
    name = f"vs_{control}"
    return formats.difference(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _names(methods: Sequence[Row]) -> str:
    alone = [row["method"] for row in methods if row["vs_scratch_high"] < 0]
    note = f" (better than {SCRATCH} alone: {code(alone)})" if alone else ""
    return code(row["method"] for row in methods) + note


def _runs(runs: pd.DataFrame) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows(runs):
        groups.setdefault((row["method"], row["status"]), []).append(str(row["seed"]))
    return formats.listed([
        f"`{method}` ({status}: seed{'s' * (len(seeds) > 1)} {formats.listed(seeds)})"
        for (method, status), seeds in groups.items()
    ])  # fmt: skip


def _is_known(analysis: Analysis) -> bool:
    return SCRATCH in analysis.controls.fixed and len(results(analysis.frames, SCRATCH)) > 0


def _params(analysis: Analysis, method: str) -> str:
    return formats.count(analysis.frames.of(method).n_params.max())
