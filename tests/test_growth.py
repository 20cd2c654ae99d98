"""Growth is exact where it claims to be, and moments obey the chain rule: the rules, proved.

The operators here are the simplest of each kind; published ones are held to the same rules by
`benchmark.contract`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

from benchmark.base.errors import GrowthError
from benchmark.growth.axis_map import AxisMap
from benchmark.growth.depth import DepthOperator
from benchmark.growth.grow import Grown, check_reach, grow
from benchmark.growth.noise import add_split_noise
from benchmark.growth.operator import (
    GrowthOperator,
    Moments,
    Resources,
    StatePolicy,
    is_residual_write,
)
from benchmark.growth.width import WidthOperator
from benchmark.model.transformer import Axes, Kind, ModelConfig, Transformer

EXACT = 1e-10


@dataclass(frozen=True)
class Tile(WidthOperator):
    """Every coordinate k times, read with the given shares; equal ones if there are none."""

    shares: tuple[float, ...] = ()

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        source = torch.arange(new) % old
        if not self.shares:
            return AxisMap.evenly(source)
        return AxisMap(
            source, torch.tensor(self.shares, dtype=torch.float64)[torch.arange(new) // old]
        )


@dataclass(frozen=True)
class Draw(WidthOperator):
    """Net2Net: repeat coordinates drawn at random, read with random shares."""

    grows = frozenset({"n_head", "d_ff"})

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        source = torch.cat(
            (torch.arange(old), torch.randint(old, (new - old,), generator=generator))
        )
        weight = torch.rand(new, dtype=torch.float64, generator=generator) + 0.1
        total = torch.zeros(old, dtype=torch.float64).index_add(0, source, weight)
        return AxisMap(source, weight / total[source])


@dataclass(frozen=True)
class DrawAll(Draw):
    """Broken on purpose: a norm weighs every feature by its count, so d_model is not exact."""

    grows = frozenset({"d_model", "n_head", "d_ff"})


@dataclass(frozen=True)
class ZeroFill(WidthOperator):
    """Add coordinates that are zero on one side of each product."""

    scales_gain: bool = True

    @override
    def axis_map(self, axis: str, old: int, new: int, generator: torch.Generator) -> AxisMap:
        return AxisMap.evenly(torch.cat((torch.arange(old), torch.full((new - old,), -1))))

    @override
    def gain_scale(self, small: ModelConfig, large: ModelConfig) -> float:
        return math.sqrt(small.d_model / large.d_model) if self.scales_gain else 1.0


@dataclass(frozen=True)
class NoisyTile(Tile):
    """Copies that differ, by noise that cancels."""

    @override
    def perturb(
        self, weight: Tensor, repeated: dict[int, AxisMap], generator: torch.Generator
    ) -> Tensor:
        return add_split_noise(weight, repeated, 0.5, generator)


@dataclass(frozen=True)
class Insert(DepthOperator):
    """After each old block, copies whose residual writes are zero."""

    copies_moments = False

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer * n_small // n_large

    @override
    def adapt(self, weight: Tensor, axes: Axes) -> Tensor:
        return torch.zeros_like(weight) if is_residual_write(axes) else weight


@dataclass(frozen=True)
class Append(Insert):
    """Fresh blocks on top, with residual writes of zero."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer if layer < n_small else -1


@dataclass(frozen=True)
class Stack(DepthOperator):
    """The whole stack again; does not keep the function."""

    @override
    def source(self, layer: int, n_small: int, n_large: int) -> int:
        return layer % n_small


def resized(config: ModelConfig, factor: float, *names: str) -> ModelConfig:
    return replace(config, **{name: int(config.size(name) * factor) for name in names})  # type: ignore[arg-type]


WIDTHS = ("d_model", "n_head", "d_ff")
UNEVEN = Tile((1 / 3, 2 / 3))
Case = tuple[GrowthOperator, Callable[[ModelConfig], ModelConfig]]
REPLICATION: dict[str, Case] = {
    "tile x2": (Tile(), lambda c: resized(c, 2, *WIDTHS)),
    "tile x3": (Tile(), lambda c: resized(c, 3, *WIDTHS)),
    "tile d_model": (Tile(), lambda c: resized(c, 2, "d_model")),
    "tile heads": (Tile(), lambda c: resized(c, 2, "n_head")),
    "uneven heads and d_ff": (UNEVEN, lambda c: resized(c, 2, "n_head", "d_ff")),
    "drawn heads and d_ff": (Draw(), lambda c: replace(c, n_head=5, d_ff=17)),
}
"""Function-preserving maps for which the gradient rule is exact in every entry."""

