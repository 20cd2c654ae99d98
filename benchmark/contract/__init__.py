"""The executable contract: what every growth method is held to, whatever it does inside.

A check knows only what a `Baseline` declares: the sizes it grows, whether that keeps the function,
its model, its operators, and its choices for Adam's moments and for the learning rate. Models are
tiny, with weights that look trained; equalities are judged in float64. A method is held to its
claims both ways: to claim too little is a fault too. No check is given held-out data, and an
operator is only ever given `Resources`.

    exactness.py    some growth is possible; it is exact where that is declared, and only there
    gradients.py    gradients and Adam's moments after growth follow the chain rule
    learning.py     every entry learns, copies separate, what is frozen rests
    isolation.py    growing has no side effects, and its result stands alone
    compute.py      the ledger's formulas are what torch counts
    prediction.py   the model is causal, and scored as what it predicts
    training.py     training is everyone's; being stopped or scored leaves no trace
"""

from collections.abc import Callable, Iterable
from typing import Any

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig
from benchmark.contract.compute import growth_flops, model_flops
from benchmark.contract.exactness import declarations, exactness
from benchmark.contract.gradients import gradients, moments
from benchmark.contract.isolation import (
    optimizer_groups,
    process_untouched,
    same_bits,
    small_untouched,
)
from benchmark.contract.learning import copies_separate, frozen_weights, no_dead_entries
from benchmark.contract.prediction import causality
from benchmark.contract.subject import Subject, Verdict
from benchmark.contract.training import evaluation, resumption, shared_training, training_flops
from benchmark.plan.config import load_method
from benchmark.plan.guard import build_schedule
from benchmark.stage.process import prepare_process

CHECKS: dict[str, Callable[[Subject], Verdict]] = {
    "declarations": declarations,
    "exactness": exactness,
    "gradients": gradients,
    "moments": moments,
    "no dead entries": no_dead_entries,
    "copies separate": copies_separate,
    "frozen weights": frozen_weights,
    "small model untouched": small_untouched,
    "same seed, same bits": same_bits,
    "process untouched": process_untouched,
    "optimizer groups": optimizer_groups,
    "model FLOPs": model_flops,
    "growth FLOPs": growth_flops,
    "causality": causality,
    "resumption": resumption,
    "shared training": shared_training,
    "training FLOPs": training_flops,
    "evaluation leaves no trace": evaluation,
}


def check(
    method: str, args: dict[str, Any] | None = None, optimizer: str = ""
) -> dict[str, Verdict]:
    """Hold a method to the contract; this process becomes single-threaded and deterministic.

    Args:
        method: a class, "package.module:Class", which is to grow; or a method's file, as a name in
            configs/method or a path, whose `role` says whether it is to grow.
        args: arguments of its constructor, over those of the file.
        optimizer: what the method trains with, "package.module:Class"; empty for AdamW.

    Returns:
        A verdict per entry of `CHECKS`, in order; a check that crashes, or exits, has failed. If
        what the method declares makes no sense, that is the only one.

    Raises:
        ConfigError: there is no such method, it does not take the arguments, or its file asks for
            growths at times that cannot be.
    """
    if ":" in method and not method.endswith((".yaml", ".yml")):
        return judge(subject(method, args, optimizer=optimizer))
    config = load_method(method)
    if config.role == "method" and not config.ladder.n_growths:
        raise ConfigError(f"{method}: ladder.n_growths is 0, and what has role method must grow")
    build_schedule(config, f"method.{config.name}")
    return judge(subject(config.target, {**config.args, **(args or {})}, config.role, optimizer))


def subject(
    target: str, args: dict[str, Any] | None = None, role: str = "method", optimizer: str = ""
) -> Subject:
    """The method to judge or to measure; prepares this process as `check` does."""
    prepare_process(threads=1)
    return Subject(PluginConfig(target=target, args=args or {}), role, optimizer)


def judge(subject: Subject, names: Iterable[str] = CHECKS) -> dict[str, Verdict]:
    """What became of these checks, in order, or of the first alone if it fails."""
    first, *rest = names
    declared = {first: _judge(first, subject)}
    return declared | {name: _judge(name, subject) for name in rest if declared[first].passed}


def _judge(name: str, subject: Subject) -> Verdict:
    try:
        return CHECKS[name](subject)
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        return Verdict(False, f"the method exits (code {error.code}) instead of going on")
    except BaseException as error:  # noqa: BLE001 - whatever a method raises is its failure
        return Verdict(False, " ".join(f"{type(error).__name__}: {error}".split()))
