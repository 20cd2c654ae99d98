"""The sections of a report on choices: which factor matters, and what tuning gave."""

import pandas as pd

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import grouped, rows
from benchmark.report.prose import is_crossed, n_seeds, what_matters

EFFECTS = ("main_effects", "Main effects, and the variance that factors explain")


def factors(analysis: Analysis) -> list[str]:
    """Main effects of a crossed design; nothing where there is none."""
    if not is_crossed(analysis):
        return []
    effects, parts = (analysis.tables[name] for name in ("main_effects", "effect_shares"))
    shown = [
        {
            "factor": row["factor"],
            "level": row["level"] + " (reference)" * (row["level"] == row["reference"]),
            "runs": str(row["n"]),
            "failed": str(row["n_excluded"]),
            "effect on test bpb": formats.difference(row["effect"], row["low"], row["high"]),
        }
        for row in rows(effects)
    ]
    explained = [
        {
            "term": row["term"],
            "kind": row["kind"],
            "degrees of freedom": str(row["degrees"]),
            "share of variance": formats.percent(row["share"]),
        }
        for row in rows(parts)
    ]
    return [
        what_matters(effects, parts),
        formats.figure(*EFFECTS),
        "Least squares on test bpb with the seed as a block, 95 % intervals: each level against "
        "the factor's reference, the other factors held alike. A failed run has no finite score: "
        "it is left out here and counted, so a level at which many fail looks better than it is. "
        "An operator brings along what it grows, and so the source that it starts from: its effect "
        "is that of all three. Cells with the same source and seed share its training; with "
        f"{formats.plural(n_seeds(analysis), 'seed')} the intervals are for these seeds.",
        formats.table(shown),
        "Shares are of the variance within seeds, each what no other term explains; an interaction "
        "is what a pair of factors explains beyond all main effects.",
        formats.table(explained),
    ]


def tuning(analysis: Analysis) -> list[str]:
    """Default and tuned scores, what tuning cost, and what fewer trials would have given."""
    ledger, tried = (analysis.tables.get(name) for name in ("tuning", "tuning_trials"))
    if ledger is None or tried is None:
        return []
    shown = [
        {
            "method": f"`{row['method']}`",
            "default, test bpb": formats.bpb(row["default_bpb"]),
            "tuned, test bpb": formats.bpb(row["tuned_bpb"]),
            "tuned minus default": formats.gap(row),
            "chosen": row["settings"] or formats.DASH,
            "trials": str(row["trials"]) + f" ({row['n_failed']} failed)" * (row["n_failed"] > 0),
            "C* per trial": formats.percent(row["budget_share"]),
            "tuning seeds": row["seeds"],
            "tuning FLOPs": formats.flops(row["flops"]),
            "of its final runs": formats.percent(row["flops_share"]),
        }
        for row in rows(ledger)
    ]
    best = analysis.tables["tuning_best_of"]
    curve = [
        {"method": f"`{name}`"}
        | {f"best of {row['k']}": formats.bpb(row["expected_val_bpb"]) for row in group}
        for name, group in grouped(best).items()
    ]
    return [
        "Trials are scored on the validation split, with seeds that no final run has; trial 0 is "
        "the default. Their FLOPs are listed here, in no budget; they are in no other table.",
        formats.table(shown),
        "Expected validation bpb of the best of k trials, had only k been run (exact, over all "
        "choices of k).",
        formats.figure("tuning_best_of", "Expected best of k trials"),
        formats.table(curve),
        formats.table(_trials(tried), alignment="left"),
    ]


def _trials(tried: pd.DataFrame) -> list[dict[str, str]]:
    """Every trial, as cells."""
    return [
        {
            "method": f"`{row['tunes']}`",
            "trial": formats.number(row["trial"]) + " (chosen)" * row["chosen"],
            "settings": row["settings"],
            "validation bpb": formats.bpb(row["val_bpb"]),
            "FLOPs": formats.flops(row["flops"]),
            "status": row["status"],
            "runs": row["run_ids"],
        }
        for row in rows(tried)
    ]
