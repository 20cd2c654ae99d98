"""Growth is what paper or official code says: the rule again, in plain loops, tensor by tensor.

Nothing here uses maps of axes or any other part of an operator. What is random in a rule is held to
what the rule says of it: sums over copies, or the draw itself. Commits of the official code are in
the methods' docstrings.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import TINY, generator, gradients, logits, trained_like
from torch import Tensor

from baselines.depth_upscaling import DepthUpscaling
from baselines.hypercloning import HyperCloning
from baselines.lemon import Lemon
from baselines.llama_pro import LlamaPro
from baselines.msg import MSG
from baselines.parts.masking import MaskedNorm, MaskedTransformer
from baselines.shrink_perturb import ShrinkPerturb
from baselines.stacking import Stacking
from baselines.staged_training import StagedTraining
from benchmark.baseline import Baseline
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy, Weights
from benchmark.model.transformer import ModelConfig, Transformer

SWIGLU = replace(TINY, activation="swiglu", norm="layernorm", positions="learned", tied=True)
each_variant = pytest.mark.parametrize("config", [TINY, SWIGLU], ids=["plain", "other"])


def grown(
    method: Baseline,
    small: Transformer,
    sizes: dict[str, int],
    policy: StatePolicy = StatePolicy.RESET,
) -> Grown:
    first = gradients(small)
    squares = {name: gradient.square() for name, gradient in first.items()}
    moments = Moments.adam(first, squares, dict.fromkeys(first, 3.0))
    target = small.config.resized(sizes)
    resources = Resources(generator(), model_class=method.model_class)
    return grow(small, moments, target, method.operators, policy, resources)


def widened(config: ModelConfig, factor: int) -> dict[str, int]:
    return {name: factor * config.size(name) for name in ("d_model", "n_head", "d_ff")}


def maps(weights: Weights, config: ModelConfig) -> Weights:
    """The tensors, with an axis of its own for each of query, key and value, head, gate and up."""
    c, shaped = config, dict(weights)
    for name, tensor in weights.items():
        if name.endswith("qkv.weight"):
            shaped[name] = tensor.reshape(3, c.n_head, c.d_head, c.d_model)
        elif name.endswith(".o.weight"):
            shaped[name] = tensor.reshape(c.d_model, c.n_head, c.d_head)
        elif name.endswith("up.weight"):
            shaped[name] = tensor.reshape(-1, c.d_ff, c.d_model)
    return shaped


def written(shape: torch.Size, entry: Callable[..., float]) -> Tensor:
    """A tensor of which every entry is computed on its own."""
    out = torch.zeros(shape, dtype=torch.float64)
    for index in torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist():
        out[tuple(index)] = entry(*index)
    return out


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-13, msg=name)


def hypercloned(name: str, w: Tensor, shape: torch.Size, k: int, *, tied: bool) -> Tensor:
    """Every linear map is tiled and divided by k, tables and gains are tiled; heads are whole."""
    if name.endswith("eps"):
        return w
    kept = {"qkv.weight": (0, 2), "o.weight": (2,), "up.weight": (0,), "down.weight": ()}
    block_map = next((end for end in kept if name.endswith("." + end)), None)
    fixed = kept[block_map] if block_map else (0,) if w.ndim > 1 else ()
    # a tied head in place of their wrapper, which divides the logits
    is_divided = block_map or name == ("norm_head.weight" if tied else "head.weight")

    def entry(*index: int) -> float:
        small = [i if dim in fixed else i % w.shape[dim] for dim, i in enumerate(index)]
        return float(w[tuple(small)]) / (k if is_divided else 1)

    return written(shape, entry)


@each_variant
@pytest.mark.parametrize("k", [2, 3])
def test_hypercloning_tiles_and_divides(config: ModelConfig, k: int) -> None:
    small = trained_like(config)
    large = grown(HyperCloning(snr_db=None), small, widened(config, k)).model
    old, new = maps(small.state_dict(), config), maps(large.state_dict(), large.config)
    expected = {
        name: hypercloned(name, tensor, new[name].shape, k, tied=config.tied)
        for name, tensor in old.items()
    }
    assert_equal(new, expected)


def test_hypercloning_s_noise_cancels_in_pairs_and_leaves_an_odd_tile_and_the_head() -> None:
    config = replace(TINY, d_model=64, d_ff=96)
    small = trained_like(config)
    plain = grown(HyperCloning(snr_db=None), small, widened(config, 3)).model.state_dict()
    noisy = grown(HyperCloning(snr_db=10.0), small, widened(config, 3)).model.state_dict()
    for name, tensor in plain.items():
        noise = noisy[name] - tensor
        if name.endswith(("qkv.weight", "o.weight", "up.weight", "down.weight")):
            one, other, rest = noise.chunk(3, dim=1)
            assert torch.allclose(one, -other, rtol=0, atol=1e-12)
            assert not rest.any()
            ratio = float(one.norm() / tensor.chunk(3, dim=1)[0].norm())
            assert ratio == pytest.approx(10 ** (-10 / 20), rel=0.05)
            kurtosis = float((one / one.std()).pow(4).mean())
            assert kurtosis == pytest.approx(3.0, rel=0.1), "normal, not uniform"
        else:
            assert not noise.any(), name


def blocks(weights: Weights, layers: list[int], zeroed: set[int] | None = None) -> Weights:
    """Tensors whose block i is block layers[i], with zeroed residual writes where asked for."""
    out = {name: tensor for name, tensor in weights.items() if not name.startswith("blocks.")}
    for i, layer in enumerate(layers):
        for name, tensor in weights.items():
            if name.startswith(f"blocks.{layer}."):
                rest = name.split(".", 2)[2]
                is_zero = i in (zeroed or ()) and rest in ("o.weight", "down.weight")
                out[f"blocks.{i}.{rest}"] = torch.zeros_like(tensor) if is_zero else tensor
    return out


@each_variant
@pytest.mark.parametrize(("n_small", "n_large"), [(4, 6), (6, 8), (4, 8), (6, 9)])
def test_llama_pro_appends_a_silent_copy_after_each_group(
    config: ModelConfig, n_small: int, n_large: int
) -> None:
    small = trained_like(replace(config, n_layer=n_small))
    layers, silent, split = [], set[int](), int(n_small / (n_large - n_small))
    for layer in range(n_small):
        layers.append(layer)
        if (layer + 1) % split == 0:
            silent.add(len(layers))
            layers.append(layer)
    large = grown(LlamaPro(), small, {"n_layer": n_large}).model
    assert_equal(large.state_dict(), blocks(small.state_dict(), layers, silent))


@each_variant
def test_g_stack_repeats_the_whole_stack(config: ModelConfig) -> None:
    small = trained_like(replace(config, n_layer=3))
    layers = [layer for _ in range(4) for layer in range(3)]
    large = grown(Stacking(), small, {"n_layer": 12}).model
    assert_equal(large.state_dict(), blocks(small.state_dict(), layers))


@pytest.mark.parametrize(("n", "m"), [(8, 2), (4, 1), (6, 2), (5, 0)])
def test_depth_upscaling_drops_the_last_of_one_copy_and_the_first_of_the_other(
    n: int, m: int
) -> None:
    small = trained_like(replace(TINY, n_layer=n))
    layers = [*list(range(n))[: n - m], *list(range(n))[m:]]
    large = grown(DepthUpscaling(), small, {"n_layer": 2 * (n - m)}).model
    assert_equal(large.state_dict(), blocks(small.state_dict(), layers))


def test_depth_upscaling_takes_32_blocks_to_48() -> None:
    (operator,) = DepthUpscaling().operators
    layers = [operator.source(i, 32, 48) for i in range(48)]  # type: ignore[attr-defined]
    assert layers == [*range(24), *range(8, 32)]


@each_variant
def test_shrink_perturb_adds_a_fresh_model_to_a_shrunk_and_padded_one(config: ModelConfig) -> None:
    small = trained_like(config)
    large = grown(
        ShrinkPerturb(shrink=0.3, noise=0.7), small, {"d_model": 9, "n_head": 5, "d_ff": 13}
    ).model
    fresh = maps(Transformer(large.config, generator=generator()).state_dict(), large.config)
    old, new = maps(small.state_dict(), config), maps(large.state_dict(), large.config)
    for name, tensor in new.items():
        w = old[name]
        if name.endswith("eps"):
            expected = w
        elif "norm" in name:
            expected = torch.cat((w, torch.ones(len(tensor) - len(w), dtype=torch.float64)))
        else:
            padded = torch.zeros_like(tensor)
            padded[tuple(slice(n) for n in w.shape)] = w
            expected = 0.3 * padded + 0.7 * fresh[name].double()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-13, msg=name)


def own_block(w: Tensor, k: int, rows: int, columns: int) -> Tensor:
    """Copies of a map along a diagonal; `rows` and `columns` are the dimensions that repeat."""
    shape = [n * k if dim in (rows, columns) else n for dim, n in enumerate(w.shape)]
    n_rows, n_columns = w.shape[rows], w.shape[columns]

    def entry(*index: int) -> float:
        small = [i % w.shape[dim] if dim in (rows, columns) else i for dim, i in enumerate(index)]
        is_own = index[rows] // n_rows == index[columns] // n_columns
        return float(w[tuple(small)]) if is_own else 0.0

    return written(torch.Size(shape), entry)


DIAGONAL = {"qkv.weight": (1, 3), "o.weight": (0, 1), "up.weight": (1, 2), "down.weight": (0, 1)}
"""Dimensions of each map that repeat, as `maps` lays them out: what it produces, what it reads."""


@each_variant
def test_staged_training_sets_two_models_side_by_side_and_grows_their_moments(
    config: ModelConfig,
) -> None:
    small, k = trained_like(config), 2
    method = StagedTraining(noise=0.0, released=True)
    large = grown(method, small, widened(config, k), StatePolicy.SCALED)
    gradient = gradients(small)
    found = {
        "weight": (maps(large.model.state_dict(), large.model.config), small.state_dict()),
        "first": (maps(large.moments.exp_avg, large.model.config), gradient),
        "second": (
            maps(large.moments.exp_avg_sq, large.model.config),
            {name: g.square() for name, g in gradient.items()},
        ),
    }
    last = "norm_head.weight" if config.tied else "head.weight"  # where sums over copies divide
    for kind, (new, old) in found.items():
        power = {"weight": 0, "first": 1, "second": 2}[kind]
        for name, w in maps(old, config).items():
            pair = next((DIAGONAL[end] for end in DIAGONAL if name.endswith("." + end)), None)
            if name.endswith("eps"):
                expected = w
            elif pair is not None:
                expected = own_block(w, k, *pair) / k**power
            else:
                tiled = torch.cat([w] * k, dim=-1)
                divisor = k if kind == "weight" else 1
                expected = tiled / (divisor if name == last else k**power)
            torch.testing.assert_close(
                new[name], expected, rtol=0, atol=1e-13, msg=f"{kind} {name}"
            )
    assert set(large.moments.step.values()) == {3.0}


def residual(w: Tensor, n_large: int, rest: Tensor) -> Tensor:
    """Writers of the residual stream by LEMON: whole copies, then `rest` for what is left."""
    k, d = n_large // w.shape[0], w.shape[0]
    out = torch.zeros(n_large, *w.shape[1:], dtype=torch.float64)
    for y in range(n_large):
        out[y] = w[y % d] if y < k * d else rest
    return out


def summed(w: Tensor, dim: int, n_small: int) -> Tensor:
    """A reader, summed over what reads circular copies of a coordinate."""
    w = w.movedim(dim, 0)
    out = torch.zeros(n_small, *w.shape[1:], dtype=torch.float64)
    for i in range(w.shape[0]):
        out[i % n_small] += w[i]
    return out.movedim(0, dim)


lemon_s_sizes = pytest.mark.parametrize(("d", "h", "f"), [(12, 6, 20), (15, 7, 23)])
each_split = pytest.mark.parametrize("split", ["comp", "projection"])


@each_variant
@each_split
@lemon_s_sizes
def test_lemon_averages_or_pads_the_stream_and_rescales_norms(
    config: ModelConfig, split: str, d: int, h: int, f: int
) -> None:
    small = trained_like(config)
    large = grown(Lemon(split), small, {"d_model": d, "n_head": h, "d_ff": f}).model
    new, old = large.state_dict(), small.state_dict()
    k = d // config.d_model
    s, is_mean = k * config.d_model / d, config.norm == "layernorm"
    for name in [name for name in old if name.startswith(("embed", "positions"))]:
        w = old[name].T
        rest = w.mean(0) if is_mean else torch.zeros_like(w[0])
        torch.testing.assert_close(new[name], residual(w, d, rest).T, msg=name)
    for name in [name for name in old if "norm" in name]:
        w = old[name]
        if name.endswith("eps"):
            torch.testing.assert_close(new[name], s * w, msg=name)
            continue
        expected = math.sqrt(s) * torch.cat([w] * k)
        if name == "norm_head.weight" and config.tied:  # theirs divides all copies by k
            shares = [1.0] + [0.0] * (k - 1) if split == "comp" else [1 / k] * k
            expected = torch.cat([math.sqrt(s) * share * w for share in shares])
        torch.testing.assert_close(new[name][: len(expected)], expected, msg=name)


@each_variant
@each_split
@lemon_s_sizes
def test_lemon_splits_readers_unevenly_over_circular_copies(
    config: ModelConfig, split: str, d: int, h: int, f: int
) -> None:
    small = trained_like(config)
    large = grown(Lemon(split), small, {"d_model": d, "n_head": h, "d_ff": f}).model
    new, old = maps(large.state_dict(), large.config), maps(small.state_dict(), config)
    whole = d // config.d_model * config.d_model
    for name, w in old.items():
        if name.endswith((".o.weight", "down.weight")):
            rest = w.mean(0) if config.norm == "layernorm" else torch.zeros_like(w[0])
            read = summed(new[name], 1, w.shape[1])
            torch.testing.assert_close(read, residual(w, d, rest), msg=name)
        elif name.endswith(("qkv.weight", "up.weight")):
            rows = torch.stack([w[:, i % w.shape[1]] for i in range(new[name].shape[1])], dim=1)
            read = summed(new[name][..., :whole], w.ndim - 1, config.d_model)
            torch.testing.assert_close(read, rows, msg=name)
            even = rows * config.d_model / whole
            assert not torch.allclose(new[name][..., : config.d_model], even, atol=1e-3), name
        elif name == "head.weight":
            torch.testing.assert_close(summed(new[name][:, :whole], 1, config.d_model), w)


def masked_norm(x: Tensor, gain: Tensor, mask: Tensor, eps: float, *, is_rms: bool) -> Tensor:
    """One vector through MSG's norm, in sums over entries."""
    n = sum(float(c) for c in mask)
    mean = 0.0 if is_rms else sum(float(c * v) for c, v in zip(mask, x, strict=True)) / n
    square = sum(float(c) * (float(v) - mean) ** 2 for c, v in zip(mask, x, strict=True)) / n
    entries = zip(mask, x, gain.detach(), strict=True)
    return torch.tensor(
        [float(c * g) * (float(v) - mean) / math.sqrt(square + eps) for c, v, g in entries],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("m", [0.0, 0.3, 1.0])
def test_msg_s_norm_weighs_statistics_and_output_by_the_mask(norm: str, m: float) -> None:
    layer = MaskedNorm(replace(TINY, d_model=9, norm=norm)).double()
    layer.mask.value = torch.tensor([1.0] * 6 + [m] * 3)
    layer.mask.is_open = m == 1
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 1.5, 9))
        x = torch.randn(4, 9, generator=generator(), dtype=torch.float64)
        found = layer(x)
    eps, is_rms = layer.epsilon, norm == "rmsnorm"
    expected = [masked_norm(v, layer.weight, layer.mask.value, eps, is_rms=is_rms) for v in x]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


