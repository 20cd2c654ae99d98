"""The sentences of a report, generated from its numbers."""

import math
from typing import Any

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import ABSENT
from benchmark.report.verdicts import BEST_FIXED, SCRATCH, mean_test_bpb, oversized, results
from benchmark.statistics import MIN_SEEDS

PLAUSIBLE_BPB = 0.93
"""About the best published on enwik8; real text below it suggests that a model has seen the text."""


def answer(analysis: Analysis) -> str:
    """The first paragraph: who beats the controls, by how much, and whether it means anything."""
    sentences = [_setting(analysis)]
    if analysis.controls.missing:
        names = formats.listed([f"`{name}`" for name in analysis.controls.missing])
        sentences.append(f"**No verdict:** no finished run of {names}, and without its controls a "
                         "comparison proves nothing.")  # fmt: skip
        return " ".join(sentences)
    sentences += _oversize(analysis)
    rows = [row for row in analysis.tables["summary"].itertuples() if row.role == "method"]
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(str(row.verdict), []).append(row)
    for word in ("significantly better", "better"):
        if word in groups:
            sentences.append(f"**{word.capitalize()} than both controls, {len(groups[word])} of "
                             f"{len(rows)} methods:** {_gaps(groups[word])}.")  # fmt: skip
    if rows and not {"significantly better", "better"} & groups.keys():
        sentences.append(f"**None of {formats.plural(len(rows), 'method')} is shown to be better "
                         "than both controls.**")  # fmt: skip
    if "no evidence" in groups:
        sentences.append(f"No evidence either way: {_names(groups['no evidence'])}"
                         f"{_scratch_alone(groups['no evidence'])}.")  # fmt: skip
    worse = groups.get("worse", []) + groups.get("significantly worse", [])
    if worse:
        sentences.append(f"Worse than {SCRATCH} or than the best fixed size: {_names(worse)}"
                         f"{_scratch_alone(worse)}.")  # fmt: skip
    if "insufficient seeds" in groups:
        sentences.append(f"Fewer than {MIN_SEEDS} seeds, so nothing is concluded: "
                         f"{_gaps(groups['insufficient seeds'])}.")  # fmt: skip
    return " ".join(sentences)


def tripwires(analysis: Analysis) -> list[str]:
    """Warnings that a reader must not miss."""
    runs = analysis.frames.runs
    absent = runs[runs.status.isin(ABSENT)]
    failed = runs[~runs.status.isin([*ABSENT, "done"])]
    repeated = runs[runs.epochs > 1]
    leaked = runs[(runs.test_bpb < PLAUSIBLE_BPB) & (runs.corpus != "synthetic")]
    found = []
    if len(absent):
        found.append(f"**Incomplete:** {len(absent)} of {formats.plural(len(runs), 'planned run')} "
                     f"without a result: {_runs(absent)}.")  # fmt: skip
    if len(failed):
        found.append(f"**Failed, counted as an infinite loss:** {_runs(failed)}.")
    if len(repeated):
        found.append(f"**Repeated data:** {code(repeated.method.unique())} read the training split up to "
                     f"{repeated.epochs.max():.2f} times.")  # fmt: skip
    if len(leaked):
        found.append(f"**Implausible, suspect leakage:** {_runs(leaked)} below {PLAUSIBLE_BPB} "
                     "bpb.")  # fmt: skip
    return found


def where_the_target_sits(analysis: Analysis) -> str:
    """Whether the target is larger than the best size for its budget."""
    sizes = analysis.tables["hull"]
    target = sizes[sizes.is_target]
    if not len(target) or not math.isfinite(target.test_bpb.iloc[0]):
        return "Where the target lies is not known: it was not trained from scratch."
    bpb, n_params = target.test_bpb.iloc[0], target.n_params.iloc[0]
    smaller = sizes[sizes.n_params < n_params]
    better = smaller[smaller.test_bpb < bpb].sort_values("test_bpb")
    if not len(smaller):
        return "Where the target lies is not known: no smaller fixed size was trained."
    if len(better):
        best = better.iloc[0]
        return (f"The target is **larger than compute-optimal** at C*: `{best.method}` has "
                f"{formats.count(best.n_params)} parameters and {formats.bpb(best.test_bpb)} bpb, "
                f"the target {formats.count(n_params)} and {formats.bpb(bpb)}.")  # fmt: skip
    return ("The target is **no larger than compute-optimal** at C*: none of "
            f"{formats.plural(len(smaller), 'smaller fixed size')} has a lower mean bpb."
            )  # fmt: skip