PRESERVING: dict[str, Case] = REPLICATION | {
    "uneven everything": (UNEVEN, lambda c: resized(c, 2, *WIDTHS)),
    "noisy everything": (NoisyTile(), lambda c: resized(c, 3, *WIDTHS)),
    "new heads and d_ff": (ZeroFill(), lambda c: replace(c, n_head=4, d_ff=11)),
    "insert": (Insert(), lambda c: replace(c, n_layer=5)),
    "append": (Append(), lambda c: replace(c, n_layer=3)),
}
WIDER = replace(TINY, d_model=8, n_head=4, d_ff=11)
"""By zero fill: no size need divide."""


def cases(table: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("operator", "resize"), table.values(), ids=table)


def state_of(model: Transformer) -> Moments:
    """Moments that a gradient and its square would leave, so that the rule can be read off."""
    found = gradients(model)
    squares = {name: gradient**2 for name, gradient in found.items()}
    return Moments.adam(found, squares, dict.fromkeys(found, 5.0))


def grown(
    small: Transformer, target: ModelConfig, *operators: GrowthOperator,
    policy: StatePolicy = StatePolicy.SCALED, seed: int = 1,
) -> Grown:  # fmt: skip
    return grow(small, state_of(small), target, operators, policy, Resources(generator(seed)))


@every_variant
@cases(PRESERVING)
def test_growth_keeps_the_function(
    config: ModelConfig, operator: GrowthOperator, resize: Callable[[ModelConfig], ModelConfig]
) -> None:
    small = trained_like(config)
    large = grown(small, resize(config), operator).model
    assert large.config == resize(config) != config
    assert gap(logits(large), logits(small)) < EXACT


@every_variant
def test_zero_fill_of_d_model_keeps_the_function_under_rmsnorm_only(config: ModelConfig) -> None:
    small = trained_like(replace(config, norm_eps=0.1))
    target = replace(small.config, d_model=8, n_head=4, d_ff=11)
    error = gap(logits(grown(small, target, ZeroFill()).model), logits(small))
    assert error < EXACT if config.norm == "rmsnorm" else error > 1e-2


def test_zero_fill_of_d_model_needs_the_scaled_gain_and_the_scaled_epsilon() -> None:
    small = trained_like(replace(TINY, norm_eps=0.1))
    target = replace(small.config, d_model=9)
    assert gap(logits(grown(small, target, ZeroFill(scales_gain=False)).model), logits(small)) > 0.1
    large = grown(small, target, ZeroFill()).model
    assert large.norm_head.epsilon == pytest.approx(0.1 * 6 / 9, abs=1e-12)
    state = large.state_dict()
    large.load_state_dict(state | {n: v * 0 + 0.1 for n, v in state.items() if n.endswith("eps")})
    assert gap(logits(large), logits(small)) > 1e-3


def test_drawing_features_of_the_residual_stream_does_not_keep_the_function() -> None:
    small = trained_like(TINY)
    large = grown(small, replace(TINY, d_model=8, n_head=4), DrawAll()).model
    assert gap(logits(large), logits(small)) > 1e-2


def test_stacking_does_not_keep_the_function() -> None:
    small = trained_like(TINY)
    assert gap(logits(grown(small, replace(TINY, n_layer=4), Stack()).model), logits(small)) > 1e-2


def test_stacking_repeats_the_blocks_bit_for_bit() -> None:
    small = trained_like(TINY)
    large = grown(small, replace(TINY, n_layer=5), Stack()).model.state_dict()
    for layer in range(5):
        block = {n: t for n, t in large.items() if n.startswith(f"blocks.{layer}.")}
        assert block
        for name, tensor in block.items():
            old = name.replace(f"blocks.{layer}.", f"blocks.{layer % 2}.")
            assert torch.equal(tensor, small.state_dict()[old])


@every_variant
@cases(REPLICATION)
def test_moments_follow_the_gradients_of_the_grown_model(
    config: ModelConfig, operator: GrowthOperator, resize: Callable[[ModelConfig], ModelConfig]
) -> None:
    """The gradient rule: the small model's gradient, grown, is the grown model's gradient."""
    after = grown(trained_like(config), resize(config), operator)
    for name, gradient in gradients(after.model).items():
        assert gap(after.moments.exp_avg[name], gradient) < 1e-12
        assert gap(after.moments.exp_avg_sq[name], gradient**2) < 1e-12


