"""What a method is held against, and why one may not be called better.

Controls can only take a verdict away. Fixed sizes and annealed rungs are needed for any verdict.
What no difference is taken to (a restart without growth, a source without training), and what
concerns one method alone (no run of its source size, a seed that a control lost), withholds only
the word "better": the other words could not become more favourable if it were there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.records.events import ABSENT
from benchmark.report.formats import fraction, listed

if TYPE_CHECKING:  # `growbench plan` needs names from here, and does not wait for pandas
    import pandas as pd

    from benchmark.report.frames import Frames, Row

SCRATCH = "scratch"
SCRATCH_SMALL = "scratch_small"
BEST_FIXED = "best_fixed"
RESTART_ONLY = "restart_only"
REQUIRED = (RESTART_ONLY, "untrained_source")
"""Controls beside the fixed sizes without which no method is called better."""

SAME_BUDGET = 0.01
"""Relative difference within which two budgets are one."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What every method is held against."""

    fixed: tuple[str, ...]
    """The target and other sizes of its architecture, each trained for all of C* without growing,
    in display order."""

    best_fixed: str | None
    """The one with the lowest mean bpb on the validation split."""

    missing: tuple[str, ...]
    """Controls without a single result; while there are any, there is no verdict."""

    tuned: dict[str, str]
    """Tuned run of each method that has one."""


def controls(frames: Frames) -> Controls:
    """The controls of a suite; rungs are none, as they spend less than C*."""
    hull = frames.methods("hull")
    fixed = [m for m in _never_grown(frames) if m in hull or m.startswith(SCRATCH_SMALL)]
    fixed = [m for m in frames.methods() if m in fixed or m == SCRATCH]
    ran = [method for method in fixed if method in frames.validation]
    missing = [name for name in (SCRATCH,) if name not in fixed]
    missing += [] if any(m.startswith(SCRATCH_SMALL) for m in fixed) else [SCRATCH_SMALL]
    missing += [method for method in fixed if method not in ran]
    missing += [f"{SCRATCH} at {fraction(u)}" for u in _rungs_without_results(frames)]
    tuned = {str(row.tunes): str(row.method) for row in _finals(frames).itertuples() if row.tunes}
    return Controls(
        fixed=tuple(fixed),
        best_fixed=min(ran, key=frames.validation.__getitem__, default=None),
        missing=tuple(missing),
        tuned=tuned,
    )


def held_against(frames: Frames, found: Controls, method: str) -> dict[str, str]:
    """Control behind each comparison of a method; those of its own by their names.

    A tuned method meets tuned controls: of a control's default and tuned runs the one with the
    lower mean validation bpb. A control that stands there already is left out.
    """
    settings = frames.settings.get(method, {})
    scratch = SCRATCH if SCRATCH in found.fixed else None
    named = {SCRATCH: scratch} | {name: name for name in settings.get("controls", ())}
    chosen: dict[str, str] = {}
    for against, control in named.items():
        best = _best(frames, _alternatives(frames, found, method, control))
        if best is not None and best != method and best not in chosen.values():
            chosen[against] = best
    fixed = best_fixed(frames, found, method)
    if fixed is not None and fixed != method and fixed not in chosen.values():
        chosen[BEST_FIXED] = fixed
    return chosen


def best_fixed(frames: Frames, found: Controls, method: str) -> str | None:
    """The best fixed size that a method meets; for a tuned method, tuned ones included."""
    if not frames.settings.get(method, {}).get("tunes"):
        return found.best_fixed
    pool = [_alternatives(frames, found, method, name) for name in found.fixed]
    return _best(frames, [name for names in pool for name in names])


def _alternatives(frames: Frames, found: Controls, method: str, control: str | None) -> list[str]:
    """Runs of a control that a method may meet."""
    if control is None:
        return []
    if not frames.settings.get(method, {}).get("tunes"):
        return [control]
    default = frames.settings.get(control, {}).get("tunes") or control
    return [default, found.tuned.get(default, default)]


def _best(frames: Frames, names: Iterable[str]) -> str | None:
    ran = [name for name in names if name in frames.validation]
    return min(ran, key=frames.validation.__getitem__, default=None)


def withheld(frames: Frames, found: Controls) -> dict[str, list[str]]:
    """Methods that may not be called better, whatever their numbers are, and why."""
    alone = [m for m in _never_grown(frames) if m in frames.validation]
    sizes = [frames.first_sizes.get(m) for m in alone]
    reasons = {method: _doubts(frames, found, method, sizes) for method in frames.methods("method")}
    return {method: why for method, why in reasons.items() if why}


def _never_grown(frames: Frames) -> list[str]:
    """Controls and hull sizes that keep one size for the whole of C*."""
    grown = set(frames.growths.method)
    small = [m for m in frames.methods("control", "hull") if m not in (*REQUIRED, *grown)]
    return [m for m in small if not frames.settings.get(m, {}).get("tunes")]


def _rungs_without_results(frames: Frames) -> list[float]:
    runs = frames.runs[(frames.runs.role == "rung") & ~frames.runs.status.isin(ABSENT)]
    trained = runs.budget_flops / frames.budget_flops
    asked = [u for u in frames.protocol.get("rungs", ()) if u < 1 - SAME_BUDGET]
    return [u for u in asked if not ((trained / u - 1).abs() < SAME_BUDGET).any()]


def _doubts(frames: Frames, found: Controls, method: str, alone: list[Row | None]) -> list[str]:
    settings, against = frames.settings.get(method, {}), held_against(frames, found, method)
    reasons = _lost_seeds(frames, method, against.values())
    if settings.get("tunes"):
        reasons += [f"`{name}` was not tuned" for name in against.values()
                    if name not in found.tuned and name not in found.tuned.values()]  # fmt: skip
    named = settings.get("controls", ())
    absent = [name for name in named if name not in frames.validation]
    reasons += [f"its control `{name}` has no result" for name in absent]
    absent = [name for name in REQUIRED if name not in frames.validation]
    reasons += [f"there is no result of the control `{name}`" for name in absent]
    source = frames.first_sizes.get(method)
    if source is not None and source not in alone:
        reasons.append(f"its source ({_difference(frames, source)}) was not trained alone at C*")
    return reasons


def _finals(frames: Frames) -> pd.DataFrame:
    """Runs at the whole budget of methods that were tuned."""
    return frames.runs[(frames.runs.role != "tuning") & frames.runs.trial.isna()]


def _lost_seeds(frames: Frames, method: str, against: Iterable[str]) -> list[str]:
    ours = {seed: row["status"] for seed, row in frames.rows_of(method).items()}
    reasons = [f"seed {seed} is {status}" for seed, status in ours.items() if status in ABSENT]
    for control in against:
        theirs = {seed: row["status"] for seed, row in frames.rows_of(control).items()}
        lost: dict[str, list[str]] = {}
        for seed in ours:
            if (status := theirs.get(seed, "not planned")) != "done":
                lost.setdefault(status, []).append(str(seed))
        reasons += [
            f"`{control}` has no score at seed{'s' * (len(seeds) > 1)} {listed(seeds)} ({status})"
            for status, seeds in lost.items()
        ]
    return reasons


def _difference(frames: Frames, sizes: Row) -> str:
    target = frames.first_sizes.get(SCRATCH, {})
    return ", ".join(f"{key} {value}" for key, value in sizes.items() if target.get(key) != value)
