"""What a reader must not miss: failures, leaks, repeats, and changes of the plan."""

import pandas as pd

from benchmark.records.card import own_schedule
from benchmark.records.events import ABSENT
from benchmark.records.lock import TESTS
from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import held_against
from benchmark.report.frames import rows
from benchmark.report.leaks import PLAUSIBLE_BPB, shares

COPIED_SHARE = 0.01
"""Share of such windows above which a held-out split is called leaked."""


def tripwires(analysis: Analysis) -> list[str]:
    """Warnings, each naming the methods and seeds it is about."""
    runs = analysis.frames.runs
    absent = runs[runs.status.isin(ABSENT)]
    failed = runs[~runs.status.isin([*ABSENT, "done"])]
    repeated = runs[runs.epochs > 1]
    leaked = runs[(runs.test_bpb < PLAUSIBLE_BPB) & (runs.corpus != "synthetic")]
    methods, found = analysis.frames.methods("method"), analysis.controls
    used = {c for m in methods for c in held_against(analysis.frames, found, m).values()}
    controls = failed[failed.method.isin(used)]
    planned = formats.plural(len(runs), "planned run")
    warnings = {
        f"**Incomplete, {len(absent)} of {planned} without a result:** {_runs(absent)}.": absent,
        f"**Failed, counted as an infinite loss:** {_runs(failed)}.": failed,
        f"**Controls that failed:** {_runs(controls)}. Pairs with these seeds are left out, which "
        "may favour a method: none that lost one is called better.": controls,
        f"**Repeated data, up to {repeated.epochs.max():.2f} epochs:** "
        f"{formats.code(*repeated.method.unique())}.": repeated,
        f"**Implausible, suspect leakage: below {PLAUSIBLE_BPB} bpb:** {_runs(leaked)}.": leaked,
    }
    others = (_shared, _dropped, _copied, _tuned, _own, _registered)
    return [
        *(warning for warning, affected in warnings.items() if len(affected)),
        *(warning for found in others for warning in found(analysis)),
    ]


def _shared(analysis: Analysis) -> list[str]:
    """Runs whose stages had no GPU of their own."""
    runs = analysis.frames.suite.runs
    most = max((made.get("stages_per_gpu", 1) for r in runs for made in r.environments), default=1)
    text = "**Shared GPUs:** seconds are those of stages that ran side by side, up to"
    return [f"{text} {most} on each GPU."] if most > 1 else []


def _dropped(analysis: Analysis) -> list[str]:
    """Seeds that every run should have had, and some method has not."""
    frames = analysis.frames
    gone = [
        {"method": method, "status": "not planned", "seed": seed}
        for method in frames.methods("method", "control", "hull", "rung")
        for seed in frames.config["protocol"].get("seeds", ())
        if seed not in frames.of(method).index
    ]
    listed = _runs(pd.DataFrame(gone))
    return [f"**Dropped seeds, configured but not in the plan:** {listed}."] if gone else []


def _copied(analysis: Analysis) -> list[str]:
    """Held-out splits that stand in the training text."""
    stands = shares(analysis.overlap).items()
    copied = [f"{formats.percent(x)} of {split}" for split, x in stands if x > COPIED_SHARE]
    text = f"{formats.listed(copied)}, in windows of {analysis.overlap.get('window')} bytes"
    return [f"**Held-out text stands in the training text:** {text}."] if copied else []


def _tuned(analysis: Analysis) -> list[str]:
    """Methods that were given other chances than the rest."""
    ledger = analysis.tables.get("tuning")
    if ledger is None:
        return []
    chances = list(zip(ledger.trials, ledger.budget_share, ledger.seeds, strict=True))
    usual = max(chances, key=chances.count)
    unequal = [m for m, chance in zip(ledger.method, chances, strict=True) if chance != usual]
    return [f"**Unequal tuning:** {formats.code(*unequal)}."] if unequal else []


def _own(analysis: Analysis) -> list[str]:
    """Methods that have not the schedule, or the text, of the others."""
    methods = {run.method: run.config.get("method", {}) for run in analysis.frames.suite.runs}
    finals = {name: method for name, method in methods.items() if method.get("trial") is None}
    own = {name: found for name, method in finals.items() if (found := own_schedule(method))}
    return [f"**Own schedule:** `{name}`: {found}." for name, found in own.items()]


def _registered(analysis: Analysis) -> list[str]:
    """What was not planned before it was seen."""
    if (lock := analysis.lock) is None:
        return ["**Not pre-registered:** no plan was locked before the first run."]
    found = []
    if lock.results:
        when = f"on {lock.date[:10]}, when {formats.plural(lock.results, 'run')} had results"
        found.append(f"**Locked late:** the plan was written {when}.")
    planned = [test for test in lock.current["tests"] if test not in TESTS]
    if planned:
        found.append(
            f'**Another test than planned:** the plan says "{formats.listed(planned)}"; the words '
            "here follow the moderated t, which came later. The ordinary interval stands beside "
            "each difference below."
        )
    if changed := lock.marks:
        listed = formats.listed([f"`{method}` ({mark})" for method, mark in changed.items()])
        found.append(f"**Changed after results were seen:** {listed}.")
    return found


def _runs(runs: pd.DataFrame) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows(runs):
        groups.setdefault((row["method"], row["status"]), []).append(str(row["seed"]))
    return formats.listed([
        f"`{method}` ({status}: seed{'s' * (len(seeds) > 1)} {formats.listed(seeds)})"
        for (method, status), seeds in groups.items()
    ])  # fmt: skip
