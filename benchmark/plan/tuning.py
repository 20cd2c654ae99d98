"""Equal tuning: the same trials for every method and control, chosen on validation.

Trial 0 is the default setting. The others are points of one scrambled Sobol sequence, drawn
log-uniformly between the bounds; its first dimensions are the shared settings, at which all methods
are therefore tried at the same values, and the rest are for what a method may tune of its own.
Trials have seeds of their own and a part of the budget, and are scored on the validation split
only. The default being among the trials, what is chosen is never worse than it in the trials; at
the full budget and on other seeds it may be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmark.base.annotations import described, fits, hints
from benchmark.base.errors import ConfigError
from benchmark.base.plugins import did_you_mean
from benchmark.base.seeding import stream_seed
from benchmark.plan.config import MethodConfig, ProtocolConfig, TuningConfig
from benchmark.training.optim import LearningRateConfig, OptimizerConfig

ROLE = "tuning"
"""Role of a trial's runs."""

FIXED_SIZE_ROLES = ("control", "hull")
"""Roles that are tuned whatever `tuning.methods` says."""

MIN_TRIALS = 2
DIGITS = 4
"""Significant digits of a drawn setting."""

SHARED = {
    f"{section}.{name}": hint
    for section, config in (("learning_rate", LearningRateConfig), ("optimizer", OptimizerConfig))
    for name, hint in hints(config).items()
    if name not in ("target", "args", "scale", "base_width")
}
"""What all may tune alike, and what it may be; beside these, arguments of another optimizer."""

OPTIMIZER_ARGS = "optimizer.args."

PRIVATE = ("schedule.args.", "args.")
"""Where a method may declare dimensions of its own."""


def tuned_methods(protocol: ProtocolConfig, methods: Sequence[MethodConfig]) -> list[MethodConfig]:
    """Those of a suite's methods that have trials: all that spend the whole budget, by default.

    Raises:
        ConfigError: the tuning is contradictory or unequal, by name.
    """
    tuning = protocol.tuning
    if not tuning.trials:
        return []
    whole = {method.name: method for method in methods if method.budget == 1}
    for name in tuning.methods:
        if name not in whole:
            raise ConfigError(f"protocol.tuning.methods: no {name!r}{did_you_mean(name, whole)}")
    _check(protocol)
    wanted = tuning.methods or whole
    chosen = [m for m in whole.values() if m.name in wanted or m.role in FIXED_SIZE_ROLES]
    for method in chosen:
        _check_private(tuning, method)
    return chosen


def trials(protocol: ProtocolConfig, method: MethodConfig) -> list[MethodConfig]:
    """All trials of a method, the default setting first."""
    tuning = protocol.tuning
    defaults = {name: float(_setting(protocol, name)) for name in tuning.space}
    drawn = [_settings(tuning, method, point) for point in points(tuning)]
    return [
        replace(
            _with_private(method, settings),
            name=f"{method.name}#{number}",
            role=ROLE,
            controls=[],
            budget=tuning.fraction,
            tunes=method.name,
            trial=number,
            tuned=settings,
        )
        for number, settings in enumerate([defaults, *drawn])
    ]


def is_open(method: MethodConfig) -> bool:
    """Whether the method is a final run whose settings are still to be chosen."""
    return bool(method.tunes) and not method.tuned


def at_settings_of(final: MethodConfig, trial: MethodConfig) -> MethodConfig:
    """The final run at the settings of the chosen trial."""
    return replace(final, args=trial.args, schedule=trial.schedule, tuned=trial.tuned)


def best(scores: Mapping[int, Sequence[float]]) -> int:
    """The trial with the lowest mean over tuning seeds; of equal ones the lowest number.

    Args:
        scores: by trial, held-out bits per byte of each seed on the validation split; infinite,
            or not a number, where a run has none because it diverged or failed.
    """
    means = {
        trial: sum(values) / len(values) if all(map(math.isfinite, values)) else math.inf
        for trial, values in scores.items()
    }
    return min(sorted(means), key=means.__getitem__)


def with_settings(protocol: ProtocolConfig, tuned: Mapping[str, float]) -> ProtocolConfig:
    """The protocol with the shared settings of a trial."""
    for name in tuned:
        if not name.startswith(PRIVATE):
            protocol = _changed(protocol, name, tuned[name])
    return protocol


def points(tuning: TuningConfig) -> list[list[float]]:
    """Points of the unit cube, (trials - 1, shared + private dimensions), the same for everyone."""
    n_dimensions, n_points = len(tuning.space) + tuning.private, tuning.trials - 1
    seed = stream_seed(tuning.seeds[0], "tuning")
    from scipy.stats import qmc  # noqa: PLC0415 - half a second, and most suites tune nothing

    sampler = qmc.Sobol(n_dimensions, scramble=True, rng=seed)
    drawn: list[list[float]] = sampler.random_base2((n_points - 1).bit_length()).tolist()
    return drawn[:n_points]