@cases({"zero fill": (ZeroFill(), lambda _: WIDER), "insert": PRESERVING["insert"]})
def test_old_entries_keep_their_gradients_when_new_ones_only_add(
    operator: GrowthOperator, resize: Callable[[ModelConfig], ModelConfig]
) -> None:
    after = grown(trained_like(TINY), resize(TINY), operator)
    for name, gradient in gradients(after.model).items():
        old = ~after.is_new[name]
        torch.testing.assert_close(
            after.moments.exp_avg[name][old], gradient[old], rtol=0, atol=1e-12
        )
        assert not after.moments.exp_avg[name][~old].any()


def test_uneven_shares_of_the_residual_stream_break_the_rule() -> None:
    """A norm's backward pass mixes the features, so no share fits what writes them."""
    after = grown(trained_like(TINY), resized(TINY, 2, "d_model"), UNEVEN)
    found = gradients(after.model)
    worst = {name: gap(after.moments.exp_avg[name], found[name]) for name in found}
    assert worst["blocks.0.o.weight"] > 1e-4
    assert worst["blocks.0.qkv.weight"] < 1e-12  # readers see equal copies


def test_moments_that_are_copied_as_they_are_break_the_rule() -> None:
    after = grown(trained_like(TINY), resized(TINY, 2, *WIDTHS), Tile(), policy=StatePolicy.CARRY)
    found = gradients(after.model)["blocks.0.down.weight"]
    assert gap(after.moments.exp_avg["blocks.0.down.weight"], 2 * found) < 1e-12


def pulled_back(
    operator: GrowthOperator, small: Transformer, target: ModelConfig
) -> dict[str, tuple[Tensor, Tensor]]:
    """For theta' = M theta + c: M^T times the large gradient, beside the small gradient.

    Differentiating sum(g' * (M theta + c)) by theta gives M^T g' without writing M down.
    """
    transfer = operator.prepare(small, target, Resources(generator(1)))
    large = Transformer(target, generator=generator(2)).double()
    theta = {n: t.detach().clone() for n, t in small.state_dict().items()}
    names = [name for name, _ in small.named_parameters()]
    for name in names:
        theta[name].requires_grad_()
    grown_weights = transfer.weights(theta, large.state_dict())
    large.load_state_dict({n: t.detach() for n, t in grown_weights.items()})
    g_large = gradients(large)
    inner = torch.stack([(grown_weights[name] * g).sum() for name, g in g_large.items()]).sum()
    back = torch.autograd.grad(inner, [theta[name] for name in names])
    small_gradient = gradients(small)
    return {n: (g, small_gradient[n]) for n, g in zip(names, back, strict=True)}


@every_variant
@cases({name: case for name, case in PRESERVING.items() if "noisy" not in name})
def test_the_chain_rule_holds(
    config: ModelConfig, operator: GrowthOperator, resize: Callable[[ModelConfig], ModelConfig]
) -> None:
    """L'(M theta + c) = L(theta) for all theta, hence M^T grad L' = grad L."""
    for pulled, expected in pulled_back(operator, trained_like(config), resize(config)).values():
        assert gap(pulled, expected) < 1e-12


def test_the_chain_rule_holds_for_zero_fill_with_its_scaled_gains() -> None:
    for pulled, expected in pulled_back(ZeroFill(), trained_like(TINY), WIDER).values():
        assert gap(pulled, expected) < 1e-12


def test_the_chain_rule_fails_where_the_function_changes() -> None:
    pulled = pulled_back(Stack(), trained_like(TINY), replace(TINY, n_layer=4))
    assert max(gap(*pair) for pair in pulled.values()) > 1e-3


@every_variant
def test_width_then_depth_is_depth_then_width(config: ModelConfig) -> None:
    small, target = trained_like(config), replace(resized(config, 2, *WIDTHS), n_layer=4)
    orders = ((Tile(), Insert()), (Insert(), Tile()))
    one, other = (grown(small, target, *operators) for operators in orders)
    assert gap(logits(one.model), logits(small)) < EXACT
    assert gap(logits(one.model), logits(other.model)) < EXACT
    for name, moment in one.moments.exp_avg.items():
        assert gap(moment, other.moments.exp_avg[name]) < 1e-12
        assert torch.equal(one.is_new[name], other.is_new[name])


