"""What sizes a run passes through, and when: against numbers worked out by hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import numpy as np
import pytest

from benchmark.base.errors import ConfigError
from benchmark.growth.schedule import (
    AtFractions,
    GrowthSchedule,
    Ladder,
    OnPlateau,
    OnSlope,
    Point,
    Progress,
    Proportional,
)
from benchmark.model.transformer import ModelConfig

TARGET = ModelConfig(d_model=64, n_layer=8, n_head=4, d_ff=256)


def depths(ladder: Ladder) -> list[int]:
    return [config.n_layer for config in ladder.sizes(TARGET)]


def widths_and_depths(
    order: str, n_growths: int, **more: list[list[str]] | str
) -> list[tuple[int, int, int, int]]:
    shrink = {"d_model": 2.0, "n_head": 2.0, "d_ff": 2.0, "n_layer": 4.0}
    ladder = Ladder(shrink=shrink, n_growths=n_growths, order=order, **more)  # type: ignore[arg-type]
    return [(r.d_model, r.n_head, r.d_ff, r.n_layer) for r in ladder.sizes(TARGET)]


@pytest.mark.parametrize(
    ("path", "n_growths", "expected"),
    [
        ("linear", 1, [2, 8]),
        ("linear", 3, [2, 4, 6, 8]),
        ("linear", 6, [2, 3, 4, 5, 6, 7, 8]),
        ("exponential", 2, [2, 4, 8]),
        ("exponential", 3, [2, 3, 5, 8]),  # 2 x 4^(1/3) = 3.2, 2 x 4^(2/3) = 5.04
        ("math:sqrt", 4, [2, 5, 6, 7, 8]),  # 2 + 6 x (0.5, 0.71, 0.87)
        ("constant", 3, [2, 2, 2, 2]),
    ],
)
def test_a_path_passes_through_these_sizes(path: str, n_growths: int, expected: list[int]) -> None:
    assert depths(Ladder(shrink={"n_layer": 4.0}, n_growths=n_growths, path=path)) == expected


def test_everything_else_stays_the_target_s() -> None:
    for config in Ladder(shrink={"n_layer": 2.0}, n_growths=2).sizes(TARGET):
        assert replace(config, n_layer=8) == TARGET


def test_without_growths_only_the_source_is_left() -> None:
    assert depths(Ladder(shrink={"n_layer": 4.0}, n_growths=0)) == [2]
    assert Ladder(n_growths=0).sizes(TARGET) == [TARGET]
    assert Ladder(n_growths=2).sizes(TARGET) == [TARGET] * 3


def test_a_source_may_have_a_size_of_its_own() -> None:
    ladder = Ladder(start={"n_layer": 1}, shrink={"d_ff": 2.0}, n_growths=2, order="sequential")
    assert [(r.d_ff, r.n_layer) for r in ladder.sizes(TARGET)] == [(128, 1), (256, 1), (256, 8)]
    assert depths(Ladder(start={"n_layer": 3})) == [3, 8]


def test_sizes_move_together() -> None:
    assert widths_and_depths("together", 2) == [(32, 2, 128, 2), (48, 3, 192, 5), (64, 4, 256, 8)]


def test_sizes_move_one_group_after_the_other() -> None:
    assert widths_and_depths("sequential", 4) == [
        (32, 2, 128, 2), (48, 3, 192, 2), (64, 4, 256, 2), (64, 4, 256, 5), (64, 4, 256, 8),
    ]  # fmt: skip


def test_sizes_move_in_turns() -> None:
    assert widths_and_depths("alternating", 4) == [
        (32, 2, 128, 2), (48, 3, 192, 2), (48, 3, 192, 5), (64, 4, 256, 5), (64, 4, 256, 8),
    ]  # fmt: skip


def test_groups_decide_who_goes_first() -> None:
    groups = [["n_layer"], ["d_model", "n_head", "d_ff"]]
    assert widths_and_depths("sequential", 2, groups=groups) == [
        (32, 2, 128, 2), (32, 2, 128, 8), (64, 4, 256, 8),
    ]  # fmt: skip


def test_a_size_in_no_group_is_a_group_of_its_own() -> None:
    ladder = Ladder(shrink={"d_head": 2.0, "n_layer": 4.0}, n_growths=2, order="sequential")
    assert [(r.n_layer, r.d_head) for r in ladder.sizes(TARGET)] == [(2, 8), (8, 8), (8, 16)]


@pytest.mark.parametrize("order", ["together", "sequential", "alternating"])
@pytest.mark.parametrize("path", ["linear", "exponential", "math:sqrt"])
def test_no_size_ever_shrinks_and_all_arrive(order: str, path: str) -> None:
    sizes = widths_and_depths(order, 6, path=path)
    for small, large in pairwise(sizes):
        assert all(a <= b for a, b in zip(small, large, strict=True))
    assert sizes[-1] == (64, 4, 256, 8)


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        (lambda: Ladder(shrink={"n_layer": 3.0}), "n_layer=3.0 does not divide n_layer=8"),
        (lambda: Ladder(shrink={"n_layer": 99.0}), "does not divide"),
        (lambda: Ladder(shrink={"n_layer": 0.5}), "must be at least 1"),
        (lambda: Ladder(shrink={"depth": 2.0}), "names 'depth'; sizes are"),
        (lambda: Ladder(shrink={"norm_eps": 2.0}), "names 'norm_eps'"),
        (lambda: Ladder(start={"depth": 1}), "ladder.start names 'depth'; sizes are"),
        (lambda: Ladder(start={"n_layer": 9}), "must be from 1 to the target's 8, got 9"),
        (lambda: Ladder(start={"n_layer": 0}), "must be from 1 to the target's 8, got 0"),
        (lambda: Ladder(start={"n_layer": 1}, shrink={"n_layer": 2.0}), "both name"),
        (lambda: Ladder(shrink={"n_layer": 2.0}, order="random"), "order must be one of"),
        (lambda: Ladder(n_growths=-1), "n_growths must be at least 0"),
        (lambda: Ladder(shrink={"n_layer": 2.0, "d_ff": 2.0}, n_growths=3, order="sequential"),
         "multiple of 2"),
        (lambda: Ladder(shrink={"n_layer": 2.0}, n_growths=2, path="cubic"), "path must be"),
        (lambda: Ladder(shrink={"n_layer": 2.0}, n_growths=2, path="math:root"), "path must be"),
        (lambda: Ladder(shrink={"n_layer": 2.0}, n_growths=2, path="math:pi"), "not a function"),
        (lambda: Ladder(shrink={"n_layer": 2.0}, n_growths=1, path="cubic"), "path must be"),
    ],
)  # fmt: skip
def test_refuses_a_ladder_that_cannot_be_climbed(
    ladder: Callable[[], Ladder], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ladder().sizes(TARGET)


# When


def progress(
    spent: float, bpb: Sequence[float] = (), n_grown: int = 0, n_growths: int = 2
) -> Progress:
    """Evaluations at 1, 2, 3... FLOPs, all since the last growth."""
    points = [Point(float(i), b, n_grown) for i, b in enumerate(bpb, start=1)]
    return Progress(spent=spent, n_grown=n_grown, n_growths=n_growths, history=points)


def firings(schedule: GrowthSchedule, n_growths: int, n_steps: int = 1000) -> list[float]:
    """Spent fractions at which a run that looks after every step would grow."""
    found: list[float] = []
    for i in range(n_steps):
        while len(found) < n_growths and schedule.due(
            progress(i / n_steps, n_grown=len(found), n_growths=n_growths)
        ):
            found.append(i / n_steps)
    return found


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        (AtFractions((0.25,)), (0.25,)),
        (AtFractions((0.0, 0.5)), (0.0, 0.5)),
        (Proportional(0.0), (0.25, 0.5, 0.75)),
        (Proportional(1.0), (0.1, 0.3, 0.6)),  # stages of 1, 2, 3, 4 tenths
        (Proportional(2.0), (1 / 30, 5 / 30, 14 / 30)),  # of 1, 4, 9, 16 thirtieths
        (Proportional(-1.0), (12 / 25, 18 / 25, 22 / 25)),  # of 12, 6, 4, 3
    ],
)
def test_times_that_are_known_beforehand(
    schedule: GrowthSchedule, times: tuple[float, ...]
) -> None:
    assert schedule.times(len(times)) == pytest.approx(times)
    assert firings(schedule, len(times)) == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize("at", [(1.0,), (-0.1,), (0.5, 0.25), (0.5, 0.5)])
def test_refuses_times_outside_the_budget_or_out_of_order(at: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="must rise within"):
        AtFractions(at)


def test_refuses_another_number_of_times_than_of_growths() -> None:
    with pytest.raises(ConfigError, match=r"2 times for ladder\.n_growths=1"):
        AtFractions((0.1, 0.2)).times(1)


def test_a_list_from_yaml_is_as_good_as_a_tuple() -> None:
    assert AtFractions([0.25, 0.5]) == AtFractions((0.25, 0.5))  # type: ignore[arg-type]


def fired_at(schedule: OnSlope, points: Sequence[Point]) -> int | None:
    """Number of evaluations after which the schedule first wants to grow."""
    for n in range(len(points) + 1):
        if schedule.due(Progress(spent=0.1, n_grown=0, n_growths=1, history=points[:n])):
            return n
    return None


def power_law(slope: float, n: int = 40, floor: float = 0.0) -> list[Point]:
    return [Point(c, floor + 3 * c**slope, 0) for c in np.geomspace(1e9, 1e12, n).tolist()]


def test_a_slope_is_that_of_the_power_law() -> None:
    assert fired_at(OnSlope(threshold=-0.0831), power_law(-0.083)) == 5  # the window is full
    assert fired_at(OnSlope(threshold=-0.0829), power_law(-0.083)) is None


@pytest.mark.parametrize("window", [2, 5, 9])
def test_grows_where_a_fitted_line_becomes_too_flat(window: int) -> None:
    """The loss levels off; numpy fits the same line."""
    points = power_law(-0.2, floor=0.04)
    x, y = (np.log10([getattr(p, key) for p in points]) for key in ("flops", "bpb"))
    slopes = [
        np.polyfit(x[n - window : n], y[n - window : n], 1)[0] for n in range(window, len(x) + 1)
    ]
    first = window + next(i for i, slope in enumerate(slopes) if slope > -0.083)
    assert window < first < len(points)
    assert fired_at(OnSlope(threshold=-0.083, window=window), points) == first


def test_a_line_is_not_fooled_by_the_noise_that_fools_two_neighbours() -> None:
    points = [
        replace(p, bpb=p.bpb * (1 + 0.01 * (-1) ** i)) for i, p in enumerate(power_law(-0.12))
    ]
    assert fired_at(OnSlope(threshold=-0.083, window=2), points) is not None
    assert fired_at(OnSlope(threshold=-0.083, window=8), points) is None


@pytest.mark.parametrize("schedule", [OnSlope(), OnPlateau()])
def test_never_grows_before_the_earliest_time_and_always_at_the_latest(
    schedule: GrowthSchedule,
) -> None:
    flat, steep = [1.0] * 9, [math.exp(-i) for i in range(9)]
    assert not schedule.due(progress(0.049, flat))
    assert schedule.due(progress(0.05, flat))
    assert not schedule.due(progress(0.749, steep))
    assert schedule.due(progress(0.75, steep))
    assert schedule.due(progress(0.75))


@pytest.mark.parametrize("schedule", [OnSlope(), OnPlateau()])
def test_looks_only_at_what_happened_since_the_last_growth(schedule: GrowthSchedule) -> None:
    before = [Point(float(i), 1.0, 0) for i in range(1, 10)]
    since = [Point(10.0, 5.0, 1), Point(11.0, 1.0, 1)]
    assert schedule.due(Progress(spent=0.5, n_grown=0, n_growths=2, history=before))
    assert not schedule.due(Progress(spent=0.5, n_grown=1, n_growths=2, history=[*before, *since]))


@pytest.mark.parametrize(
    ("patience", "min_delta", "bpb", "due"),
    [
        (2, 0.0, [3, 2, 1], False),
        (2, 0.0, [3, 2, 2.1], False),
        (2, 0.0, [3, 2, 2.1, 2.2], True),
        (2, 0.0, [3, 2, 2.1, 1.9], False),
        (2, 0.0, [2, 2, 2], True),  # not a single improvement
        (2, 0.0, [2, 2], False),
        (1, 0.0, [2, 3], True),
        (2, 0.1, [3, 2, 1.95, 1.93], True),  # improvements too small to count
        (2, 0.1, [3, 2, 1.95, 1.85], False),
    ],
)
def test_a_plateau_is_a_best_loss_that_has_grown_old(
    patience: int, min_delta: float, bpb: list[float], due: bool
) -> None:
    schedule = OnPlateau(patience=patience, min_delta=min_delta)
    assert schedule.due(progress(0.5, bpb)) is due


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnSlope(window=1), "schedule.window must be at least 2, got 1"),
        (lambda: OnPlateau(patience=0), "schedule.patience must be at least 1, got 0"),
        (lambda: OnPlateau(latest=float("nan")), "schedule.latest must be finite, got nan"),
        (lambda: OnSlope(earliest=float("inf")), "schedule.earliest must be finite, got inf"),
    ],
)
def test_refuses_too_few_evaluations_and_what_is_no_number(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "schedule", [AtFractions((0.25, 0.5)), Proportional(), OnSlope(), OnPlateau()]
)
def test_a_schedule_is_pure(schedule: GrowthSchedule) -> None:
    """A resumed run asks anew with the same history, in whatever order."""
    cases = [progress(u, [3, 2, 1.9, 1.89, 1.889, 1.8889]) for u in (0.1, 0.3, 0.8, 0.3, 0.1)]
    before = [list(case.history) for case in cases]
    answers = [schedule.due(case) for case in cases]
    assert answers[:3] == [*answers[:-3:-1], answers[2]]
    assert [schedule.due(case) for case in cases] == answers
    assert [list(case.history) for case in cases] == before
    with pytest.raises(FrozenInstanceError):
        schedule.alpha = 3  # type: ignore[attr-defined]