def code(names: Any) -> str:
    """`a`, `b` and `c`."""
    return formats.listed([f"`{name}`" for name in names])


def _setting(analysis: Analysis) -> str:
    frames, found = analysis.frames, analysis.controls
    config = next(run.config for run in frames.suite.runs if run.config)
    target = config["workload"]["target"]
    sizes = ", ".join(f"{key} {target[key]}" for key in ("d_model", "n_layer") if key in target)
    n_seeds = formats.plural(int(frames.runs.n_seeds.max()), "seed")
    text = f"At C* = {formats.flops(frames.budget_flops)} FLOPs with {n_seeds}"
    if SCRATCH not in found.fixed or not len(results(frames, SCRATCH)):
        return f"{text}, the target ({sizes}) has not been trained from scratch."
    scratch = mean_test_bpb(frames, SCRATCH)
    n_params = formats.count(frames.of(SCRATCH).n_params.max())
    text += (f", the target ({n_params} parameters: {sizes}) trained from scratch reaches "
             f"**{formats.bpb(scratch.value)} bpb** on the test split")  # fmt: skip
    if found.best_fixed is None or found.best_fixed == SCRATCH:
        return f"{text}, and no other fixed size does better on the validation split."
    best = mean_test_bpb(frames, found.best_fixed)
    n_params = formats.count(frames.of(found.best_fixed).n_params.max())
    return (f"{text}; the best fixed size, `{found.best_fixed}` ({n_params}), reaches "
            f"**{formats.bpb(best.value)}**.")  # fmt: skip


def _oversize(analysis: Analysis) -> list[str]:
    frames = analysis.frames
    if SCRATCH not in analysis.controls.fixed or not len(results(frames, SCRATCH)):
        return []
    n_params = float(frames.of(SCRATCH).n_params.max())
    beating = oversized(frames, analysis.controls, n_params)
    if not beating:
        return []
    name, comparison = beating[0]
    share = frames.of(name).n_params.max() / n_params
    gap = comparison.difference
    return [f"**The target is oversized at this budget:** `{name}`, with {share:.0%} of its "
            f"parameters and no growth, differs from {SCRATCH} by "
            f"{formats.difference(gap.value, gap.low, gap.high)}, so that beating {SCRATCH} does "
            "not show that growing helps."]  # fmt: skip


def _gaps(rows: list[Any]) -> str:
    parts = []
    for row in rows:
        gap = formats.difference(row.vs_scratch, row.vs_scratch_low, row.vs_scratch_high)
        fixed = formats.difference(
            row.vs_best_fixed, row.vs_best_fixed_low, row.vs_best_fixed_high
        )
        parts.append(f"`{row.method}` ({gap} to {SCRATCH}, {fixed} to {BEST_FIXED})")
    return formats.listed(parts)


def _names(rows: list[Any]) -> str:
    return code(row.method for row in rows)


def _scratch_alone(rows: list[Any]) -> str:
    names = [row.method for row in rows if row.vs_scratch_high < 0]
    return f" (better than {SCRATCH} alone: {code(names)})" if names else ""


def _runs(runs: Any) -> str:
    groups = runs.groupby(["method", "status"], sort=False).seed.agg(list)
    return formats.listed([
        f"`{method}` ({status}: seed{'s' * (len(seeds) > 1)} {formats.listed(list(map(str, seeds)))})"
        for (method, status), seeds in groups.items()
    ])  # fmt: skip