def test_growing_twice_is_growing_once() -> None:
    """x2 then x2 copies in another order than x4, but computes the same."""
    small = trained_like(TINY)
    twice = grown(grown(small, resized(TINY, 2, *WIDTHS), Tile()).model,
                  resized(TINY, 4, *WIDTHS), Tile())  # fmt: skip
    once = grown(small, resized(TINY, 4, *WIDTHS), Tile())
    for name, tensor in once.model.state_dict().items():
        assert gap(tensor, twice.model.state_dict()[name]) < EXACT


SAME: Case = (Tile(), lambda c: c)


@cases(PRESERVING | {"stack": (Stack(), lambda c: replace(c, n_layer=4)), "nothing": SAME})
def test_the_small_model_is_left_alone_and_shares_nothing_with_the_large_one(
    operator: GrowthOperator, resize: Callable[[ModelConfig], ModelConfig]
) -> None:
    small = trained_like(TINY)
    moments = state_of(small)
    tensors = [
        *small.state_dict().values(),
        *moments.exp_avg.values(),
        *moments.exp_avg_sq.values(),
    ]
    before = [tensor.clone() for tensor in tensors]
    resources = Resources(generator(1))
    after = grow(small, moments, resize(TINY), [operator], StatePolicy.CARRY, resources)
    for tensor in (
        *after.model.state_dict().values(), *after.moments.exp_avg.values(),
        *after.moments.exp_avg_sq.values(), *after.is_new.values(),
    ):  # fmt: skip
        assert tensor.untyped_storage().data_ptr() not in {
            old.untyped_storage().data_ptr() for old in tensors
        }
        tensor.fill_(7)
    assert all(map(torch.equal, tensors, before))


@pytest.mark.parametrize("operator", [Draw(), NoisyTile(), ZeroFill()])
def test_the_seed_alone_decides_the_outcome(operator: GrowthOperator) -> None:
    small, target = trained_like(TINY), resized(TINY, 2, "n_head", "d_ff")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (grown(small, target, operator, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = [
        (tensor, same.model.state_dict()[name], other.model.state_dict()[name])
        for name, tensor in one.model.state_dict().items()
    ]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_growth_keeps_the_precision_and_the_epsilon_of_the_model() -> None:
    small = Transformer(TINY, generator=generator())
    after = grown(small, resized(TINY, 2, *WIDTHS), Tile())
    assert {p.dtype for p in after.model.parameters()} == {torch.float32}
    assert after.model.norm_head.epsilon == TINY.norm_eps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 3}, "cannot shrink d_model from 6 to 3"),
        ({"n_layer": 4}, r"cannot grow n_layer from 2 to 4: this grows \['d_ff', 'd_model'"),
        ({"vocab_size": 99}, "cannot grow vocab_size"),
        ({"norm": "layernorm"}, "cannot change norm from 'rmsnorm' to 'layernorm'"),
        ({"tied": True}, "cannot change tied"),
        ({"norm_eps": 1e-6}, "cannot change norm_eps"),
        ({"own": (("rank", 4),)}, "cannot change rank from None to 4"),
    ],
)
def test_refuses_what_no_operator_does(changes: dict[str, Any], message: str) -> None:
    small = trained_like(TINY)
    with pytest.raises(GrowthError, match=message):
        grown(small, replace(TINY, **changes), Tile())
    check_reach(TINY, resized(TINY, 2, *WIDTHS), [Tile()])


# Which entries are new, and what becomes of the moments


def images(
    small: Transformer, target: ModelConfig, *operators: GrowthOperator
) -> dict[str, Tensor]:
    """For every large entry the number of the small entry it repeats; 0 where there is none.

    Numbers travel like first moments under CARRY: repeated, never scaled.
    """
    numbers, n = {}, 1
    for name, parameter in small.named_parameters():
        numbers[name] = torch.arange(n, n + parameter.numel()).view(parameter.shape).double()
        n += parameter.numel()
    moments = Moments.adam(numbers, numbers, dict.fromkeys(numbers, 1.0))
    resources = Resources(generator(1))
    return grow(small, moments, target, operators, StatePolicy.CARRY, resources).moments.exp_avg