@each_variant
def test_msg_hides_ordinary_random_weights_around_the_old_ones(config: ModelConfig) -> None:
    small = MaskedTransformer(config, generator=generator(1)).double()
    sizes = {"d_model": 9, "n_head": 4, "d_ff": 13, "n_layer": 5}
    large = grown(MSG(), small, sizes, StatePolicy.ASYMMETRIC)
    drawn = MaskedTransformer(large.model.config, generator=generator())
    new, fresh = (maps(m.state_dict(), large.model.config) for m in (large.model, drawn))
    old, moments = (maps(w, config) for w in (small.state_dict(), gradients(small)))
    averages = maps(large.moments.exp_avg, large.model.config)
    for name, tensor in new.items():
        if "mask" in name or name.endswith("eps"):
            continue
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "blocks" else 0
        origin = name.replace(f"blocks.{layer}.", f"blocks.{layer % config.n_layer}.", 1)
        corner = tuple(slice(n) for n in old[origin].shape)
        expected, average = fresh[name].double(), torch.zeros_like(tensor)
        expected[corner] = old[origin]
        if layer < config.n_layer:
            average[corner] = moments[origin]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-13, msg=name)
        torch.testing.assert_close(averages[name], average, rtol=0, atol=1e-13, msg=name)
    assert float((logits(large.model) - logits(small)).abs().max()) < 1e-10


