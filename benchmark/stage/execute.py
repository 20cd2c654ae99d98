"""Runs a stage to its end from wherever it stands, on one device or several; safe to kill."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

from filelock import FileLock

from benchmark.model.compiled import keep_code
from benchmark.model.kernels import set_float32_products
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import EventLog, atomic_write, atomic_write_text
from benchmark.stage.batches import Share
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, unobserved
from benchmark.stage.fitting import Fitting
from benchmark.stage.process import ProcessState, import_fabric, prepare_process
from benchmark.stage.ranks import Meeting, run_on_ranks
from benchmark.stage.recorder import last_that_fitted
from benchmark.stage.stage import Stage
from benchmark.stage.steps import Steps
from benchmark.training.shortage import first_that_fits, micro_batches


def execute(spec: StageSpec, context: Context) -> StageResult:
    """Train a stage to its end, from its last saved state; return the result of a finished one.

    A finished stage without its checkpoint is trained again to restore that; its records and its
    result stay as they are. Divergence is a result; any other exception is the caller's to record.

    Raises:
        ChangedError: corpus or code are not what the specification was hashed from.
        MethodError: the method has changed settings of the process.
        RecordError: trained again, the stage comes to other losses than are recorded.
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
        previous = store.events(spec.id if recorded is not None else spec.parent or "")
        n_micro = last_that_fitted(
            log if log.is_file() else previous, "training", "n_micro", default=1
        )
        result = first_that_fits(
            micro_batches(spec.batch_size // spec.devices, n_micro),
            lambda n_micro: _attempt(spec, context, recorded, n_micro),
        )
        if recorded is None:
            result = replace(result, log_bytes=log.stat().st_size)
            atomic_write(store.events(spec.id), log.read_bytes())
            store.write_result(spec.id, result)
        for name in ("progress.safetensors", "progress.jsonl"):
            (folder / name).unlink(missing_ok=True)
    return recorded or result


def _attempt(
    spec: StageSpec, context: Context, recorded: StageResult | None, n_micro: int
) -> StageResult:
    """Train the stage from its last saved state, on one device or several."""
    if spec.devices == 1:
        return _lead(spec, context, recorded, Share(n_micro=n_micro))
    args = (spec, replace(context, on_tick=unobserved), recorded, n_micro)
    result = run_on_ranks(spec.devices, spec.device, _on_rank, args, context.on_tick)
    assert isinstance(result, StageResult)
    return result


def _on_rank(
    meeting: Meeting,
    send: Callable[[object], None],
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    n_micro: int,
) -> StageResult | None:
    """Do the part of one of several processes: all train, rank 0 does everything else."""
    prepare_process(threads=1)
    share = Share(rank=meeting.rank, n_ranks=meeting.n_ranks, n_micro=n_micro)
    if share.rank == 0:
        return _lead(spec, replace(context, on_tick=send), recorded, share, meeting)
    _follow(spec, context, share, meeting)
    return None


def _lead(
    spec: StageSpec,
    context: Context,
    recorded: StageResult | None,
    share: Share,
    meeting: Meeting | None = None,
) -> StageResult:
    _configure_process(spec, context)
    log = EventLog(StageStore(context.cache).folder(spec.id) / "progress.jsonl")
    with ProcessState() as process, log:
        return Stage(Fitting(spec, context, share, process), log, meeting).run(recorded)


def _follow(spec: StageSpec, context: Context, share: Share, meeting: Meeting) -> None:
    """Train beside rank 0, from the state that it has saved."""
    meeting.await_first()
    _configure_process(spec, context)
    with ProcessState() as process:
        fitting = Fitting(spec, context, share, process)
        state = fitting.saved_state()
        meeting.join()
        steps = Steps(fitting, state)
        fitting.fit(state, steps.left, steps.on_step)
        fitting.check()


def _configure_process(spec: StageSpec, context: Context) -> None:
    """Set what the stage asks of the process that it runs in."""
    import_fabric()
    set_float32_products(spec.precision)
    if spec.is_compiled:
        keep_code(context.cache / "compiled")
