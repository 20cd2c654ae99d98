"""What a method may say, and what is the same for every method whatever it says.

Training is shared: Python does not enforce `final`, so every class is looked at before it is
planned. A method that replaces the training step, the optimizer or a hook of the loop is refused.
"""

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig, build
from benchmark.training.baseline import Baseline

OPEN = frozenset({
    "grows", "leaves_copies_equal", "leaves_dead_entries", "model_class", "on_progress",
    "operators", "preserves_function", "rewarm", "source_class", "state_policy", "trains",
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


def check_training_is_shared(baseline: Baseline, where: str) -> None:
    """Refuse a method that brings a training of its own.

    Raises:
        ConfigError: its class, or the instance itself, replaces part of the shared training.
    """
    if replaced := replacements(baseline):
        cls = type(baseline)
        raise ConfigError(
            f"{where}.target: {cls.__module__}:{cls.__qualname__} replaces {', '.join(replaced)}, "
            f"which every method shares; a method may set {', '.join(sorted(OPEN))}"
        )


def replacements(baseline: Baseline) -> list[str]:
    """Names of the shared parts that a method replaces, sorted."""
    own = [cls for cls in type(baseline).__mro__ if cls not in Baseline.__mro__]
    named = {name for cls in own for name, value in vars(cls).items() if _counts(name, value)}
    on_instance = {name for name in vars(baseline) if callable(getattr(Baseline, name, None))}
    return sorted((named | on_instance) & set(dir(Baseline)) - OPEN)


def _counts(name: str, value: object) -> bool:
    """Whether a class attribute could change behaviour; what Python adds to every class cannot."""
    is_hidden = name.startswith("_") and not callable(value)
    return name not in _HARMLESS and not is_hidden
