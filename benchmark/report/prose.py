"""The sentences of a report, generated from its numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from benchmark.records.events import ABSENT
from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.factors import cells
from benchmark.report.frames import Row, rows
from benchmark.report.statistics import MIN_SEEDS, deviation, mean_interval

MOST_NAMED = 5
"""Methods that one sentence names; the table has the rest."""


def answer(analysis: Analysis) -> str:
    """The first paragraph: which method is best, by how much, how sure, at what scale, and so on.

    One paragraph, however many methods and seeds there are.
    """
    if missing := analysis.controls.missing:
        have = "has" if len(missing) == 1 else "have"
        verdicts = [
            f"**No verdict:** {formats.code(*missing)} {have} no finished run, and without its "
            "controls a comparison shows nothing."
        ]
    else:
        verdicts = [*_verdicts(analysis), _crossed(analysis), _oversize(analysis)]
    return " ".join(
        filter(None, [_partial(analysis), *verdicts, _setting(analysis), _limits(analysis)])
    )


def where_the_target_sits(analysis: Analysis) -> str:
    """Whether the target is larger than the best size for its budget, as far as sizes show."""
    sizes, smaller = fixed_sizes(analysis), _smaller_to_scratch(analysis)
    target = sizes[sizes.method == SCRATCH]
    if not smaller or not math.isfinite(target.test_bpb.max()):
        return "Where the target lies is not known: it needs scratch and a smaller fixed size."
    n_larger = int((sizes.n_params > target.n_params.max()).sum())
    closest = min(smaller, key=lambda row: float(row["difference"]))
    return _oversize(analysis) or (
        "The target is **no larger than compute-optimal** at C*, as far as these sizes show: of "
        f"{formats.plural(len(smaller), 'smaller fixed size')} none is better beyond the noise "
        f"between seeds. The closest, `{closest['method']}`, differs from it by "
        f"{formats.gap(closest)} on the test split; "
        + (f"{formats.plural(n_larger, 'larger size')} trained as well." if n_larger else
           "no larger size was trained, so it may be smaller than compute-optimal.")
    )  # fmt: skip


def fixed_sizes(analysis: Analysis) -> pd.DataFrame:
    """Rows of the summary of every size that never grew, smallest first."""
    summary = analysis.tables["summary"]
    fixed = summary[summary.method.isin(analysis.controls.fixed)]
    return fixed.sort_values("n_params", kind="stable", ignore_index=True)


def listed(items: Iterable[str]) -> str:
    """a, b, c and 2 more."""
    named = list(items)
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return formats.listed([*named[:MOST_NAMED], *more])


def what_matters(effects: pd.DataFrame, shares: pd.DataFrame) -> str:
    """Which factor moves the score most, by how much, and which do not show at all."""
    clear = effects[(effects.effect_low > 0) | (effects.effect_high < 0)]
    factors = shares[shares.kind == "factor"].sort_values("share", ascending=False, kind="stable")
    shown = [name for name in factors.term if (clear.factor == name).any()]
    sentences = []
    for name in shown:
        of_factor = clear[clear.factor == name]
        row = rows(of_factor.loc[[of_factor.effect.abs().idxmax()]])[0]
        share = formats.percent(float(factors.share[factors.term == name].iloc[0]))
        sentences.append(
            f"`{name}` explains {share} of the variance within seeds; from `{row['reference']}` to "
            f"`{row['level']}`, test bpb changes by {formats.gap(row, 'effect')}."
        )
    silent = [name for name in factors.term if name not in shown]
    return " ".join(
        [*sentences, *([f"No effect is shown of {formats.code(*silent)}."] if silent else [])]
    )


def controls_of_all(analysis: Analysis) -> str:
    """The two controls of every verdict, which may be one."""
    if analysis.controls.best_fixed == SCRATCH:
        return f"{SCRATCH}, which is also the best fixed size"
    return f"both {SCRATCH} and the best fixed size"


def n_seeds(analysis: Analysis) -> int:
    """Seeds planned for the runs that are compared."""
    runs = analysis.frames.runs
    return int(runs.n_seeds[runs.role != "tuning"].max())


def _partial(analysis: Analysis) -> str:
    runs = analysis.frames.runs
    n_absent = int(runs.status.isin(ABSENT).sum())
    has = f"**Partial: {len(runs) - n_absent} of {formats.plural(len(runs), 'run')} have ended.**"
    return has if n_absent else ""


def _setting(analysis: Analysis) -> str:
    frames = analysis.frames
    target = frames.config["workload"]["target"]
    sizes = ", ".join(f"{key} {target[key]}" for key in ("d_model", "n_layer") if key in target)
    trained = frames.runs.dropna(subset="train_bytes").iloc[0]
    scale = (
        f"C* = {formats.flops(frames.budget_flops)} FLOPs, {trained.train_bytes / 1e6:.1f} MB of "
        f"{trained.corpus}, {formats.plural(n_seeds(analysis), 'seed')}"
    )
    if SCRATCH not in analysis.controls.fixed or SCRATCH not in frames.validation:
        return f"**Scale:** {scale}; the target ({sizes}) has not been trained from scratch."
    bpb = _mean(analysis, SCRATCH)
    text = (
        f"**Scale:** {_params(analysis, SCRATCH)} parameters ({sizes}), {scale}; trained from "
        f"scratch the target reaches **{bpb} bpb** on the test split"
    )
    best = analysis.controls.best_fixed
    if best is None or best == SCRATCH:
        return f"{text}."
    reached = _mean(analysis, best)
    return f"{text}, the best fixed size, `{best}` ({_params(analysis, best)}), **{reached}**."


def _limits(analysis: Analysis) -> str:
    """How small a difference would have been seen, and what does not follow."""
    table = analysis.tables["comparisons"]
    finds = table[(table.role == "method") & (table.control == SCRATCH)].detectable.median()
    sure = (
        f"**How sure:** a true difference of {formats.bpb(finds)} bpb is found four times in five; "
        f"intervals are 95 %, not adjusted for {formats.plural(len(analysis.words), 'method')}. "
        if math.isfinite(finds)
        else ""
    )
    return (
        f"{sure}**Do not conclude** anything about larger models, other text or budgets, nor from "
        "ranks between methods that grow other sizes or at other times."
    )


def _oversize(analysis: Analysis) -> str:
    """That a smaller fixed size beats the target, if one does.

    Its interval lies below zero or, lacking that, its mean is lower by more than the standard
    deviation of scratch over seeds.
    """
    frames, pairs = analysis.frames, _smaller_to_scratch(analysis)
    noise = deviation(list(frames.results(SCRATCH).test_bpb))
    noise = noise if math.isfinite(noise) else 0.0
    beating = [row for row in pairs if row["verdict"] == "better" or row["difference"] < -noise]
    if not beating:
        return ""
    row = min(beating, key=lambda row: float(row["difference"]))
    share = frames.of(row["method"]).n_params.max() / frames.of(SCRATCH).n_params.max()
    return (
        f"**The target {'is' if row['verdict'] == 'better' else 'seems'} oversized at this "
        f"budget:** `{row['method']}`, with {formats.percent(share)} of its parameters and never "
        f"grown, differs from it by {formats.gap(row)} bpb. Anything that spends time at a smaller "
        "size then beats scratch, growing or not."
    )


def _smaller_to_scratch(analysis: Analysis) -> list[Row]:
    """Comparisons to scratch of the fixed sizes that are smaller than the target."""
    sizes, table = fixed_sizes(analysis), analysis.tables["comparisons"]
    smaller = sizes.method[sizes.n_params < sizes[sizes.method == SCRATCH].n_params.max()]
    return rows(table[table.method.isin(list(smaller)) & (table.control == SCRATCH)])


def _verdicts(analysis: Analysis) -> list[str]:
    summary, crossed = rows(analysis.tables["summary"]), cells(analysis.frames)
    methods = [row for row in summary if row["role"] == "method" and row["method"] not in crossed]
    if not methods:
        return []
    against = controls_of_all(analysis)
    groups: dict[str, list[Row]] = {}
    for row in methods:
        groups.setdefault(row["verdict"], []).append(row)
    better = [
        f"**{word.capitalize()} than {against}, {len(groups[word])} of {len(methods)} methods:** "
        f"{_gaps(groups[word])}."
        for word in ("significantly better", "better")
        if word in groups
    ]
    few = groups.get("insufficient seeds", [])
    if not better and len(few) < len(methods):
        n_methods = formats.plural(len(methods), "method")
        best = min(methods, key=lambda row: float(row["test_bpb"]))
        better = [
            f"**None of {n_methods} is shown to be better than {against}.** The lowest is "
            f"{_gaps([best])}: {best['verdict']}."
        ]
    worse = groups.get("significantly worse", []) + groups.get("worse", [])
    alone = [row["method"] for row in methods if row["vs_scratch_high"] < 0 and row in worse]
    unsure, held = groups.get("no evidence", []), groups.get("no verdict", [])
    reasons = {row["method"]: row["withheld"] for row in held}
    others = {
        f"{len(unsure)} of {len(methods)} show no evidence of a difference to a control.": unsure,
        f"{len(worse)} of {len(methods)} are worse than a control.": worse,
        f"Better than {SCRATCH} alone: {listed(f'`{name}`' for name in alone)}.": alone,
        f"Better by the numbers, but not called so: {_noted(reasons)}.": held,
        f"Fewer than {MIN_SEEDS} seeds, so nothing is concluded: {_gaps(few)}.": few,
    }
    return better + [sentence for sentence, group in others.items() if group]


def _crossed(analysis: Analysis) -> str:
    """What the cells of a crossed design show together; the table judges each."""
    if "main_effects" not in analysis.tables:
        return ""
    together = what_matters(analysis.tables["main_effects"], analysis.tables["effect_shares"])
    n_cells = len(cells(analysis.frames))
    return f"**What the {n_cells} cells of the crossed design show together:** {together}"


def _gaps(methods: Sequence[Row]) -> str:
    """Methods with their differences to both controls, which may be one; the best first."""
    found = {}
    for row in sorted(methods, key=lambda row: float(row["test_bpb"])):
        is_one = row[f"vs_{SCRATCH}_control"] == row[f"vs_{BEST_FIXED}_control"]
        shown = (SCRATCH,) if is_one else (SCRATCH, BEST_FIXED)
        found[row["method"]] = ", ".join(f"{formats.gap(row, f'vs_{c}')} to {c}" for c in shown)
    return _noted(found)


def _noted(notes: Mapping[str, str]) -> str:
    """Methods, each with a note in brackets."""
    return listed(f"`{method}` ({note})" for method, note in notes.items())


def _params(analysis: Analysis, method: str) -> str:
    return formats.count(analysis.frames.of(method).n_params.max())


def _mean(analysis: Analysis, method: str) -> str:
    return formats.bpb(mean_interval(list(analysis.frames.results(method).test_bpb)).value)