@dataclass(frozen=True)
class InsertWithMoments(Insert):
    """As `Insert`, with images that can be followed."""

    copies_moments = True


@pytest.mark.parametrize(
    ("operators", "target"),
    [
        ([Tile()], resized(TINY, 3, *WIDTHS)),
        ([Draw()], replace(TINY, n_head=5, d_ff=17)),
        ([ZeroFill()], WIDER),
        ([Stack()], replace(TINY, n_layer=5)),
        ([InsertWithMoments()], replace(TINY, n_layer=5)),
        ([Append()], replace(TINY, n_layer=5)),
        ([Tile(), Stack()], replace(resized(TINY, 2, *WIDTHS), n_layer=4)),
        ([Stack(), Draw()], replace(TINY, n_layer=3, n_head=5, d_ff=17)),
        ([ZeroFill(), Append()], replace(WIDER, n_layer=3)),
    ],
)
def test_new_is_what_is_not_the_first_image_of_an_old_entry(
    operators: Sequence[GrowthOperator], target: ModelConfig
) -> None:
    small, seen = trained_like(TINY), {0.0}
    is_new = grown(small, target, *operators).is_new
    for name, image in images(small, target, *operators).items():
        for number, new in zip(
            image.flatten().tolist(), is_new[name].flatten().tolist(), strict=True
        ):
            assert new == (number in seen)
            seen.add(number)
    assert len(seen) == 1 + sum(p.numel() for p in small.parameters())  # every old entry lives on


def test_a_fresh_source_in_the_middle_of_an_axis_is_new() -> None:
    axis = AxisMap.evenly(torch.tensor([2, -1, 0, 2, 1, 0]))
    assert axis.is_new.tolist() == [False, True, False, True, False, True]
    assert axis.share.tolist() == [0.5, 1, 0.5, 0.5, 1, 0.5]


def test_reset_forgets_everything() -> None:
    after = grown(trained_like(TINY), resized(TINY, 2, *WIDTHS), Tile(), policy=StatePolicy.RESET)
    tensors = [*after.moments.exp_avg.values(), *after.moments.exp_avg_sq.values()]
    assert not any(tensor.any() for tensor in tensors)
    assert set(after.moments.step.values()) == {0.0}


def test_carry_repeats_and_scaled_scales() -> None:
    small, target = trained_like(TINY), resized(TINY, 2, "d_ff")
    before = state_of(small).exp_avg["blocks.0.up.weight"]
    for policy, factor in ((StatePolicy.CARRY, 1.0), (StatePolicy.SCALED, 0.5)):
        moments = grown(small, target, Tile(), policy=policy).moments
        name = "blocks.0.up.weight"
        assert gap(moments.exp_avg[name], factor * before.repeat(2, 1)) < 1e-12
        assert gap(moments.exp_avg_sq[name], factor**2 * before.repeat(2, 1) ** 2) < 1e-12
        assert set(moments.step.values()) == {5.0}


def test_asymmetric_keeps_the_first_image_only() -> None:
    small, target = trained_like(TINY), resized(TINY, 2, "d_ff")
    before = state_of(small).exp_avg
    after = grown(small, target, Tile(), policy=StatePolicy.ASYMMETRIC)
    up, down = (after.moments.exp_avg[f"blocks.0.{part}.weight"] for part in ("up", "down"))
    assert torch.equal(up[:10], before["blocks.0.up.weight"])
    assert torch.equal(down[:, :10], before["blocks.0.down.weight"])
    assert not up[10:].any()
    assert not down[:, 10:].any()
    assert set(after.moments.step.values()) == {5.0}  # the tensor is warm: some entries are old


@pytest.mark.parametrize(
    ("operator", "policy", "new_block"),
    [
        (Append(), StatePolicy.CARRY, 2),
        (Append(), StatePolicy.SCALED, 2),
        (Append(), StatePolicy.ASYMMETRIC, 2),
        (Insert(), StatePolicy.CARRY, 1),  # copies whose moments would mean nothing
        (Stack(), StatePolicy.ASYMMETRIC, 2),
        (Stack(), StatePolicy.CARRY, None),  # the copy goes on with its source's moments
    ],
)
def test_bias_correction_restarts_where_no_moment_is_left(
    operator: GrowthOperator, policy: StatePolicy, new_block: int | None
) -> None:
    after = grown(trained_like(TINY), replace(TINY, n_layer=3), operator, policy=policy)
    for name, step in after.moments.step.items():
        assert step == (0.0 if name.startswith(f"blocks.{new_block}.") else 5.0)


