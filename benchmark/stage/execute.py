"""Runs a stage to its end from wherever it stands, safe to kill."""

import json
from dataclasses import asdict, replace

from filelock import FileLock

from benchmark.model.compiled import keep_code
from benchmark.model.kernels import set_float32_products
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import EventLog, atomic_write, atomic_write_text
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.stage.fitting import Fitting
from benchmark.stage.process import ProcessState, import_fabric
from benchmark.stage.recorder import last_that_fitted
from benchmark.stage.stage import Stage
from benchmark.training.memory import device_bytes
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
        fitted = last_that_fitted(
            log if log.is_file() else previous, "training", "n_micro", default=1
        )
        room = device_bytes(spec.device) / context.n_sharing
        result = first_that_fits(
            micro_batches(spec.batch_size, max(fitted, spec.micro_batches(room))),
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
    """Train the stage from its last saved state, with each batch in so many micro-batches."""
    import_fabric()
    set_float32_products(spec.precision)
    if spec.is_compiled:
        keep_code(context.cache / "compiled", spec.device)
    log = EventLog(StageStore(context.cache).folder(spec.id) / "progress.jsonl")
    with ProcessState() as process, log:
        return Stage(Fitting(spec, context, n_micro, process), log).run(recorded)