def _settings(
    tuning: TuningConfig, method: MethodConfig, point: Sequence[float]
) -> dict[str, float]:
    """Values at a point of the cube, spread evenly in the logarithm."""
    bounds = [*tuning.space.items(), *sorted(method.tunable.items())]
    return {
        name: float(f"{low * (high / low) ** at:.{DIGITS}g}")
        for (name, (low, high)), at in zip(bounds, point, strict=False)
    }


def _with_private(method: MethodConfig, settings: Mapping[str, float]) -> MethodConfig:
    """The method with the settings that are its own; a list of one value takes one value."""
    for name in settings.keys() & method.tunable.keys():
        is_list = name.startswith("schedule.") and isinstance(_setting(method, name), list)
        method = _changed(method, name, [settings[name]] if is_list else settings[name])
    return method


def _setting(config: Any, name: str) -> Any:  # noqa: ANN401 - whatever YAML says
    """The value of a dotted name; None if there is none."""
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else getattr(config, key)
    return config


def _changed(config: Any, name: str, value: object) -> Any:  # noqa: ANN401 - whatever YAML says
    """The same dataclass or mapping with another value of a dotted name."""
    key, _, rest = name.partition(".")
    inside = _changed(_setting(config, key), rest, value) if rest else value
    return (
        {**config, key: inside} if isinstance(config, Mapping) else replace(config, **{key: inside})
    )


def _check(protocol: ProtocolConfig) -> None:
    """Refuse a tuning without sense, or with the seeds that decide the comparison."""
    tuning, where = protocol.tuning, "protocol.tuning"
    if tuning.trials < MIN_TRIALS:
        raise ConfigError(
            f"{where}.trials must be 0 or at least {MIN_TRIALS}, the default being one of them, "
            f"got {tuning.trials}"
        )
    if not tuning.seeds or len(set(tuning.seeds)) < len(tuning.seeds):
        raise ConfigError(f"{where}.seeds must be distinct and not empty, got {tuning.seeds}")
    if both := sorted(set(tuning.seeds) & set(protocol.seeds)):
        raise ConfigError(f"{where}.seeds {both} are also in protocol.seeds: tune on other seeds")
    if not tuning.space:
        raise ConfigError(f"{where}.space is empty; it may hold {', '.join(SHARED)}")
    for name, bounds in tuning.space.items():
        _check_shared(protocol, name, f"{where}.space")
        _check_bounds(f"{where}.space.{name}", bounds)
        if wrong := [bound for bound in bounds if not fits(bound, SHARED.get(name, float))]:
            wanted = described(SHARED[name])
            raise ConfigError(f"{where}.space.{name} must be {wanted}, got {wrong[0]}")


def _check_shared(protocol: ProtocolConfig, name: str, where: str) -> None:
    """Refuse what is no setting, and an argument of the optimizer without a default for trial 0."""
    if not name.startswith(OPTIMIZER_ARGS):
        if name not in SHARED:
            raise ConfigError(f"{where}: unknown {name!r}{did_you_mean(name, SHARED)}")
    elif not fits(default := _setting(protocol, name), float):
        raise ConfigError(
            f"{where}.{name} needs its default, a number, in protocol.{name}; got {default!r}"
        )


def _check_private(tuning: TuningConfig, method: MethodConfig) -> None:
    """Refuse more dimensions than everyone may have, and ones that are not the method's."""
    where = f"method.{method.name}.tunable"
    if len(method.tunable) > tuning.private:
        raise ConfigError(
            f"{where}: {sorted(method.tunable)} are {len(method.tunable)} dimensions, and "
            f"protocol.tuning.private allows every method {tuning.private}"
        )
    for name, bounds in method.tunable.items():
        prefix = next((prefix for prefix in PRIVATE if name.startswith(prefix)), None)
        if prefix is None or "." in name.removeprefix(prefix):
            raise ConfigError(
                f"{where}: {name!r} is not the method's own; allowed: args.NAME, schedule.args.NAME"
            )
        _check_bounds(f"{where}.{name}", bounds)
        if prefix == "args.":
            continue
        if method.schedule is None:
            raise ConfigError(f"{where}: {name} is tunable, but the method has no schedule")
        value = method.schedule.args.get(name.removeprefix(prefix))
        if isinstance(value, list) and len(value) != 1:
            raise ConfigError(f"{where}: {name} is {value}, and one dimension is one value")


def _check_bounds(where: str, bounds: Sequence[float]) -> None:
    if len(bounds) != 2 or not 0 < bounds[0] < bounds[1] < math.inf:  # noqa: PLR2004
        raise ConfigError(f"{where} must be [low, high] with 0 < low < high, got {list(bounds)}")