def test_msg_opens_its_masks_linearly() -> None:
    method = MSG(ramp=0.2)
    small = MaskedTransformer(TINY, generator=generator(1)).double()
    model = grown(method, small, {"d_ff": 13}).model
    assert isinstance(model, MaskedTransformer)
    method.model = model
    for spent, m in ((0.0, 0.0), (0.05, 0.25), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        method.on_progress(spent)
        hidden = [mask.value for name, mask in model.masks.items() if "mask_hidden" in name]
        assert all(torch.isclose(value[10:], torch.tensor(m)).all() for value in hidden)
        assert model.is_open is (m == 1)


def test_another_rule_would_be_noticed() -> None:
    small = trained_like(replace(TINY, n_layer=3))
    other = grown(Stacking("interleaved"), small, {"n_layer": 6}).model.state_dict()
    with pytest.raises(AssertionError):
        assert_equal(other, blocks(small.state_dict(), [0, 1, 2, 0, 1, 2]))
    apart = grown(StagedTraining(noise=0.0), small, widened(TINY, 2)).model
    new, old = maps(apart.state_dict(), apart.config), maps(small.state_dict(), TINY)
    tiled = {n: hypercloned(n, w, new[n].shape, 2, tied=False) for n, w in old.items()}
    with pytest.raises(AssertionError, match=r"blocks\.0\.qkv\.weight"):
        assert_equal(new, tiled)
