"""Which trial the final runs of a tuned method use, read from what the trials left behind."""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

from benchmark.plan import tuning
from benchmark.plan.run import Run
from benchmark.records.events import read_events
from benchmark.stage.checkpoint import StageStore


def chosen(runs: Sequence[Run], store: StageStore, failed: Collection[str] = ()) -> list[Run]:
    """The runs, those at open settings replaced where every trial of their method has ended.

    Args:
        runs: of a suite, trials included.
        store: holds the stages that are finished.
        failed: ids of runs that ended without a result.
    """
    trials: defaultdict[str, defaultdict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.method.trial is not None:
            trials[run.method.tunes][run.method.trial].append(run)
    best = {}
    for method, by_number in trials.items():
        scores = {
            number: [math.inf if run.id in failed else val_bpb(run, store) for run in group]
            for number, group in by_number.items()
        }
        known = {n: [x for x in group if x is not None] for n, group in scores.items()}
        if known == scores:
            best[method] = by_number[tuning.best(known)][0].method
    return [
        Run(run.suite, tuning.settled(run.method, best[run.method.tunes]), run.seed, run.data)
        if tuning.is_open(run.method) and run.method.tunes in best
        else run
        for run in runs
    ]


def val_bpb(run: Run, store: StageStore) -> float | None:
    """Held-out bits per byte on the whole validation split; infinite if the run diverged.

    None while the run has not ended. No other split is looked at.
    """
    done = store.finished(run)
    if done and done[-1][1].status != "done":
        return math.inf
    if not done or not done[-1][0].is_last:
        return None
    events = read_events(store.folder(done[-1][0].id) / "events.jsonl")
    finals = [event["bpb"] for event in events if event["kind"] == "final"
              and event["split"] == "val"]  # fmt: skip
    return float(finals[-1])
