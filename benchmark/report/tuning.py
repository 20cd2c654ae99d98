"""What tuning cost and what it gave: trials on validation text, never in another table."""

import math

import pandas as pd

from benchmark.report.controls import Controls
from benchmark.report.frames import Frames, Row, rows
from benchmark.report.tables import literal, status
from benchmark.report.verdicts import paired


def trials(frames: Frames, found: Controls) -> pd.DataFrame:
    """Every trial: mean validation bpb over the tuning seeds, infinite if one of them failed."""
    table = pd.DataFrame([_trial(frames, found, name) for name in frames.methods("tuning")])
    return table.sort_values(["tunes", "trial"], kind="stable", ignore_index=True)


def tuning(frames: Frames, found: Controls, tried: pd.DataFrame) -> pd.DataFrame:
    """The ledger: what each tuned method spent on trials, and its score before and after."""
    by_method = tried.groupby("tunes", sort=False)
    return pd.DataFrame([_tuned(frames, found, str(name), group) for name, group in by_method])


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
    default, tuned = (frames.results(method).test_bpb.mean() for method in (name, after))
    gap, flops = paired(frames, after, name).difference, group.flops.sum()
    return {
        "method": name,
        "tuned_as": after,
        "trials": len(group),
        "n_failed": int((group.val_bpb == math.inf).sum()),
        "budget_share": group.budget_share.max(),
        "seeds": " ".join(map(str, sorted(seeds))),
        "flops": flops,
        "flops_share": flops / (frames.of(after).flops.sum() or math.nan),
        "settings": _text(frames.settings.get(after, {}).get("tuned", {})),
        "default_bpb": default,
        "tuned_bpb": tuned,
        "n": gap.n,
        "difference": gap.value,
        "low": gap.low,
        "high": gap.high,
    }


def _text(settings: Row) -> str:
    return ", ".join(f"{key} {literal(value)}" for key, value in settings.items())
