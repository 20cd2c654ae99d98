"""What is refused before anything trains: a training of one's own, and sizes out of reach.

Training is shared: Python does not enforce `final`, so every class is looked at before it is
planned. A method that replaces the training step, the optimizer or a hook of the loop is refused.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch

from benchmark.base.errors import ConfigError, GrowthError, SizeError
from benchmark.base.plugins import PluginConfig, build, class_path, failures
from benchmark.growth.depth import DepthOperator
from benchmark.growth.grow import check_reach, enlargements
from benchmark.growth.operator import GrowthOperator
from benchmark.growth.schedule import GrowthSchedule, check_times
from benchmark.growth.width import WidthOperator
from benchmark.model.transformer import ModelConfig
from benchmark.plan.config import MethodConfig
from benchmark.training.baseline import Baseline

OPEN = frozenset({
    "leaves_copies_equal", "leaves_dead_entries", "model_class", "on_progress", "operators",
    "preserves_function", "rewarm", "source_class", "state_policy", "trains",
})  # fmt: skip
"""What a method states or does itself."""

_HARMLESS = frozenset({"__init__", "__annotate_func__", "__classcell__"})


def build_method(plugin: PluginConfig, where: str) -> Baseline:
    """A method as its configuration has it.

    Raises:
        ConfigError: it cannot be made, or its constructor forgets its base's.
    """
    baseline = build(plugin, Baseline, where)
    if "_modules" not in vars(baseline):
        raise ConfigError(
            f"{where}.target: __init__ of {plugin.target} must call super().__init__()"
        )
    return baseline


def build_schedule(method: MethodConfig, where: str) -> GrowthSchedule | None:
    """When a method grows; None for one that never does.

    Raises:
        ConfigError: it cannot be made, or does not fit the number of growths.
    """
    n_growths = method.ladder.n_growths
    if n_growths == 0:
        if method.schedule is not None:
            raise ConfigError(f"{where}.schedule is set, but {where}.ladder.n_growths is 0")
        return None
    if method.schedule is None:
        raise ConfigError(f"{where}.schedule is missing: when does it grow?")
    schedule = build(method.schedule, GrowthSchedule, f"{where}.schedule")
    with failures(f"{where}.schedule"):
        check_times(schedule.times(n_growths), n_growths)
    return schedule


def check_training_is_shared(baseline: Baseline, where: str) -> None:
    """Refuse a method that brings a training of its own.

    Raises:
        ConfigError: its class, or the instance itself, replaces part of the shared training.
    """
    if replaced := replacements(baseline):
        raise ConfigError(
            f"{where}.target: {class_path(type(baseline))} replaces {', '.join(replaced)}, which"
            f" every method shares; a method may set {', '.join(sorted(OPEN))}"
        )


def replacements(baseline: Baseline) -> list[str]:
    """Names of the shared parts that a method replaces, sorted."""
    own = [cls for cls in type(baseline).__mro__ if cls not in Baseline.__mro__]
    # what Python adds to every class, and other private values, cannot change behaviour
    named = {
        name
        for cls in own
        for name, value in vars(cls).items()
        if name not in _HARMLESS and (callable(value) or not name.startswith("_"))
    }
    on_instance = {name for name in vars(baseline) if callable(getattr(Baseline, name, None))}
    return sorted((named | on_instance) & set(dir(Baseline)) - OPEN)


def sizes_of(target: ModelConfig, method: MethodConfig, baseline: Baseline) -> list[ModelConfig]:
    """All sizes from a method's source to its target.

    Raises:
        ConfigError: the method names sizes that the model does not have.
        SizeError: the ladder does not divide the target, or the operators cannot climb it.
    """
    where = f"method.{method.name}"
    known = target.size_names().union(baseline.own_sizes)
    if unknown := sorted(method.sizes.keys() - known):
        raise ConfigError(f"{where}.sizes {unknown} are not among {sorted(known)}")
    try:
        found = method.ladder.sizes(target.resized(method.sizes))
        for small, large in pairwise(found):
            check_reach(small, large, baseline.operators)
            _check_maps(small, large, baseline.operators)
    except (ConfigError, GrowthError) as error:
        raise SizeError(f"{where}: {error}") from error
    return found


def _check_maps(
    small: ModelConfig, large: ModelConfig, operators: Sequence[GrowthOperator]
) -> None:
    """Ask every operator that maps axes or blocks: copies may take even multiples, for example."""
    random = torch.Generator().manual_seed(0)
    for operator, reached in enlargements(small, large, operators):
        if isinstance(operator, WidthOperator):
            for axis in sorted(operator.grows & reached.sizes().keys()):
                if reached.size(axis) > small.size(axis):
                    operator.axis_map(axis, small.size(axis), reached.size(axis), random)
        elif isinstance(operator, DepthOperator):
            for layer in range(reached.n_layer):
                operator.source(layer, small.n_layer, reached.n_layer)
        small = reached
