"""Runs a stage to its end from wherever it stands, on one device or several; safe to kill."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

from filelock import FileLock

from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import EventLog, atomic_write, atomic_write_text
from benchmark.stage.batches import Share
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, unobserved
from benchmark.stage.fitting import Fitting
from benchmark.stage.process import prepare_process
from benchmark.stage.ranks import Meeting, run_on_ranks
from benchmark.stage.recorder import last_that_fitted
from benchmark.stage.stage import Stage
from benchmark.stage.steps import Steps
from benchmark.stage.watch import corpus_closed
from benchmark.training.shortage import first_that_fits, micro_batches


def execute(spec: StageSpec, context: Context) -> StageResult:
    """Run a stage to its end, from wherever it stands; a finished one is only read.

    One that is finished but has lost its checkpoint is trained again for that alone: its records
    and its result stay as they are.

    Divergence is a result; any other exception is the caller's to record.

    Raises:
        RecordError: trained again, it comes to other losses than are recorded.
    """
    store = StageStore(context.cache)
    folder = store.folder(spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        recorded = store.result(spec.id)
        if recorded is not None and store.checkpoint(spec.id).is_file():
            return recorded
        atomic_write_text(folder / "spec.json", json.dumps(asdict(spec), indent=1))
        log = folder / "progress.jsonl"
        told = folder if recorded is not None else store.folder(spec.parent or "")
        before = log if log.is_file() else told / "events.jsonl"
        result = first_that_fits(
            micro_batches(
                spec.batch_size // spec.devices, last_that_fitted(before, "training", "n_micro", 1)
            ),
            lambda n_micro: _attempt(spec, context, recorded, n_micro),
        )
        if recorded is None:
            atomic_write(folder / "events.jsonl", log.read_bytes())
            store.write_result(spec.id, result)
        for name in ("progress.safetensors", "progress.jsonl"):
            (folder / name).unlink(missing_ok=True)
    return recorded or result


def _attempt(
    spec: StageSpec, context: Context, recorded: StageResult | None, n_micro: int
) -> StageResult:
    """Go on from where the stage stands, on as many devices as it is to have."""
    if spec.devices == 1:
        return _lead(spec, context, recorded, Share(n_micro=n_micro))
    args = (spec, replace(context, on_tick=unobserved), recorded, n_micro)
    result = run_on_ranks(spec.devices, spec.device, _on_rank, args, context.on_tick)
    assert isinstance(result, StageResult)
    return result


def _on_rank(
    meeting: Meeting,
    say: Callable[[object], None],
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    n_micro: int,
) -> StageResult | None:
    """What one of several processes does for a stage: all train, rank 0 does everything else."""
    prepare_process(threads=1)
    share = Share(rank=meeting.rank, n_ranks=meeting.n_ranks, n_micro=n_micro)
    with corpus_closed(context.corpus, context.cache):
        if share.rank == 0:
            return _lead(spec, replace(context, on_tick=say), recorded, share, meeting)
        _follow(spec, context, share, meeting)
    return None


def _lead(
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    share: Share,
    meeting: Meeting | None = None,
) -> StageResult:
    with EventLog(StageStore(context.cache).folder(spec.id) / "progress.jsonl") as log:
        return Stage(spec, context, log, share, meeting).run(recorded)


def _follow(spec: StageSpec, context: Context, share: Share, meeting: Meeting) -> None:
    """Train beside rank 0, from the state that it has saved."""
    meeting.await_first()
    fitting = Fitting(spec, context, share)
    state = fitting.saved_state()
    meeting.join()
    fitting.fit(state, Steps(spec, state, share))
