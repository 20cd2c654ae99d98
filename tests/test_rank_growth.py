"""Growth of rank: the product stays, every new direction learns, and the end is a dense model."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, gap, generator, gradients, label, logits, train, trained_like
from torch import Tensor

from baselines.parts.low_rank import LowRankLinear, LowRankTransformer
from baselines.parts.low_rank_growth import AddRank
from baselines.rank_growth import RankGrowth
from benchmark.base.errors import ConfigError
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import Axes, ModelConfig, Transformer
from benchmark.plan.config import load_method

SMALL = replace(TINY, d_model=12, n_head=3, d_head=4, d_ff=30).resized({"rank": 2})
"""Dense at rank 6 in attention (12 x 12) and at rank 9 in the MLP (12 x 30)."""

RANKS = [2, 4, 6, 9]


def low_rank(config: ModelConfig = SMALL) -> Transformer:
    return trained_like(config, cls=LowRankTransformer).requires_grad_(False)


def grown_to(
    rank: int,
    small: Transformer,
    policy: StatePolicy = StatePolicy.SCALED,
    moments: Moments | None = None,
) -> Grown:
    return grow(
        small,
        moments or Moments.zeros(small),
        small.config.resized({"rank": rank}),
        [AddRank()],
        policy,
        Resources(generator(3)),
    )


def factors(model: Transformer) -> dict[str, LowRankLinear]:
    return {name: part for name, part in model.parts() if isinstance(part, LowRankLinear)}


def products(part: LowRankLinear) -> Tensor:
    """The matrices that a part stands for, (G, m, n)."""
    with torch.no_grad():
        rank = part.write.shape[1]
        return part.write.unflatten(0, (part.n_group, -1)) @ part.read.unflatten(0, (-1, rank))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_factors_are_a_matrix_for_every_query_key_value_gate_and_up(dtype: torch.dtype) -> None:
    model = low_rank(replace(SMALL, activation="swiglu")).to(dtype)
    n_groups = {"qkv": 3, "o": 1, "up": 2, "down": 1}
    parts = factors(model)
    assert len(parts) == 4 * SMALL.n_layer
    for name, part in parts.items():
        assert part.n_group == n_groups[name.split(".")[-1]]
        x = torch.randn(2, 5, part.read.shape[1], generator=generator(1), dtype=dtype)
        expected = torch.cat([x @ w.T for w in products(part)], dim=-1)
        assert gap(part(x), expected) < 1e-5


def test_initial_factors_are_balanced_and_the_nearest_to_a_dense_map() -> None:
    part = LowRankLinear(
        SMALL.resized({"rank": 5}), Axes((SMALL.qkv, "n_head", "d_head"), ("d_model",))
    )
    part.init_weights(generator(2), 1)
    dense = torch.empty(36, 12)
    torch.nn.init.normal_(dense, std=12**-0.5, generator=generator(2))
    for found, w in zip(products(part), dense.chunk(3), strict=True):
        left, values, right = torch.linalg.svd(w)
        assert gap(found, left[:, :5] * values[:5] @ right[:5]) < 1e-6
    writes, reads = part.write.detach().chunk(3), part.read.detach().chunk(3)
    for write, read in zip(writes, reads, strict=True):
        assert gap(write.T @ write, read @ read.T) < 1e-5


def test_residual_writes_start_smaller_with_depth() -> None:
    norms = {}
    for n_layer in (1, 4):
        model = LowRankTransformer(replace(SMALL, n_layer=n_layer), generator=generator())
        norms[n_layer] = [float(products(part).norm()) for part in factors(model).values()][:2]
    qkv, o = (norms[4][i] / norms[1][i] for i in range(2))
    assert qkv == pytest.approx(1)
    assert o == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("rank", range(1, 13))
def test_a_map_is_thin_exactly_as_long_as_that_is_cheaper(rank: int) -> None:
    model = LowRankTransformer.shell(SMALL.resized({"rank": rank}))
    thin = {name.removeprefix("blocks.0.") for name in factors(model) if ".0." in name}
    assert thin == ({"qkv", "o"} if rank < 6 else set()) | ({"up", "down"} if rank < 9 else set())
    assert model.linear_macs <= Transformer.shell(SMALL).linear_macs


def test_training_takes_six_flops_per_rank_and_side_of_every_map() -> None:
    d, n_layer, rank = 32, 3, 8
    config = ModelConfig(
        d_model=d, n_layer=n_layer, n_head=4, d_head=8, d_ff=4 * d, seq_len=16
    ).resized({"rank": rank})
    maps = 4 * [(d, d)] + [(4 * d, d), (d, 4 * d)]
    in_blocks = n_layer * sum(6 * rank * (m + n) for m, n in maps)
    assert in_blocks == 6 * 18 * d * rank * n_layer
    elsewhere = 6 * 256 * d + 12 * n_layer * d * (16 + 1) / 2
    assert training_flops_per_token(LowRankTransformer.shell(config)) == in_blocks + elsewhere


def test_at_rank_d_model_the_model_is_the_plain_one_bit_for_bit() -> None:
    config = SMALL.resized({"rank": 12})
    ours, plain = (cls(config, generator=generator(4)) for cls in (LowRankTransformer, Transformer))
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert all(map(torch.equal, ours.state_dict().values(), plain.state_dict().values()))


def test_a_model_without_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the model size rank"):
        LowRankTransformer(TINY)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_every_growth_to_dense_keeps_the_function(activation: str) -> None:
    model = low_rank(replace(SMALL, activation=activation))
    before = logits(model)
    for rank in RANKS[1:]:
        model = grown_to(rank, model).model
        assert gap(logits(model), before) < 1e-12, label(model.config)
    assert not factors(model)


def test_growth_raises_the_rank_of_every_map_within_one_step() -> None:
    small = low_rank()
    large = grown_to(5, small).model
    for name, part in factors(large).items():
        assert gap(products(part), products(factors(small)[name])) < 1e-12
        assert torch.linalg.matrix_rank(products(part)).tolist() == [2] * part.n_group
    train(large, 1, weight_decay=0.0)
    for part in factors(large).values():
        assert torch.linalg.matrix_rank(products(part)).tolist() == [5] * part.n_group


def test_new_rows_are_orthogonal_to_the_old_ones_and_of_their_median_length() -> None:
    small = low_rank(SMALL.resized({"rank": 3}))
    for name, part in factors(grown_to(5, small).model).items():
        old = factors(small)[name].read.unflatten(0, (-1, 3))
        rows = part.read.detach().unflatten(0, (-1, 5))
        length = old.norm(dim=2).median(dim=1).values[:, None, None]
        assert torch.equal(rows[:, :3], old)
        assert float((rows[:, 3:] @ old.mT).abs().max()) < 1e-12
        assert gap(rows[:, 3:] @ rows[:, 3:].mT, torch.eye(2).double() * length**2) < 1e-12


def test_new_columns_learn_at_once_and_new_rows_a_step_later() -> None:
    large = grown_to(5, low_rank()).model
    gradient = gradients(large)
    for name, part in factors(large).items():
        assert bool(gradient[f"{name}.write"][:, 2:].all())
        rows = gradient[f"{name}.read"].unflatten(0, (part.n_group, -1))
        assert not bool(rows[:, 2:].any())
    train(large, 1, weight_decay=0.0)
    gradient = gradients(large)
    assert all(bool(gradient[f"{name}.read"].all()) for name in factors(large))


def test_a_merged_map_is_the_product_of_its_factors() -> None:
    small = low_rank()
    large = grown_to(6, small).model
    merged = {name for name in factors(small) if name not in factors(large)}
    assert {name.split(".")[-1] for name in merged} == {"qkv", "o"}
    for name in merged:
        weight = large.get_parameter(f"{name}.weight")
        assert gap(weight.detach(), products(factors(small)[name]).flatten(0, 1)) < 1e-15
        assert not torch.linalg.matrix_rank(gradients(large)[f"{name}.weight"]) < 6


def test_merging_in_single_precision_rounds_once() -> None:
    small = low_rank().float()
    large = grown_to(6, small).model
    part = factors(small)["blocks.0.o"]
    exact = (part.write.double() @ part.read.double()).float()
    assert torch.equal(large.get_parameter("blocks.0.o.weight"), exact)


@pytest.mark.parametrize("policy", list(StatePolicy))
def test_merged_maps_start_without_moments_and_factors_keep_theirs(policy: StatePolicy) -> None:
    small = low_rank()
    ones = {name: torch.ones_like(p) for name, p in small.named_parameters()}
    moments = Moments.adam(ones, ones, dict.fromkeys(ones, 9.0))
    grown = grown_to(6, small, policy, moments)
    kept = 0.0 if policy is StatePolicy.RESET else 9.0
    for name in ("blocks.0.qkv.weight", "blocks.1.o.weight"):
        assert not bool(grown.moments.exp_avg[name].any())
        assert grown.moments.step[name] == 0.0
        assert bool(grown.is_new[name].all())
    for name in ("blocks.0.up.read", "blocks.1.down.write", "embed.weight"):
        assert grown.moments.step[name] == kept
    write, rows = (grown.moments.exp_avg[f"blocks.0.up.{name}"] for name in ("write", "read"))
    assert (write[:, :2] == kept / 9).all()
    assert not bool(write[:, 2:].any())
    assert (rows[:2] == kept / 9).all()
    assert not bool(rows[2:].any())
    assert grown.is_new["blocks.0.up.read"][:, 0].tolist() == [False] * 2 + [True] * 4


def test_the_same_seed_grows_the_same_bits() -> None:
    small = low_rank()
    one, other = (grown_to(4, small).model.state_dict() for _ in range(2))
    assert all(map(torch.equal, one.values(), other.values()))


def test_the_configured_ranks_double_from_an_eighth_of_d_model() -> None:
    method = load_method("rank_growth")
    target = ModelConfig(d_model=64).resized(method.sizes)
    assert [config.rank for config in method.ladder.sizes(target)] == [8, 16, 32, 64]
    assert RankGrowth().grows == {"rank"}
