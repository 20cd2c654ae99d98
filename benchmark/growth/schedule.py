"""What sizes a run passes through (`Ladder`) and when it takes the next one (`GrowthSchedule`)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression
from typing import final

from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.base.plugins import failures, import_function
from benchmark.model.transformer import ModelConfig

ORDERS = ("together", "sequential", "alternating")
PATHS = ("linear", "exponential", "constant")


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The sizes between source and target.

    Sizes move from target / shrink, or from `start`, to target in `n_growths` steps. With `path`
    linear or exponential, or a function of progress in (0, 1) named "module:function" that returns
    how much of the way is done ("constant" never leaves the source: growth of nothing, for a
    control); all groups of sizes together, one group after the other, or in turns.
    """

    shrink: dict[str, float] = field(default_factory=dict[str, float])
    """Target size over source size, by name; sizes in neither this nor `start` never change."""

    start: dict[str, int] = field(default_factory=dict[str, int])
    """Source sizes as they are, by name, whatever the target's."""

    n_growths: int = 1
    path: str = "linear"
    order: str = "together"
    groups: list[list[str]] = field(
        default_factory=lambda: [["d_model", "n_head", "d_ff"], ["n_layer"]]
    )
    """Sizes that move as one when the order is not "together"; a size not listed is on its own."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"ladder.order must be one of {list(ORDERS)}, got {self.order!r}")
        if twice := sorted(self.shrink.keys() & self.start.keys()):
            raise ConfigError(f"ladder.shrink and ladder.start both name {twice}")
        if self.n_growths < 0:
            raise ConfigError(f"ladder.n_growths must be at least 0, got {self.n_growths}")
        if self.path not in PATHS:
            self._function()

    def source(self, target: ModelConfig) -> ModelConfig:
        """Sizes the run starts from.

        Args:
            target: sizes it ends with.

        Returns:
            The target with what `shrink` and `start` name made smaller.

        Raises:
            ConfigError: a size that the model does not have, one that does not divide, or a start
                above the target.
        """
        for field_name, named in (("shrink", self.shrink), ("start", self.start)):
            if unknown := sorted(named.keys() - target.sizes()):
                raise ConfigError(
                    f"ladder.{field_name} names {unknown[0]!r}; sizes are {sorted(target.sizes())}"
                )
        small = dict(self.start)
        for name, size in small.items():
            if not 1 <= size <= target.size(name):
                raise ConfigError(
                    f"ladder.start.{name} must be from 1 to the target's {target.size(name)}, "
                    f"got {size}"
                )
        for name, factor in self.shrink.items():
            if not 1 <= factor < math.inf:
                raise ConfigError(
                    f"ladder.shrink.{name} must be at least 1 (a target is never smaller than its "
                    f"source), got {factor}"
                )
            small[name] = round(target.size(name) / factor)
            if not math.isclose(small[name] * factor, target.size(name)):
                raise ConfigError(
                    f"ladder.shrink.{name}={factor} does not divide {name}={target.size(name)}"
                )
        return target.resized(small)

    def sizes(self, target: ModelConfig) -> list[ModelConfig]:
        """All sizes from source to target, n_growths + 1 configs."""
        source = self.source(target)
        groups = self._active_groups()
        turns = 1 if self.order == "together" else len(groups)
        if self.n_growths % max(turns, 1):
            raise ConfigError(
                f"ladder.n_growths must be a multiple of {turns} to take {groups} {self.order}, "
                f"got {self.n_growths}"
            )
        per_group = self.n_growths // turns if turns else 0
        found = [source]
        for growth in range(1, self.n_growths + 1):
            done = self._done(growth, len(groups), per_group)
            sizes = {
                name: self._between(source.size(name), target.size(name), steps / per_group)
                for group, steps in zip(groups, done, strict=True)
                for name in group
            }
            found.append(source.resized(sizes))
        return found

    def _active_groups(self) -> list[list[str]]:
        moving = [*self.shrink, *self.start]
        listed = [[name for name in group if name in moving] for group in self.groups]
        alone = [[name] for name in moving if not any(name in group for group in listed)]
        return [group for group in listed if group] + alone

    def _done(self, growth: int, n_groups: int, per_group: int) -> list[int]:
        """Steps each group has taken after `growth` growths."""
        if self.order == "together":
            return [growth] * n_groups
        if self.order == "sequential":
            return [min(per_group, max(0, growth - g * per_group)) for g in range(n_groups)]
        return [(growth + n_groups - 1 - g) // n_groups for g in range(n_groups)]

    def _between(self, small: int, large: int, progress: float) -> int:
        if self.path == "constant" or progress == 0:
            return small
        if progress == 1:
            return large
        if self.path == "linear":
            return round(small + (large - small) * progress)
        if self.path == "exponential":
            return round(small * (large / small) ** progress)
        with failures(f"ladder.path {self.path}"):
            return round(small + (large - small) * self._function()(progress))

    def _function(self) -> Callable[[float], float]:
        return import_function(self.path, f"ladder.path must be one of {list(PATHS)}, or it")


@dataclass(frozen=True)
class Point:
    """One held-out evaluation during training."""

    flops: float
    bpb: float
    n_grown: int
    """Growths before it."""


@dataclass(frozen=True)
class Progress:
    """Everything a schedule may look at."""

    spent: float
    """u = C / C* at the end of the coming step, between 0 and 1."""

    n_grown: int
    n_growths: int
    history: Sequence[Point]

    @property
    def stage_history(self) -> list[Point]:
        """Evaluations since the last growth."""
        return [point for point in self.history if point.n_grown == self.n_grown]


class GrowthSchedule:
    """Decides when to take the next size; pure, so that a resumed run decides alike.

    Subclasses are frozen dataclasses whose fields are their hyperparameters. They say `times`, or
    else what is `due`.
    """

    def times(self, n_growths: int) -> tuple[float, ...] | None:
        """Spent fractions at which to grow, if they are known beforehand.

        Args:
            n_growths: how many there are to be.

        Returns:
            Fractions of C*, rising within [0, 1); None for a schedule that is asked `due` at every
            evaluation instead.
        """
        return None

    def due(self, progress: Progress) -> bool:
        """Whether to grow before the next step.

        Args:
            progress: what is spent, and every held-out loss so far.

        Returns:
            By default whether the next of `times` has come.
        """
        times = self.times(progress.n_growths) or ()
        return progress.n_grown < len(times) and progress.spent >= times[progress.n_grown]


def check_times(times: Sequence[float] | None, n_growths: int) -> None:
    """Refuse times at which so many growths cannot be made; None, if only `due` knows, is fine.

    Raises:
        ConfigError: too few or too many, not rising, or outside [0, 1).
    """
    if times is None:
        return
    rises = list(times) == sorted(set(times)) and all(0 <= time < 1 for time in times)
    if len(times) != n_growths or not rises:
        raise ConfigError(
            f"times must be as many as ladder.n_growths={n_growths} and rise within [0, 1), "
            f"got {list(times)}"
        )


@dataclass(frozen=True)
class AtFractions(GrowthSchedule):
    """Grow for the i-th time when `at[i]` of the budget is spent."""

    at: tuple[float, ...]

    def __post_init__(self) -> None:
        at = tuple(self.at)
        if list(at) != sorted(set(at)) or any(not 0 <= u < 1 for u in at):
            raise ConfigError(f"schedule.at must rise within [0, 1), got {list(at)}")
        object.__setattr__(self, "at", at)

    @override
    def times(self, n_growths: int) -> tuple[float, ...]:
        if len(self.at) != n_growths:
            raise ConfigError(
                f"schedule.at has {len(self.at)} times for ladder.n_growths={n_growths}"
            )
        return self.at


@dataclass(frozen=True)
class Proportional(GrowthSchedule):
    """Stage i of n lasts in proportion to i ** alpha, in FLOPs (MIDAS, arXiv:2409.19044)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise ConfigError(f"schedule.alpha must be finite, got {self.alpha}")

    @override
    def times(self, n_growths: int) -> tuple[float, ...]:
        lengths = [i**self.alpha for i in range(1, n_growths + 2)]
        return tuple(sum(lengths[: i + 1]) / sum(lengths) for i in range(n_growths))


