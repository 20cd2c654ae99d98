"""What tuning cost and what it gave: trials on validation text, never in another table."""

import math

import pandas as pd

from benchmark.report.controls import Controls
from benchmark.report.frames import Frames, Row, rows
from benchmark.report.tables import literal, status
from benchmark.report.verdicts import paired

_TRIALS = ["tunes", "trial", "method", "n", "settings", "val_bpb", "chosen", "budget_share",
           "flops", "status", "run_ids"]  # fmt: skip
_TUNING = ["method", "tuned_as", "trials", "n_failed", "budget_share", "seeds", "flops",
           "flops_share", "settings", "default_bpb", "tuned_bpb", "n", "difference", "low",
           "high"]  # fmt: skip


def trials(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every trial: mean validation bpb over the tuning seeds, infinite if one of them failed."""
    listed = [_trial(frames, found, name) for name in frames.methods("tuning")]
    table = pd.DataFrame(listed, columns=_TRIALS)
    return table.sort_values(["tunes", "trial"], kind="stable", ignore_index=True)


def tuning(frames: Frames, found: Controls, tried: pd.DataFrame) -> pd.DataFrame:
    """The ledger: what each tuned method spent on trials, and its score before and after."""
    by_method = tried.groupby("tunes", sort=False)
    ledger = [_tuned(frames, found, str(name), group) for name, group in by_method]
    return pd.DataFrame(ledger, columns=_TUNING)


def _trial(frames: Frames, found: Controls, name: str) -> Row:
    runs, scored = frames.of(name), frames.results(name)
    settings = frames.settings.get(name, {})
    tunes, chosen = str(settings.get("tunes", "")), settings.get("tuned", {})
    final = frames.settings.get(found.tuned.get(tunes, ""), {}).get("tuned")
    return {
        "tunes": tunes,
        "trial": settings.get("trial"),
        "method": name,
        "n": len(scored),
        "settings": _text(chosen),
        "val_bpb": scored.val_bpb.mean(),
        "chosen": bool(chosen) and chosen == final,
        "budget_share": runs.budget_flops.max() / frames.budget_flops,
        "flops": runs.flops.sum(),
        "status": status(runs),
        "run_ids": " ".join(runs.run_id),
    }


def _tuned(frames: Frames, found: Controls, name: str, group: pd.DataFrame) -> Row:
    after = found.tuned.get(name, "")
    seeds = {seed for row in rows(group) for seed in frames.of(row["method"]).seed}
    default, tuned = (frames.results(method) for method in (name, after))
    row: Row = {
        "method": name,
        "tuned_as": after,
        "trials": len(group),
        "n_failed": int((group.val_bpb == math.inf).sum()),
        "budget_share": group.budget_share.max(),
        "seeds": " ".join(map(str, sorted(seeds))),
        "flops": group.flops.sum(),
        "settings": _text(frames.settings.get(after, {}).get("tuned", {})),
        "default_bpb": default.test_bpb.mean(),
        "tuned_bpb": tuned.test_bpb.mean(),
    }
    if len(default) and len(tuned):
        gap = paired(frames, after, name).difference
        row |= {"n": gap.n, "difference": gap.value, "low": gap.low, "high": gap.high}
    if len(tuned):
        row["flops_share"] = row["flops"] / frames.of(after).flops.sum()
    return row


def _text(settings: Row) -> str:
    return ", ".join(f"{key} {literal(value)}" for key, value in settings.items())
