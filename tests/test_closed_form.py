"""Every closed-form method does what its paper says, in float64, and what it must not get wrong.

The contract holds them all to the same promises; here is what is particular to each.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny import (
    TINY,
    every_variant,
    gap,
    generator,
    gradients,
    logits,
    train,
    trained_like,
)
from torch import Tensor
from typing_extensions import override

from baselines.bert2bert import Bert2Bert
from baselines.late_depth import LateDepth, RandomBlocks
from baselines.lemon import Lemon
from baselines.net2net_corner import Net2NetCorner
from baselines.parts.aki import AKI
from baselines.parts.block_diagonal import SideBySide
from baselines.parts.block_orders import ORDERS, RepeatBlocks
from baselines.parts.fpi import FPI
from baselines.parts.identity_blocks import DoubleTop
from baselines.parts.lossless import SPLITS, Lossless
from baselines.sparkling import ScaledCopies, Sparkling
from baselines.stacking import Stacking
from baselines.staged_training import StagedTraining
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth.axis_map import AxisMap
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import GrowthOperator, Moments, Resources, Side, StatePolicy
from benchmark.growth.schedule import Ladder, Proportional
from benchmark.growth.width import Fill
from benchmark.model.transformer import Kind, ModelConfig, Transformer
from benchmark.plan.config import load_method
from benchmark.training.baseline import Baseline

EXACT = 1e-10
WIDTHS = ("d_model", "n_head", "d_ff")
DEEP = replace(TINY, n_layer=4)


def resized(config: ModelConfig, factor: float, *names: str) -> ModelConfig:
    return config.resized({name: int(config.size(name) * factor) for name in names})


def grown(
    small: Transformer,
    target: ModelConfig,
    *operators: GrowthOperator,
    policy: StatePolicy = StatePolicy.SCALED,
) -> Grown:
    """Growth with the moments that a gradient and its square would leave."""
    found = gradients(small)
    squares = {name: gradient**2 for name, gradient in found.items()}
    moments = Moments.adam(found, squares, dict.fromkeys(found, 5.0))
    return grow(small, moments, target, operators, policy, Resources(generator(1)))


def change(small: Transformer, target: ModelConfig, *operators: GrowthOperator) -> float:
    """By how much growth changes a logit."""
    return gap(logits(grown(small, target, *operators).model), logits(small))


def weight_of(model: Transformer, name: str) -> Tensor:
    return model.state_dict()[name]


# Net2Net as TokenFormer has it


def test_the_corner_holds_the_old_weights_and_nothing_around_it_is_zero() -> None:
    small, method = trained_like(TINY), Net2NetCorner()
    after = grown(small, resized(TINY, 1.5, "d_model", "d_ff"), *method.operators)
    before = small.state_dict()
    for name, weight in after.model.state_dict().items():
        corner = weight[tuple(slice(size) for size in before[name].shape)]
        if "qkv" not in name:
            assert torch.equal(corner, before[name])
        assert weight.count_nonzero() == weight.numel()
    assert change(small, after.model.config, *method.operators) > 1e-2
    assert method.state_policy is StatePolicy.RESET


def test_a_corner_that_grows_heads_keeps_query_key_and_value_apart() -> None:
    small = trained_like(TINY)
    large = grown(small, replace(TINY, n_head=5), *Net2NetCorner().operators).model
    old = weight_of(small, "blocks.0.qkv.weight").view(3, 3, 4, 6)
    assert torch.equal(weight_of(large, "blocks.0.qkv.weight").view(3, 5, 4, 6)[:, :3], old)


# Staged training


@every_variant
@pytest.mark.parametrize("factor", [2, 3])
def test_models_side_by_side_compute_the_same(config: ModelConfig, factor: int) -> None:
    small = trained_like(config)
    target = replace(resized(config, factor, *WIDTHS), n_layer=4)
    assert change(small, target, *StagedTraining(noise=0.3).operators) < EXACT


def test_matrices_are_block_diagonal_and_the_last_norm_or_an_untied_head_is_halved() -> None:
    for config in (TINY, replace(TINY, tied=True)):
        small = trained_like(config)
        large = grown(small, resized(config, 2, *WIDTHS), SideBySide(noise=0)).model
        up = weight_of(small, "blocks.0.up.weight")
        assert torch.equal(weight_of(large, "blocks.0.up.weight"), torch.block_diag(up, up))
        assert torch.equal(
            weight_of(large, "blocks.0.norm_mlp.weight"),
            weight_of(small, "blocks.0.norm_mlp.weight").repeat(2),
        )
        assert torch.equal(
            weight_of(large, "embed.weight"), weight_of(small, "embed.weight").repeat(1, 2)
        )
        gain = weight_of(small, "norm_head.weight").repeat(2)
        assert torch.equal(weight_of(large, "norm_head.weight"), gain / 2 if config.tied else gain)
        if not config.tied:
            assert torch.equal(
                weight_of(large, "head.weight"), weight_of(small, "head.weight").repeat(1, 2) / 2
            )


@every_variant
def test_true_moments_equal_the_gradients_in_all_blocks_and_released_ones_do_not(
    config: ModelConfig,
) -> None:
    small, target = trained_like(config), resized(config, 2, *WIDTHS)
    true, released = (
        grown(small, target, SideBySide(noise=0, released=flag)) for flag in (False, True)
    )
    found = gradients(true.model)
    for name, gradient in found.items():
        assert gap(true.moments.exp_avg[name], gradient) < 1e-12
        assert gap(true.moments.exp_avg_sq[name], gradient**2) < 1e-12
    name = "blocks.0.down.weight"
    old = gradients(small)[name]
    assert gap(released.moments.exp_avg[name], torch.block_diag(old, old) / 2) < 1e-12
    assert gap(released.moments.exp_avg_sq[name], torch.block_diag(old, old) ** 2 / 4) < 1e-12
    assert gap(released.moments.exp_avg[name], found[name]) > 1e-4


@pytest.mark.parametrize(("noise", "separates"), [(0.0, False), (0.05, True)])
@pytest.mark.parametrize("released", [False, True])
def test_without_noise_two_models_side_by_side_stay_one(
    noise: float, separates: bool, released: bool
) -> None:
    method = StagedTraining(noise=noise, released=released)
    target = replace(resized(TINY, 2, *WIDTHS), n_layer=4)
    after = grown(trained_like(TINY), target, *method.operators, policy=method.state_policy)
    train(after.model, 20, after.moments)
    one, other = weight_of(after.model, "embed.weight").detach().chunk(2, dim=1)
    assert gap(one, other) > 1e-2 if separates else gap(one, other) < 1e-9
    assert method.leaves_copies_equal is not separates


def test_where_only_one_side_grows_there_are_no_blocks() -> None:
    small = trained_like(TINY)
    for names in (("d_model",), ("d_ff",), ("n_head", "d_ff")):
        assert change(small, resized(TINY, 2, *names), SideBySide()) < EXACT
    mixed = replace(resized(TINY, 2, "d_model"), n_head=12, d_ff=30)  # 2, 4 and 3 copies
    assert change(small, mixed, SideBySide()) < EXACT


# bert2BERT


def test_drawn_units_keep_the_function_and_drawn_features_do_not() -> None:
    small = trained_like(TINY)
    for names, factor, is_exact in (
        (("n_head", "d_ff"), 2, True),
        (("d_ff",), 1.5, True),
        (("d_model",), 2, False),
    ):
        target = resized(TINY, factor, *names)
        assert (change(small, target, FPI()) < EXACT) is is_exact
        assert FPI().keeps_function(TINY, target) is is_exact


@pytest.mark.parametrize(("factor", "is_exact"), [(2, True), (3, True), (1.5, False)])
def test_a_circular_map_is_exact_where_it_repeats_features_equally_often(
    factor: float, is_exact: bool
) -> None:
    operator, target = FPI(map="circular"), resized(TINY, factor, *WIDTHS)
    assert (change(trained_like(TINY), target, operator) < EXACT) is is_exact
    assert operator.keeps_function(TINY, target) is is_exact


def test_the_two_readings_of_aki_take_from_the_next_layer_what_they_say() -> None:
    small, target = trained_like(TINY), resized(TINY, 2, *WIDTHS)
    fpi = grown(small, target, FPI(noise=0, map="circular")).model
    literal, hidden = (
        grown(small, target, AKI(noise=0, map="circular", reading=reading)).model
        for reading in ("literal", "hidden")
    )
    for model in (literal, hidden):
        this, above = (weight_of(fpi, f"blocks.{layer}.up.weight") for layer in (0, 1))
        assert torch.equal(
            weight_of(model, "blocks.0.up.weight"), torch.cat((this[:10], above[10:]))
        )
        for name, weight in model.state_dict().items():
            if not name.startswith("blocks.0.") or "norm" in name:
                assert torch.equal(weight, fpi.state_dict()[name])  # the last layer has none above
    this, above = (weight_of(fpi, f"blocks.{layer}.down.weight") for layer in (0, 1))
    assert torch.equal(weight_of(literal, "blocks.0.down.weight"), torch.cat((this[:6], above[6:])))
    assert torch.equal(
        weight_of(hidden, "blocks.0.down.weight"), torch.cat((this[:, :10], above[:, 10:]), 1)
    )


def test_aki_loses_the_function_and_fpi_is_what_it_differs_from() -> None:
    small, target = trained_like(TINY), resized(TINY, 2, "n_head", "d_ff")
    assert change(small, target, *Bert2Bert().operators) < EXACT
    for reading in ("literal", "hidden"):
        assert change(small, target, *Bert2Bert(reading=reading).operators) > 1e-2


# LEMON

RATIOS: dict[str, dict[str, int]] = {
    "by 7/6": {"d_model": 7},
    "by 1.5, 5/3, 1.7 and 2": {"d_model": 9, "n_head": 5, "d_ff": 17, "n_layer": 4},
    "by 2": {"d_model": 12, "n_head": 6, "d_ff": 20, "n_layer": 3},
    "by 2.5": {"d_model": 15, "n_head": 7, "d_ff": 25},
    "by 3": {"d_model": 18, "n_head": 9, "d_ff": 30},
}


@every_variant
@pytest.mark.parametrize("sizes", RATIOS.values(), ids=RATIOS)
@pytest.mark.parametrize("split", SPLITS)
def test_lossless_expansion_is_lossless_at_any_ratio(
    config: ModelConfig, sizes: dict[str, int], split: str
) -> None:
    small = trained_like(replace(config, norm_eps=0.1))
    assert change(small, small.config.resized(sizes), *Lemon(split).operators) < EXACT


@dataclass(frozen=True)
class OtherFill(Lossless):
    """Broken on purpose: zeros under LayerNorm, means under RMSNorm."""

    @override
    def fill(self, axis: str, side: Side, small: ModelConfig) -> Fill:
        if side == "into":
            return "fresh"
        return "mean" if small.norm == "rmsnorm" else "zero"


@dataclass(frozen=True)
class UnscaledGain(Lossless):
    """Broken on purpose: norms do not know that there are more features."""

    @override
    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        return 1.0


@dataclass(frozen=True)
class NormCountsCopies(Lossless):
    """Broken on purpose: the rest of the residual stream repeats in a circle, too."""

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(torch.arange(new) % old)


@every_variant
@pytest.mark.parametrize("broken", [OtherFill(), UnscaledGain(), NormCountsCopies()])
def test_lossless_expansion_needs_the_right_rest_and_the_right_gain(
    config: ModelConfig, broken: Lossless
) -> None:
    assert change(trained_like(config), replace(config, d_model=9), broken) > 1e-3


def test_lossless_expansion_needs_the_scaled_epsilon() -> None:
    small = trained_like(replace(TINY, norm_eps=0.1))
    large = grown(small, replace(small.config, d_model=9), Lossless()).model
    assert large.norm_head.epsilon == pytest.approx(0.1 * 6 / 9, abs=1e-12)
    state = large.state_dict()
    large.load_state_dict(state | {n: v * 0 + 0.1 for n, v in state.items() if n.endswith("eps")})
    assert gap(logits(large), logits(small)) > 1e-3


def test_readers_are_split_entry_by_entry_into_parts_that_sum_to_the_whole() -> None:
    small = trained_like(TINY)
    old = weight_of(small, "blocks.0.up.weight")
    for split, n_copies in (("comp", 2), ("comp", 3), ("projection", 2), ("projection", 3)):
        target = resized(TINY, n_copies, "d_model")
        large = grown(small, target, Lossless(split)).model
        parts = weight_of(large, "blocks.0.up.weight").chunk(n_copies, 1)
        assert gap(torch.stack(parts).sum(0), old) < 1e-12
        assert all(gap(a, b) > 1e-2 for a, b in pairwise(parts))
        is_one_near_the_whole = float((parts[0] - old).norm() / old.norm()) < 0.3
        assert is_one_near_the_whole is (split == "comp")


def test_a_tied_head_is_compensated_in_the_last_norm() -> None:
    config = replace(TINY, tied=True)
    small = trained_like(config)
    large = grown(small, replace(config, d_model=13), Lossless("projection")).model
    scale = math.sqrt(2 * 6 / 13) / 2
    assert (
        gap(
            weight_of(large, "norm_head.weight")[:12],
            weight_of(small, "norm_head.weight").repeat(2) * scale,
        )
        < 1e-12
    )
    assert torch.equal(weight_of(large, "embed.weight")[:, :6], weight_of(small, "embed.weight"))


def test_the_last_blocks_double_and_no_more() -> None:
    assert [DoubleTop().source(i, 4, 6) for i in range(6)] == [0, 1, 2, 2, 3, 3]
    assert [DoubleTop().source(i, 3, 6) for i in range(6)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(GrowthError, match="n_layer can at most double from 2, got 5"):
        change(trained_like(TINY), replace(TINY, n_layer=5), *Lemon().operators)


# SPARKLING


@every_variant
def test_scaled_copies_are_exact_at_two_and_only_there(config: ModelConfig) -> None:
    small = trained_like(config)
    for factor in (2, 1.5):
        target = resized(config, factor, *WIDTHS)
        is_exact = change(small, target, *Sparkling().operators) < EXACT
        assert is_exact is (factor == 2)
        assert ScaledCopies().keeps_function(config, target) is (factor == 2)


@pytest.mark.parametrize("n_new", [1, 3, 5, pytest.param(10, marks=pytest.mark.slow)])
def test_readers_of_scaled_copies_keep_the_size_of_what_they_compute(n_new: int) -> None:
    """Of n inputs of unit variance c n are read twice: the variance of the sum grows by 1 + 3 c."""
    axis = ScaledCopies().axis_map("d_ff", 10, 10 + n_new, generator())
    reader = torch.randn(4000, 10, dtype=torch.float64, generator=generator())
    inputs = torch.randn(10, 4000, dtype=torch.float64, generator=generator(1))
    large = (reader[:, axis.source] * axis.share) @ inputs[axis.source]
    unscaled = reader[:, axis.source] @ inputs[axis.source]
    size = float((reader @ inputs).square().mean())
    assert float(large.square().mean()) == pytest.approx(size, rel=0.05)
    assert float(unscaled.square().mean()) > 1.2 * size


def test_sparkling_refuses_to_make_two_new_copies_of_one_coordinate() -> None:
    with pytest.raises(GrowthError, match="d_ff can at most double from 10, got 30"):
        change(trained_like(TINY), resized(TINY, 3, "d_ff"), *Sparkling().operators)


@pytest.mark.parametrize("policy", [StatePolicy.ASYMMETRIC, StatePolicy.RESET, StatePolicy.CARRY])
def test_it_is_the_asymmetric_state_that_separates_scaled_copies(policy: StatePolicy) -> None:
    method = Sparkling()
    after = grown(trained_like(TINY), resized(TINY, 2, *WIDTHS), *method.operators, policy=policy)
    train(after.model, 20, after.moments)
    one, other = weight_of(after.model, "embed.weight").detach().chunk(2, dim=1)
    assert (gap(one, other) > 1e-2) is (policy is method.state_policy)


def test_only_new_entries_of_sparkling_learn_faster() -> None:
    rewarm = Sparkling().rewarm
    assert (rewarm.which, rewarm.factor(0, 1e6), rewarm.factor(1e6, 1e6)) == ("new", 1.0, 1.3)


# Depth


@pytest.mark.parametrize(
    ("order", "n_small", "expected"),
    [
        ("whole", 3, [0, 1, 2, 0, 1, 2]),
        ("whole", 4, [0, 1, 2, 3, 2, 3]),
        ("interleaved", 3, [0, 0, 1, 1, 2, 2]),
        ("interleaved", 4, [0, 0, 1, 2, 2, 3]),
        ("last", 4, [0, 1, 2, 3, 3, 3]),
        ("gradual", 4, [0, 1, 2, 3, 2, 3]),
        ("gradual", 2, [0, 1, 0, 1, 0, 1]),
        ("middle", 5, [0, 1, 2, 2, 3, 4]),
        ("middle", 4, [0, 1, 0, 1, 2, 3]),
        ("middle", 2, [0, 1, 0, 1, 0, 1]),
    ],
)
def test_orders_of_copies(order: str, n_small: int, expected: list[int]) -> None:
    operator = RepeatBlocks(order)
    assert [operator.source(layer, n_small, 6) for layer in range(6)] == expected


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_uses_every_block_and_grows_by_any_number(order: str) -> None:
    operator = RepeatBlocks(order)
    for n_small in range(1, 7):
        for n_large in range(n_small + 1, 15):
            sources = [operator.source(layer, n_small, n_large) for layer in range(n_large)]
            assert set(sources) == set(range(n_small)), (n_small, n_large)


def test_all_orders_of_doubling_one_block_are_one() -> None:
    assert {(ORDERS[name](0, 1, 2), ORDERS[name](1, 1, 2)) for name in ORDERS} == {(0, 0)}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("middle", [0, 1, 0, 1, 0, 1, 2, 3]),
        ("gradual", [0, 1, 2, 3, 2, 3, 2, 3]),
        ("whole", [0, 1, 2, 3, 2, 3, 2, 3]),
        ("last", [0, 1, 2, 3, 3, 3, 3, 3]),
    ],
)
def test_stages_of_a_ladder_stack_on_one_another(order: str, expected: list[int]) -> None:
    """Layer by layer, from 4 to 8 in two growths of two layers each."""
    model = trained_like(DEEP)
    marks = {float(weight_of(model, f"blocks.{i}.norm_mlp.weight")[0]): i for i in range(4)}
    sizes = Ladder(shrink={"n_layer": 2}, n_growths=2).sizes(replace(TINY, n_layer=8))
    assert [config.n_layer for config in sizes] == [4, 6, 8]
    for config in sizes[1:]:
        model = grown(model, config, *Stacking(order).operators).model
    gains = [weight_of(model, f"blocks.{i}.norm_mlp.weight") for i in range(8)]
    assert [marks[float(gain[0])] for gain in gains] == expected


def test_stages_of_midas_last_in_proportion_to_a_power_of_their_number() -> None:
    assert Proportional(alpha=2.0).times(2) == pytest.approx((1 / 14, 5 / 14))


def test_a_late_model_keeps_its_layer_at_the_bottom_and_gets_live_random_ones() -> None:
    small = trained_like(replace(TINY, n_layer=1))
    target = replace(TINY, n_layer=3)
    after = grown(small, target, *LateDepth().operators)
    kinds = {name: axes.kind for name, axes in after.model.axes().items()}
    for name, weight in after.model.state_dict().items():
        if not name.startswith(("blocks.1.", "blocks.2.")):
            assert torch.equal(weight, small.state_dict()[name])
        elif kinds[name] is Kind.MAP:
            assert weight.count_nonzero() == weight.numel()
            assert float(after.moments.exp_avg[name].abs().max()) == 0
    assert not torch.equal(
        weight_of(after.model, "blocks.1.up.weight"), weight_of(after.model, "blocks.2.up.weight")
    )
    assert change(small, target, *LateDepth().operators) > 1e-2
    assert [RandomBlocks().source(i, 2, 5) for i in range(5)] == [0, 1, -1, -1, -1]
    copies = grown(small, target, *LateDepth("copies").operators).model
    assert torch.equal(
        weight_of(copies, "blocks.2.up.weight"), weight_of(small, "blocks.0.up.weight")
    )


# All of them

METHODS: list[type[Baseline]] = [
    Net2NetCorner, StagedTraining, Bert2Bert, Lemon, Sparkling, Stacking, LateDepth,
]  # fmt: skip
BAD_ARGUMENTS: list[tuple[Any, dict[str, str]]] = [
    (Bert2Bert, {"reading": "odd"}),
    (Bert2Bert, {"map": "odd"}),
    (Lemon, {"split": "odd"}),
    (Stacking, {"order": "odd"}),
    (LateDepth, {"new": "odd"}),
]


@pytest.mark.parametrize(("method", "arguments"), BAD_ARGUMENTS)
def test_an_unknown_choice_is_refused_with_those_that_exist(
    method: type[Baseline], arguments: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match=r"must be one of \[.*\], got 'odd'"):
        method(**arguments)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_configuration_that_names_its_paper(method: type[Baseline]) -> None:
    config = load_method(method.__module__.rpartition(".")[2])
    assert config.target == f"{method.__module__}:{method.__name__}"
    assert config.paper
    assert "Deviations" in str(__import__(method.__module__, fromlist=["_"]).__doc__)


# What they share in benchmark.growth


def test_only_what_growth_needs_is_drawn() -> None:
    """A method without random weights leaves the generator to its noise alone."""
    small, source = trained_like(TINY), generator(1)
    before = source.get_state()
    moments = Moments.zeros(small)
    target = resized(TINY, 2, "d_model")
    grow(small, moments, target, [ScaledCopies()], StatePolicy.RESET, Resources(source))
    assert torch.equal(source.get_state(), before)
    grow(small, moments, target, [SideBySide()], StatePolicy.RESET, Resources(source))
    assert not torch.equal(source.get_state(), before)


def test_noise_goes_round_the_copies() -> None:
    axis = AxisMap.evenly(torch.tensor([2, -1, 0, 2, 1, 0, 2]))
    assert axis.next_copy.tolist() == [3, 1, 5, 6, 4, 2, 0]
    assert axis.sourced.tolist() == [0, 2, 3, 4, 5, 6]
    assert axis.firsts.tolist() == [0, 2, 4]
    assert axis.has_copies
    assert not AxisMap.evenly(torch.tensor([0, 1, -1])).has_copies


def test_a_rest_filled_with_the_mean_leaves_the_mean_of_all_features() -> None:
    config, n_rest = replace(TINY, norm="layernorm", positions="learned"), 3
    small = trained_like(config)
    large = grown(small, replace(config, d_model=6 + n_rest), Lossless()).model
    for table in ("embed.weight", "positions.weight"):
        old, new = small.state_dict()[table], large.state_dict()[table]
        assert torch.equal(new[:, :6], old)
        expected: Tensor = old.mean(1, keepdim=True).expand(-1, n_rest)
        assert gap(new[:, 6:], expected) < 1e-12
