"""A stage that sleeps instead of training: what is left is the cost of the scheduler."""

import time

from benchmark.model.cost import Position, affordable_steps
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context

MEAN_SECONDS = 0.25


def seconds_of(spec: StageSpec) -> float:
    """How long the stage sleeps: a fixed half to one and a half of the mean, by its id."""
    return MEAN_SECONDS * (0.5 + int(spec.id, 16) / 16 ** len(spec.id))


def sleep(spec: StageSpec, context: Context) -> StageResult:
    """Take the time of a stage, and leave behind what the scheduler looks for."""
    started, store = time.perf_counter(), StageStore(context.cache)
    before = store.result(spec.parent) if spec.parent is not None else None
    start = Position() if before is None else before.end
    steps = affordable_steps(start.flops, spec.until, spec.step_flops)
    time.sleep(seconds_of(spec))
    store.folder(spec.id).mkdir(parents=True, exist_ok=True)
    store.checkpoint(spec.id).touch()
    result = StageResult(
        status="done",
        end=start.after(steps=steps, flops=steps * spec.step_flops),
        executed_seconds=time.perf_counter() - started,
    )
    store.write_result(spec.id, result)
    return result
