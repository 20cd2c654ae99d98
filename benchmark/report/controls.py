"""What a method is held against, and why one may not be called better.

Controls can only take a verdict away. Fixed sizes and annealed rungs are needed for any verdict.
What no difference is taken to (a restart without growth, a source without training), and what
concerns one method alone (no run of its source size, a seed that a control lost), withholds only
the word "better": the other words could not become more favourable if it were there.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.records.events import ABSENT
from benchmark.report.formats import fraction, listed

if TYPE_CHECKING:  # `growbench plan` needs names from here, and does not wait for pandas
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
    hull, alone, ran = frames.methods("hull"), _never_grown(frames), frames.validation
    sizes = [m for m in alone if m in hull or m.startswith(SCRATCH_SMALL)]
    fixed = [m for m in frames.methods() if m == SCRATCH or m in sizes]
    rungs = frames.runs[(frames.runs.role == "rung") & ~frames.runs.status.isin(ABSENT)]
    annealed = list(rungs.budget_flops / frames.budget_flops)
    finals = {m: own for m, own in frames.settings.items() if own.get("trial") is None}
    return Controls(
        fixed=tuple(fixed),
        best_fixed=_best(frames, fixed),
        missing=tuple(missing(fixed, ran, frames.config["protocol"].get("rungs", ()), annealed)),
        tuned={own["tunes"]: method for method, own in finals.items() if own.get("tunes")},
    )


def missing(
    fixed: Collection[str], ran: Container[str], rungs: Iterable[float], annealed: Sequence[float]
) -> Iterator[str]:
    """Controls without which there is no verdict.

    Args:
        fixed: planned methods that keep one size for the whole of C*.
        ran: methods with a result.
        rungs: shares of C* at which scratch should be annealed.
        annealed: shares at which it was, beside the whole.
    """
    if SCRATCH not in fixed:
        yield SCRATCH
    if not any(name.startswith(SCRATCH_SMALL) for name in fixed):
        yield SCRATCH_SMALL
    yield from (name for name in fixed if name not in ran)
    for rung in rungs:
        if not any(abs(share / rung - 1) < SAME_BUDGET for share in (1.0, *annealed)):
            yield f"{SCRATCH} at {fraction(rung)}"


def held_against(frames: Frames, found: Controls, method: str) -> dict[str, str]:
    """Control behind each comparison of a method; those of its own by their names.

    A tuned method meets tuned controls: of a control's default and tuned runs the one with the
    lower mean validation bpb. A control that stands there already is left out.
    """
    named = [SCRATCH] if SCRATCH in found.fixed else []
    named += frames.settings.get(method, {}).get("controls", ())
    candidates = {name: _best(frames, _alternatives(frames, found, method, name)) for name in named}
    chosen: dict[str, str] = {}
    for against, best in (*candidates.items(), (BEST_FIXED, best_fixed(frames, found, method))):
        if best is not None and best != method and best not in chosen.values():
            chosen[against] = best
    return chosen


def best_fixed(frames: Frames, found: Controls, method: str) -> str | None:
    """The best fixed size that a method meets; for a tuned method, tuned ones included."""
    pool = [_alternatives(frames, found, method, name) for name in found.fixed]
    return _best(frames, [name for names in pool for name in names])


def _alternatives(frames: Frames, found: Controls, method: str, control: str) -> list[str]:
    """Runs of a control that a method may meet."""
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


def _doubts(frames: Frames, found: Controls, method: str, alone: list[Row | None]) -> list[str]:
    settings, against = frames.settings.get(method, {}), held_against(frames, found, method)
    reasons = _lost_seeds(frames, method, against.values())
    if settings.get("tunes"):
        reasons += [f"`{name}` was not tuned" for name in against.values()
                    if name not in found.tuned and name not in found.tuned.values()]  # fmt: skip
    source = frames.first_sizes.get(method)
    if source in alone:
        source = None
    target = frames.first_sizes.get(SCRATCH, {})
    return [*reasons, *lacking(settings.get("controls", ()), frames.validation, source, target)]


def lacking(
    named: Iterable[str],
    there: Container[str],
    source: Mapping[str, object] | None,
    target: Mapping[str, object],
) -> Iterator[str]:
    """What is not there for a method to be called better, in the words of report and plan.

    Args:
        named: controls of its own.
        there: methods with a result, or those that are planned.
        source: sizes of its source; None if a run of these alone is there.
        target: sizes of the target.
    """
    yield from (f"its control `{name}` has no result" for name in named if name not in there)
    absent = (name for name in REQUIRED if name not in there)
    yield from (f"there is no result of the control `{name}`" for name in absent)
    if source is not None:
        own = ", ".join(f"{key} {size}" for key, size in source.items() if target.get(key) != size)
        yield f"its source ({own}) was not trained alone at C*"


def _lost_seeds(frames: Frames, method: str, against: Iterable[str]) -> list[str]:
    ours = frames.of(method).status
    reasons = [f"seed {seed} is {status}" for seed, status in ours.items() if status in ABSENT]
    for control in against:
        theirs = frames.of(control).status.reindex(ours.index, fill_value="not planned")
        for status, lost in theirs[theirs != "done"].groupby(theirs, sort=False):
            seeds = listed([str(seed) for seed in lost.index])
            reasons.append(
                f"`{control}` has no score at seed{'s' * (len(lost) > 1)} {seeds} ({status})"
            )
    return reasons