@pytest.mark.parametrize(
    ("operator", "target", "expected"),
    [
        (Tile(), resized(TINY, 2, *WIDTHS), (9.0, 2.0)),
        (Stack(), replace(TINY, n_layer=3), (9.0, 2.0)),
    ],
)
def test_every_tensor_goes_on_counting_its_own_updates(
    operator: GrowthOperator, target: ModelConfig, expected: tuple[float, float]
) -> None:
    """A block that came with an earlier growth is younger than the others, and stays so."""
    small = trained_like(TINY)
    ages = {
        name: 2.0 if name.startswith("blocks.1.") else 9.0 for name, _ in small.named_parameters()
    }
    moments = replace(state_of(small), step=ages)
    after = grow(small, moments, target, [operator], StatePolicy.CARRY, Resources(generator(1)))
    found = [after.moments.step[f"blocks.{layer}.qkv.weight"] for layer in (0, 1)]
    assert tuple(found) == expected


@pytest.mark.parametrize("operators", [(), (Tile(), Stack())])
@pytest.mark.parametrize("policy", StatePolicy)
def test_growth_of_nothing_still_obeys_the_state_policy(
    operators: tuple[GrowthOperator, ...], policy: StatePolicy
) -> None:
    """The control that restarts without growing differs from growing methods in nothing else."""
    small = trained_like(TINY)
    after = grown(small, TINY, *operators, policy=policy)
    assert torch.equal(logits(after.model), logits(small))
    assert not any(mask.any() for mask in after.is_new.values())
    before = state_of(small)
    for name, moment in after.moments.exp_avg.items():
        kept = policy is not StatePolicy.RESET
        assert torch.equal(moment, before.exp_avg[name] * kept)
        assert after.moments.step[name] == 5.0 * kept


# Copies


def asymmetry(model: Transformer) -> float:
    """How far the two copies of every feature of the embedding have drifted apart."""
    one, other = model.embed.weight.detach().chunk(2, dim=1)
    return gap(one, other) / float(one.abs().max())


@pytest.mark.parametrize(
    ("policy", "operator", "separates"),
    [
        (StatePolicy.CARRY, Tile(), False),
        (StatePolicy.SCALED, Tile(), False),
        (StatePolicy.RESET, Tile(), False),
        (StatePolicy.ASYMMETRIC, Tile(), True),
        (StatePolicy.CARRY, UNEVEN, True),
        (StatePolicy.CARRY, NoisyTile(), True),
    ],
)
def test_equal_copies_stay_equal_for_ever_unless_something_tells_them_apart(
    policy: StatePolicy, operator: GrowthOperator, separates: bool
) -> None:
    target = resized(TINY, 2, *WIDTHS)
    after = grown(trained_like(TINY), target, operator, policy=policy)
    train(after.model, 20, after.moments)
    drift = asymmetry(after.model)
    assert drift > 1e-2 if separates else drift < 1e-9


def test_split_noise_cancels_in_every_sum_over_copies_and_has_the_stated_size() -> None:
    source = torch.tensor([0, 1, 2, 0, 0, 1, -1])  # three copies, two, one, and one without source
    weight = torch.randn(400, 7, generator=generator(), dtype=torch.float64)
    noisy = add_split_noise(weight.clone(), {1: AxisMap.evenly(source)}, 0.1, generator(1))
    noise = noisy - weight
    for coordinate in range(3):
        assert float(noise[:, source == coordinate].sum(1).abs().max()) < 1e-12
    assert not noise[:, source == 2].any()
    assert not noise[:, source == -1].any()
    scale = 0.1 * float(weight.square().mean().sqrt())
    for coordinate in (0, 1):
        found = float(noise[:, source == coordinate].square().mean().sqrt())
        assert found == pytest.approx(scale, rel=0.1)


def test_operators_leave_kinds_of_tensors_as_they_are() -> None:
    """A residual write is a linear map into d_model, and only that."""
    axes = Transformer.shell(TINY).axes()
    writes = {name for name, a in axes.items() if is_residual_write(a)}
    assert writes == {f"blocks.{i}.{part}.weight" for i in range(2) for part in ("o", "down")}
    assert axes["norm_head.weight"].kind is Kind.GAIN