@dataclass(frozen=True, kw_only=True)
class OnLoss(GrowthSchedule, ABC):
    """Grow when the losses since the last growth say so, between two fractions of the budget."""

    earliest: float = 0.05
    latest: float = 0.75

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"schedule.{name} must be finite, got {value}")

    @abstractmethod
    def has_settled(self, points: Sequence[Point]) -> bool:
        """Whether to grow, after these evaluations since the last growth."""

    @final
    @override
    def due(self, progress: Progress) -> bool:
        if progress.spent >= self.latest:
            return True
        return progress.spent >= self.earliest and self.has_settled(progress.stage_history)


@dataclass(frozen=True, kw_only=True)
class OnSlope(OnLoss):
    """Grow when the loss falls too slowly per compute (Shen et al. 2022, arXiv:2203.06211).

    The slope is that of a least-squares line through log10 bpb against log10 FLOPs over the last
    `window` evaluations since the last growth. The paper's first-crossing rule fires on noise and
    its thresholds assume critical batch sizes; for a fixed batch the optima of its law are about
    -0.097 for growth 2x in parameters, -0.083 for 4x and -0.069 for 8x.
    """

    threshold: float = -0.083
    window: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:  # noqa: PLR2004 - a line needs two points
            raise ConfigError(f"schedule.window must be at least 2, got {self.window}")

    @override
    def has_settled(self, points: Sequence[Point]) -> bool:
        if len(points) < self.window:
            return False
        recent = points[-self.window :]
        flops = [math.log10(point.flops) for point in recent]
        bpb = [math.log10(point.bpb) for point in recent]
        return linear_regression(flops, bpb).slope > self.threshold


@dataclass(frozen=True, kw_only=True)
class OnPlateau(OnLoss):
    """Grow when the best bpb of the stage is older than `patience` evaluations."""

    patience: int = 2
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience < 1:
            raise ConfigError(f"schedule.patience must be at least 1, got {self.patience}")

    @override
    def has_settled(self, points: Sequence[Point]) -> bool:
        bpb = [point.bpb for point in points]
        if len(bpb) <= self.patience:
            return False
        return min(bpb[-self.patience :]) >= min(bpb[: -self.patience]) - self.min_delta
