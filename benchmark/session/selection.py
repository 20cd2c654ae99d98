"""Which trial the final runs of a tuned method use, read from what the trials left behind."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmark.plan import tuning
from benchmark.plan.run import Run
from benchmark.records.events import Event, read_events
from benchmark.stage.checkpoint import StageStore


def settle(runs: Sequence[Run], score: Callable[[Run], float | None]) -> list[Run]:
    """The runs, those at open settings replaced where every trial of their method has ended.

    Args:
        runs: of a suite, trials included.
        score: validation loss of a trial; None while it has not ended.
    """
    trials: defaultdict[str, defaultdict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.method.trial is not None:
            trials[run.method.tunes][run.method.trial].append(run)
    best = {}
    for method, by_number in trials.items():
        scores = {number: [score(run) for run in group] for number, group in by_number.items()}
        known = {n: [x for x in group if x is not None] for n, group in scores.items()}
        if known == scores:
            best[method] = by_number[tuning.best(known)][0].method
    return [
        Run(
            run.suite, tuning.at_settings_of(run.method, best[run.method.tunes]), run.seed, run.data
        )
        if tuning.is_open(run.method) and run.method.tunes in best
        else run
        for run in runs
    ]


def val_bpb(run: Run, store: StageStore) -> float | None:
    """Held-out bits per byte on the whole validation split; infinite if the run diverged.

    None while the run has not ended.
    """
    done = store.finished(run)
    if done and done[-1][1].status != "done":
        return math.inf
    if not done or not done[-1][0].is_last:
        return None
    return scored(read_events(store.folder(done[-1][0].id) / "events.jsonl"))


def scored(events: Iterable[Event]) -> float:
    """Bits per byte of the whole validation split; infinite if there is no such score.

    No other split is looked at.
    """
    finals = [e["bpb"] for e in events if e["kind"] == "final" and e["split"] == "val"]
    return float(finals[-1]) if finals else math.inf
