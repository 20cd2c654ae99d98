"""TokenFormer: attention to parameters as the paper defines it, and which growth of it is exact.

Every activation is taken with every growth and with a temperature that stays or follows the number
of tokens. The numbers are derived by hand: what happens to a row of scores of variance one, at the
growth steps of the paper and of the released configurations and at a doubling.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TINY, gap, generator, gradients, label, logits, train, trained_like
from torch import Tensor

from baselines.parts.resting_tokens import RestingTokenFormer, TokensApart
from baselines.parts.token_growth import (
    CopiedTokens,
    DeadTokens,
    NoisyTokens,
    RandomTokens,
    RotatedKeys,
    ZeroKeys,
)
from baselines.parts.token_parameters import MODELS, THETAS, ZOOMED, Pattention, TokenFormer
from baselines.tokenformer import MODES, FrozenTokens, TokenFormerGrowth
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.contract import check
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer

SMALL = TINY.resized({"n_token": 5, "zoom_dim": 5, "n_rest": 5})
EXACT_UNDER = {
    "paper": set[str](),
    "noise": set[str](),
    "exact": {"l2_norm_gelu", "gelu_l2_norm"},
    "rotated": {"l2_norm_gelu"},
    "duplicate": {"l2_norm_gelu", "gelu_l2_norm", "softmax"},
    "dead": {"l2_norm_gelu", "gelu_l2_norm"},
}
every_mode = pytest.mark.parametrize("mode", MODES)
every_theta = pytest.mark.parametrize("theta", THETAS)


def by_definition(theta: str, scores: Tensor) -> Tensor:
    """Theta as the authors write it, with the number of tokens in place of tau squared."""
    n = scores.shape[-1]
    if theta == "l2_norm_gelu":
        return F.gelu(math.sqrt(n) * scores / scores.norm(dim=-1, keepdim=True))
    if theta == "gelu_l2_norm":
        return math.sqrt(n) * F.gelu(scores) / F.gelu(scores).norm(dim=-1, keepdim=True)
    return n * scores.exp() / scores.exp().sum(-1, keepdim=True)


def scores(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(7), dtype=torch.float64)


def grown_by(
    operator: RandomTokens, small: Transformer, moments: Moments | None = None, n_token: int = 10
) -> Grown:
    return grow(
        small,
        moments or Moments.zeros(small),
        small.config.resized({"n_token": n_token}),
        [operator],
        StatePolicy.SCALED,
        Resources(generator(3)),
    )


def tokens(model: Transformer) -> list[Pattention]:
    return [part for _, part in model.parts() if isinstance(part, Pattention)]


@every_theta
def test_theta_is_what_the_paper_defines(theta: str) -> None:
    a = scores(4, 3, 9)
    assert gap(THETAS[theta](a, 9), by_definition(theta, a)) < 1e-4  # an epsilon of 1e-6


@every_theta
def test_theta_passes_finite_differences(theta: str) -> None:
    a = scores(2, 3, 4).requires_grad_()
    torch.autograd.gradcheck(lambda x: THETAS[theta](x, 7), (a,))
    torch.autograd.gradcheck(lambda x: THETAS[theta](x.transpose(0, 2), 7), (a,))


@every_theta
def test_theta_of_no_score_at_all_is_finite(theta: str) -> None:
    a = torch.zeros(2, 4, requires_grad=True)
    THETAS[theta](a, 4).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


@every_theta
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_map_of_a_block_attends_to_tokens_of_its_own(theta: str, dtype: torch.dtype) -> None:
    model = trained_like(SMALL, cls=MODELS[theta]).to(dtype)
    for part in tokens(model):
        x = scores(2, 3, part.read.shape[1]).to(dtype)
        pairs = zip(part.read.chunk(part.n_group), part.write.chunk(part.n_group), strict=True)
        with torch.no_grad():
            expected = torch.cat([by_definition(theta, x @ k.T) @ v.T for k, v in pairs], -1)
            assert gap(part(x), expected) < 1e-3
    names = [name for name, part in model.parts() if isinstance(part, Pattention)]
    assert names[:3] == ["blocks.0.qkv", "blocks.0.o", "blocks.0.mlp"]
    assert [part.n_group for part in tokens(model)] == [3, 1, 1] * SMALL.n_layer
    assert [part.read.shape[0] for part in tokens(model)] == [15, 5, 20] * SMALL.n_layer


def test_a_block_has_16_d_n_weights_and_three_quarters_of_d_make_it_a_dense_one() -> None:
    config = ModelConfig(d_model=32, n_layer=3, n_head=2, d_head=16, d_ff=128).resized(
        {"n_token": 24}
    )
    shell, dense = TokenFormer.shell(config), Transformer.shell(config)
    maps = sum(part.read.numel() + part.write.numel() for part in tokens(shell))
    assert maps == 16 * 3 * 32 * 24
    assert shell.linear_macs == dense.linear_macs
    assert sum(p.numel() for p in shell.parameters()) == sum(p.numel() for p in dense.parameters())


def test_a_model_without_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the model size n_token"):
        TokenFormer(TINY)


@every_mode
@every_theta
def test_growth_is_exact_in_the_modes_and_activations_that_algebra_says(
    mode: str, theta: str
) -> None:
    baseline = TokenFormerGrowth(mode, theta)
    (operator,) = baseline.operators
    assert isinstance(operator, RandomTokens)
    is_exact = theta in EXACT_UNDER[mode]
    assert baseline.preserves_function is is_exact
    for n_token in (10, 15):
        small = trained_like(SMALL, cls=baseline.model_class)
        before, after = logits(small), logits(grown_by(operator, small, n_token=n_token).model)
        error = float((after - before).norm() / before.norm())
        assert error < 1e-12 if is_exact else error > 1e-2, label(SMALL)


JUMPS = [  # tokens before and after, tau's ratio, relative change and growth of what is activated
    (576, 2140, 1.928, 1.06, 2.05),
    (2140, 4850, 1.505, 0.58, 1.58),
    (4850, 8620, 1.333, 0.39, 1.38),
    (768, 1792, 1.528, 0.61, 1.60),
]


@pytest.mark.parametrize(("old", "new", "ratio", "change", "growth"), JUMPS)
def test_zero_keys_change_gelu_of_the_norm_if_tau_follows_the_tokens(
    old: int, new: int, ratio: float, change: float, growth: float
) -> None:
    assert math.sqrt(new / old) == pytest.approx(ratio, abs=5e-4)
    a = scores(200, old)
    before, after = (THETAS["l2_norm_gelu"](F.pad(a, (0, new - old)), n) for n in (old, new))
    assert float((after - before).norm() / before.norm()) == pytest.approx(change, abs=6e-3)
    assert float(after.norm() / before.norm()) == pytest.approx(growth, abs=6e-3)


def after_over_before(theta: str, ratio: float) -> float:
    """What a large share m / n of zero keys makes of the activations of old tokens, by hand.

    As root mean square of the change, for scores of variance one and tau squared times `ratio`,
    where m = n. A softmax over old tokens sums to n exp(1 / 2), new ones add m.
    """
    if theta == "identity":
        return 0.0
    if theta == "gelu_l2_norm":
        return abs(math.sqrt(ratio) - 1)
    if theta == "softmax":
        return abs(ratio / (1 + math.exp(-0.5)) - 1)
    z, weight = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(99))
    change = (F.gelu(math.sqrt(ratio) * z) - F.gelu(z)).square() @ weight
    return math.sqrt(float(change / (F.gelu(z).square() @ weight)))


def _identity(scores: Tensor, tau2: int) -> Tensor:
    return scores


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("theta", [*THETAS, "identity"])
def test_zero_keys_are_exact_where_the_table_says_and_jump_by_what_it_says(
    theta: str, ratio: int
) -> None:
    """As many zero keys as there are old ones; tau stays (1) or follows the tokens (2)."""
    a, n = scores(400, 4000), 4000
    activation = THETAS.get(theta, _identity)
    before, after = activation(a, n), activation(F.pad(a, (0, n)), ratio * n)[:, :n]
    change = float((after - before).norm() / before.norm())
    is_exact = theta == "identity" or (ratio == 1 and theta != "softmax")
    expected = after_over_before(theta, ratio)
    assert (expected == 0) is is_exact
    assert change < 1e-12 if is_exact else change == pytest.approx(expected, abs=5e-3)


@every_theta
@pytest.mark.parametrize(("mode", "tau"), [("exact", "rises"), ("paper", "kept")])
def test_neither_zero_keys_nor_a_fixed_temperature_alone_keep_the_function(
    mode: str, tau: str, theta: str
) -> None:
    """What the paper proves, at the temperature that its code has; and the other way round."""
    baseline = TokenFormerGrowth(mode, theta, tau)
    assert not baseline.preserves_function
    small = trained_like(SMALL, cls=baseline.model_class)
    (operator,) = baseline.operators
    assert isinstance(operator, RandomTokens)
    before, after = logits(small), logits(grown_by(operator, small).model)
    assert float((after - before).norm() / before.norm()) > 1e-2


def test_values_scaled_down_make_up_for_a_rising_temperature_behind_the_activation() -> None:
    small = trained_like(SMALL, cls=MODELS["gelu_l2_norm"]).requires_grad_(False)
    large = grown_by(ZeroKeys("gelu_l2_norm"), small).model.requires_grad_(False)
    for part in tokens(large):
        part.write.view(-1, 10)[:, :5] /= math.sqrt(2)
    assert gap(logits(large), logits(small)) < 1e-4  # an epsilon of 1e-6


def test_under_a_softmax_only_tokens_without_any_score_change_nothing() -> None:
    a = scores(50, 8)
    masked = THETAS["softmax"](F.pad(a, (0, 8), value=-math.inf), 8)[:, :8]
    assert gap(masked, THETAS["softmax"](a, 8)) < 1e-12


def test_zero_keys_have_the_gradient_that_algebra_gives_them() -> None:
    """Half of tau / |A_t| times the new value's share of the output's gradient, times the input."""
    x, keys, values, g = scores(6, 4), scores(5, 4), scores(8, 3), scores(6, 3)
    new = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    a = x @ torch.cat((keys, new)).T
    (THETAS["l2_norm_gelu"](a, 5) @ values * g).sum().backward()
    scale = math.sqrt(5) / a.detach().norm(dim=-1)
    assert new.grad is not None
    assert gap(new.grad, torch.einsum("t,ti,td->id", 0.5 * scale, g @ values[5:].T, x)) < 1e-5


def test_zero_keys_multiply_the_norm_of_gelu_by_a_number_if_tau_follows_the_tokens() -> None:
    small = trained_like(SMALL, cls=ZOOMED["gelu_l2_norm"]).requires_grad_(False)
    large = grown_by(ZeroKeys("gelu_l2_norm"), small, n_token=11).model
    for old, new in zip(tokens(small), tokens(large), strict=True):
        x = scores(3, old.read.shape[1])
        new.requires_grad_(False)
        assert gap(new(x), old(x)) < 1e-12
        new.tau2 = old.tau2 * 11 // 5
        assert gap(new(x), old(x) * math.sqrt(11 / 5)) < 1e-4  # an epsilon of 1e-6


def test_zero_keys_take_a_share_of_a_softmax_that_depends_on_the_input() -> None:
    a = scores(50, 8)
    before, after = (THETAS["softmax"](F.pad(a, (0, m)), 8 + m)[:, :8] for m in (0, 8))
    ratio = (after / before)[:, 0]
    assert 0.5 < float(ratio.min()) < float(ratio.max()) - 0.2
    kept = THETAS["softmax"](F.pad(a, (0, 8)), 8)[:, :8]
    assert gap(kept, before) > 0.1  # a frozen factor does not help


@pytest.mark.parametrize(("models", "wanted"), [(MODELS, 10), (ZOOMED, 5)])
def test_the_temperature_is_that_of_the_sizes(
    models: dict[str, type[TokenFormer]], wanted: int
) -> None:
    """So a model that is trained from scratch has the one that growth ends with."""
    grown = grown_by(RandomTokens(), trained_like(SMALL, cls=models["l2_norm_gelu"])).model
    scratch = models["l2_norm_gelu"](grown.config)
    for model in (grown, scratch):
        assert [part.tau2 for part in tokens(model)[:3]] == [wanted, wanted, 4 * wanted]


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_has_the_temperature_that_it_was_made_for(mode: str) -> None:
    models = ZOOMED if mode in ("exact", "dead") else MODELS
    assert TokenFormerGrowth(mode).model_class is models["l2_norm_gelu"]


def test_old_tokens_keep_their_place_in_every_group() -> None:
    small = trained_like(SMALL, cls=TokenFormer)
    large = grown_by(RandomTokens(), small).model
    for old, new in zip(tokens(small), tokens(large), strict=True):
        groups = len(old.read) // 5
        assert torch.equal(new.read.view(groups, 10, -1)[:, :5], old.read.view(groups, 5, -1))
        assert torch.equal(new.write.view(-1, 10)[:, :5], old.write.view(-1, 5))
        assert bool(new.read.view(groups, 10, -1)[:, 5:].all())


def test_zero_keys_learn_at_once_and_their_values_a_step_later() -> None:
    large = grown_by(ZeroKeys(), trained_like(SMALL, cls=TokenFormer)).model
    gradient = gradients(large)
    name = "blocks.0.o"
    assert bool(gradient[f"{name}.read"].view(10, -1)[5:].all())
    assert not bool(gradient[f"{name}.write"].view(-1, 10)[:, 5:].any())
    train(large, 1)
    assert bool(gradients(large)[f"{name}.write"].view(-1, 10)[:, 5:].all())


def test_dead_tokens_stay_dead_through_a_hundred_steps() -> None:
    large = grown_by(DeadTokens(), trained_like(SMALL, cls=TokenFormer)).model
    train(large, 100)
    for part in tokens(large):
        assert not bool(part.read.view(len(part.read) // 10, 10, -1)[:, 5:].any())
        assert not bool(part.write.view(-1, 10)[:, 5:].any())


def test_a_softmax_brings_dead_tokens_to_life() -> None:
    large = grown_by(DeadTokens("softmax"), trained_like(SMALL, cls=MODELS["softmax"])).model
    train(large, 3)
    for part in tokens(large):
        assert bool(part.read.any(dim=1).all())
        assert bool(part.write.view(-1, 10)[:, 5:].all())
    assert not TokenFormerGrowth("dead", "softmax").leaves_dead_entries
    assert TokenFormerGrowth("dead").leaves_dead_entries


@pytest.mark.parametrize("n_token", [10, 13])
def test_rotated_keys_add_to_the_norm_of_scores_what_tau_adds(n_token: int) -> None:
    small = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    large = grown_by(RotatedKeys(), small, n_token=n_token).model.requires_grad_(False)
    for old, new in zip(tokens(small), tokens(large), strict=True):
        groups = len(old.read) // 5
        k, k_new = old.read.view(groups, 5, -1), new.read.view(groups, n_token, -1)[:, 5:]
        assert gap(k_new.mT @ k_new, (n_token - 5) / 5 * k.mT @ k) < 1e-12
        assert not bool(new.write.view(-1, n_token)[:, 5:].any())


@pytest.mark.parametrize(
    ("operator", "message"),
    [(RotatedKeys(), "n_token must at least double to 10"), (CopiedTokens(), "multiple of 5")],
)
def test_refuses_fewer_tokens_than_it_needs(operator: RandomTokens, message: str) -> None:
    with pytest.raises(GrowthError, match=message):
        grown_by(operator, trained_like(SMALL, cls=TokenFormer), n_token=9)


def test_noise_tells_the_copies_of_a_value_apart_and_cancels() -> None:
    small = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    large = grown_by(CopiedTokens(noise=0.1), small, n_token=15).model.requires_grad_(False)
    for old, new in zip(tokens(small), tokens(large), strict=True):
        copies = new.write.view(-1, 3, 5)
        assert gap(copies.sum(1), old.write.view(-1, 5)) < 1e-12
        assert float((copies[:, 0] - copies[:, 1]).norm() / copies[:, 0].norm()) > 0.05


@every_theta
def test_without_noise_copies_share_the_gradient_of_a_key_and_repeat_that_of_a_value(
    theta: str,
) -> None:
    small = trained_like(SMALL, cls=MODELS[theta])
    gradient = gradients(small)
    moments = Moments.adam(gradient, {n: g.square() for n, g in gradient.items()},
                      dict.fromkeys(gradient, 1.0))  # fmt: skip
    grown = grown_by(CopiedTokens(theta, noise=0.0), small, moments)
    for name, expected in gradients(grown.model).items():
        assert gap(grown.moments.exp_avg[name], expected) < 1e-12
        assert gap(grown.moments.exp_avg_sq[name], expected.square()) < 1e-12


def test_a_shell_has_the_axes_shapes_and_cost_of_the_model() -> None:
    shell, model = TokenFormer.shell(SMALL), TokenFormer(SMALL)
    assert shell.axes() == model.axes()
    assert shell.linear_macs == model.linear_macs
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (shell, model)]
    assert shapes[0] == shapes[1]
    assert set(shapes[0]) == set(model.axes())


# The released rule, as the authors' loader and forward pass have it, in plain loops


def released_forward(x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One attention to tokens, number by number."""
    out = torch.zeros(len(x), values.shape[1], dtype=torch.float64)
    for t in range(len(x)):
        scores = [sum(float(x[t, i] * key[i]) for i in range(len(key))) for key in keys]
        norm = math.sqrt(sum(score * score for score in scores))
        for score, value in zip(scores, values, strict=True):
            z = score / norm * math.sqrt(len(keys))
            out[t] += z * 0.5 * (1 + math.erf(z / math.sqrt(2))) * value
    return out


