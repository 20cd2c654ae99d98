"""The sentences of a report, generated from its numbers."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.factors import cells
from benchmark.report.frames import ABSENT, Row, rows
from benchmark.report.statistics import MIN_SEEDS
from benchmark.report.verdicts import mean_test_bpb, oversized

MOST_NAMED = 20
"""Methods that one sentence names; the table has the rest."""


def answer(analysis: Analysis) -> str:
    """The first paragraph: who beats the controls, by how much, and whether it means anything."""
    sentences = [_partial(analysis), _setting(analysis)]
    if missing := analysis.controls.missing:
        have = "has" if len(missing) == 1 else "have"
        sentences.append(
            f"**No verdict:** {code(missing)} {have} no finished run, and without its controls a "
            "comparison shows nothing."
        )
    else:
        sentences += [_oversize(analysis), *_verdicts(analysis), _crossed(analysis)]
    return " ".join(filter(None, sentences))


def _partial(analysis: Analysis) -> str:
    runs = analysis.frames.runs
    n_absent = int(runs.status.isin(ABSENT).sum())
    has = f"**Partial: {len(runs) - n_absent} of {formats.plural(len(runs), 'run')} have ended.**"
    return has if n_absent else ""


def where_the_target_sits(analysis: Analysis) -> str:
    """Whether the target is larger than the best size for its budget, as far as sizes show."""
    sizes = analysis.tables["hull"]
    target = sizes[sizes.is_target & sizes.test_bpb.map(math.isfinite)]
    if target.empty:
        return "Where the target lies is not known: it was not trained from scratch."
    n_params = target.n_params.iloc[0]
    smaller, larger = sizes[sizes.n_params < n_params], sizes[sizes.n_params > n_params]
    if smaller.empty:
        return "Where the target lies is not known: no smaller fixed size was trained."
    compared = analysis.tables["comparisons"]
    pairs = compared[compared.method.isin(smaller.method) & (compared.control == SCRATCH)]
    closest = min(rows(pairs), key=lambda row: float(row["difference"]))
    shown = formats.gap(closest)
    if _beating(analysis):
        return (
            f"The target is **larger than compute-optimal** at C*: `{closest['method']}`, smaller "
            f"and never grown, differs from it by {shown} on the test split."
        )
    above = (
        f"{formats.plural(len(larger), 'larger size')} trained as well"
        if len(larger)
        else "no larger size was trained, so it may be smaller than compute-optimal"
    )
    return (
        "The target is **no larger than compute-optimal** at C*, as far as these sizes show: of "
        f"{formats.plural(len(smaller), 'smaller fixed size')} none is better beyond the noise "
        f"between seeds. The closest, `{closest['method']}`, differs from it by {shown} on the "
        f"test split; {above}."
    )


def code(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    return formats.listed([f"`{name}`" for name in names])


def is_crossed(analysis: Analysis) -> bool:
    """Whether the suite is a crossed design."""
    return "main_effects" in analysis.tables


def what_matters(effects: pd.DataFrame, shares: pd.DataFrame) -> str:
    """Which factor moves the score most, by how much, and which do not show at all."""
    clear = effects[(effects.low > 0) | (effects.high < 0)]
    factors = shares[shares.kind == "factor"].sort_values("share", ascending=False, kind="stable")
    shown = [name for name in factors.term if (clear.factor == name).any()]
    sentences = []
    for name in shown:
        of_factor = clear[clear.factor == name]
        row = rows(of_factor.loc[[of_factor.effect.abs().idxmax()]])[0]
        share = formats.percent(float(factors.share[factors.term == name].iloc[0]))
        gap = formats.difference(row["effect"], row["low"], row["high"])
        sentences.append(
            f"`{name}` explains {share} of the variance within seeds; from `{row['reference']}` to "
            f"`{row['level']}`, test bpb changes by {gap}."
        )
    silent = [name for name in factors.term if name not in shown]
    if silent:
        sentences.append(f"No effect is shown of {code(silent)}.")
    return " ".join(sentences)


def controls_of_all(analysis: Analysis) -> str:
    """The two controls of every verdict, which may be one."""
    if analysis.controls.best_fixed == SCRATCH:
        return f"{SCRATCH}, which is also the best fixed size"
    return f"both {SCRATCH} and the best fixed size"


def n_seeds(analysis: Analysis) -> int:
    """Seeds planned for the runs that are compared."""
    runs = analysis.frames.runs
    return int(runs.n_seeds[runs.role != "tuning"].max())


def _setting(analysis: Analysis) -> str:
    frames, best = analysis.frames, analysis.controls.best_fixed
    target = next(run.config["workload"]["target"] for run in frames.suite.runs if run.config)
    sizes = ", ".join(f"{key} {target[key]}" for key in ("d_model", "n_layer") if key in target)
    seeds = formats.plural(n_seeds(analysis), "seed")
    start = f"At C* = {formats.flops(frames.budget_flops)} FLOPs with {seeds}, the target"
    if not _is_known(analysis):
        return f"{start} ({sizes}) has not been trained from scratch."
    text = (
        f"{start} ({_params(analysis, SCRATCH)} parameters: {sizes}) trained from scratch reaches "
        f"**{formats.bpb(mean_test_bpb(frames, SCRATCH).value)} bpb** on the test split"
    )
    if best is None or best == SCRATCH:
        n_others = len(analysis.controls.fixed) - 1
        return (
            f"{text}; none of {formats.plural(n_others, 'other fixed size')} does better on the "
            f"validation split, so {SCRATCH} is also the best fixed size."
        )
    bpb = formats.bpb(mean_test_bpb(frames, best).value)
    return f"{text}; the best fixed size, `{best}` ({_params(analysis, best)}), **{bpb}**."


def _oversize(analysis: Analysis) -> str:
    beating = _beating(analysis)
    if not beating:
        return ""
    row, frames = beating[0], analysis.frames
    share = formats.percent(
        frames.of(row["method"]).n_params.max() / frames.of(SCRATCH).n_params.max()
    )
    is_sure = row["verdict"] == "better"
    return (
        f"**The target {'is' if is_sure else 'seems'} oversized at this budget:** "
        f"`{row['method']}`, with {share} of its parameters and never grown, differs from it by "
        f"{formats.gap(row)} bpb. Anything that spends time at a smaller size then beats scratch, "
        "growing or not."
    )


def _beating(analysis: Analysis) -> list[Row]:
    """Smaller fixed sizes that beat the target."""
    sizes = analysis.tables["hull"]
    smaller = sizes.method[sizes.n_params < sizes[sizes.is_target].n_params.max()]
    return oversized(analysis.frames, analysis.tables["comparisons"], list(smaller))


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
        f"**{word.capitalize()} than {against}, {len(groups[word])} of {len(methods)} methods "
        f"(intervals not adjusted for their number):** {_gaps(groups[word])}."
        for word in ("significantly better", "better")
        if word in groups
    ]
    few = groups.get("insufficient seeds", [])
    if not better and len(few) < len(methods):
        n_methods = formats.plural(len(methods), "method")
        better = [f"**None of {n_methods} is shown to be better than {against}.**"]
    unsure, held = groups.get("no evidence", []), groups.get("no verdict", [])
    worse = groups.get("significantly worse", []) + groups.get("worse", [])
    others = {
        f"No evidence of a difference to at least one control: {_names(unsure)}.": unsure,
        f"Worse than at least one control: {_names(worse)}.": worse,
        f"Better by the numbers, but not called so: {_reasons(held)}.": held,
        f"Fewer than {MIN_SEEDS} seeds, so nothing is concluded: {_gaps(few)}.": few,
    }
    return better + [sentence for sentence, group in others.items() if group]


def _crossed(analysis: Analysis) -> str:
    """What the cells of a crossed design show together; the table judges each."""
    tables, crossed = analysis.tables, cells(analysis.frames)
    if not is_crossed(analysis):
        return ""
    together = what_matters(tables["main_effects"], tables["effect_shares"])
    return f"**What the {len(crossed)} cells of the crossed design show together:** {together}"


def _gaps(methods: Sequence[Row]) -> str:
    return _listed([f"`{row['method']}` ({_gaps_of(row)})" for row in methods])


def _listed(items: Sequence[str]) -> str:
    n_more = len(items) - MOST_NAMED
    return formats.listed([*items[:MOST_NAMED], *([f"{n_more} more"] if n_more > 0 else [])])


def _gaps_of(row: Row) -> str:
    is_one = row[f"vs_{SCRATCH}_control"] == row[f"vs_{BEST_FIXED}_control"]
    shown = (SCRATCH,) if is_one else (SCRATCH, BEST_FIXED)
    return ", ".join(f"{_gap(row, control)} to {control}" for control in shown)


def _gap(row: Row, control: str) -> str:
    name = f"vs_{control}"
    return formats.difference(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _reasons(methods: Sequence[Row]) -> str:
    return _listed([f"`{row['method']}` ({row['withheld']})" for row in methods])


def _names(methods: Sequence[Row]) -> str:
    alone = [row["method"] for row in methods if row["vs_scratch_high"] < 0]
    note = f" (better than {SCRATCH} alone: {code(alone)})" if alone else ""
    return _listed([f"`{row['method']}`" for row in methods]) + note


def _is_known(analysis: Analysis) -> bool:
    return SCRATCH in analysis.controls.fixed and SCRATCH in analysis.frames.validation


def _params(analysis: Analysis, method: str) -> str:
    return formats.count(analysis.frames.of(method).n_params.max())