def one_by_one(part: Pattention) -> list[tuple[Tensor, Tensor]]:
    """Keys (n, in) and values (n, out) of every separate attention of a part."""
    keys, values = part.read.detach(), part.write.detach()
    pairs = zip(keys.chunk(part.n_group), values.chunk(part.n_group), strict=True)
    return [(key, value.T) for key, value in pairs]


def test_the_forward_pass_is_the_released_one() -> None:
    model = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    for part in tokens(model)[:3]:
        x = scores(2, part.read.shape[1])
        outputs = part(x).chunk(part.n_group, dim=-1)
        for output, (keys, values) in zip(outputs, one_by_one(part), strict=True):
            assert gap(output, released_forward(x, keys, values)) < 1e-4  # an epsilon of 1e-6


def old_rows_over(drawn: Tensor, old: Tensor, n_new: int, n_old: int) -> Tensor:
    """Rows of keys or of transposed values, the old ones of every group over its first ones."""
    loaded = drawn.clone()
    for group in range(len(old) // n_old):
        for row in range(n_old):
            loaded[group * n_new + row] = old[group * n_old + row]
    return loaded


def test_growth_is_the_released_loader_tensor_by_tensor() -> None:
    """A model of the new size as it is drawn, with the old rows copied over the first ones.

    Query, key and value are one tensor here, and the MLP's tokens are in four groups.
    """
    small = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    large = grown_by(RandomTokens(), small).model.requires_grad_(False)
    drawn = TokenFormer(large.config)
    drawn.init_weights(generator(3), lambda name: name.endswith((".read", ".write")))
    loaded = drawn.double().state_dict()
    for name, old in small.state_dict().items():
        if name.endswith(".read"):
            loaded[name] = old_rows_over(loaded[name], old, 10, 5)
        elif name.endswith(".write"):
            loaded[name] = old_rows_over(loaded[name].T, old.T, 10, 5).T
        else:
            loaded[name] = old
    assert len(tokens(large)) == 3 * SMALL.n_layer
    for name, tensor in large.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name


def test_initial_weights_are_those_of_the_released_tpu_code() -> None:
    config = SMALL.resized({"d_model": 64, "n_head": 4, "n_token": 96})
    model = TokenFormer(config, generator=generator(0)).requires_grad_(False)
    for part in tokens(model)[:3]:
        for weight in (part.read, part.write):
            assert float(weight.std()) * math.sqrt(weight.shape[1]) == pytest.approx(1, abs=0.03)


def test_noise_of_a_tenth_moves_old_tokens_by_a_tenth_and_new_ones_not_at_all() -> None:
    small = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    quiet, loud = (
        grown_by(NoisyTokens(noise=noise), small).model.requires_grad_(False)
        for noise in (0.0, 0.1)
    )
    for a, b in zip(tokens(quiet), tokens(loud), strict=True):
        for dim, x, y in ((0, a.read, b.read), (1, a.write, b.write)):
            old = torch.arange(x.shape[dim]) % 10 < 5
            moved = (y - x).movedim(dim, 0)
            assert not bool(moved[~old].any())
            size = float(moved[old].square().mean() / x.movedim(dim, 0)[old].square().mean())
            assert 0.08 < math.sqrt(size) < 0.12


def test_frozen_tokens_compute_what_the_released_growth_computes() -> None:
    small = trained_like(SMALL, cls=TokenFormer).requires_grad_(False)
    target = SMALL.resized({"n_token": 12})
    apart = grow(
        small, Moments.zeros(small), target, [TokensApart()], StatePolicy.RESET,
        Resources(generator(3), model_class=RestingTokenFormer),
    ).model.requires_grad_(False)  # fmt: skip
    together = TokenFormer(target).double().requires_grad_(False)
    state = apart.state_dict()
    for name, old in small.state_dict().items():
        if (new := state.get(f"{name}_new")) is None:
            together.state_dict()[name].copy_(old)
        else:
            assert torch.equal(state[name], old)
            dim = 0 if name.endswith("read") else 1
            n_group = dict(together.parts())[name.rpartition(".")[0]].n_group
            if dim == 0:
                halves = zip(old.chunk(n_group), new.chunk(n_group), strict=True)
                joined = torch.cat([torch.cat(half) for half in halves])
            else:
                joined = torch.cat((old, new), dim=1)
            together.state_dict()[name].copy_(joined)
    assert gap(logits(apart), logits(together)) < 1e-12


def test_of_frozen_tokens_all_old_ones_rest_and_what_is_left_is_charged() -> None:
    baseline, large = FrozenTokens(), SMALL.resized({"n_token": 12})
    frozen = baseline.frozen(SMALL, large)
    assert {name.rpartition(".")[2] for name in frozen} == {"read", "write"}
    assert len(frozen) == 6 * SMALL.n_layer
    shell = RestingTokenFormer.shell(large)
    spared = sum(p.numel() for name, p in shell.named_parameters() if name in frozen)
    charges = [training_flops_per_token(shell, names) for names in ((), frozen)]
    assert charges[0] - charges[1] == 2 * spared


def test_tokens_that_are_to_rest_are_all_the_old_ones() -> None:
    small = trained_like(SMALL, cls=TokenFormer)
    for n_rest in (4, 12):
        target = SMALL.resized({"n_token": 12, "n_rest": n_rest})
        with pytest.raises((GrowthError, ConfigError), match="n_rest"):
            TokensApart().prepare(small, target, Resources(generator(0)))


@pytest.mark.parametrize("arguments", [{"mode": "zero"}, {"theta": "relu"}])
def test_an_unknown_argument_is_refused_with_what_is_allowed(arguments: dict[str, str]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ConfigError, match=rf"{name} must be one of \[.*'{value}'"):
        TokenFormerGrowth(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("theta", ["gelu_l2_norm", "softmax"])
@every_mode
def test_the_other_activations_keep_the_contract(mode: str, theta: str) -> None:
    results = check("baselines.tokenformer:TokenFormerGrowth", {"mode": mode, "theta": theta})
    assert {name: found.detail for name, found in results.items() if not found.passed} == {}
