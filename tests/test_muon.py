"""Muon: its directions are orthogonal, it agrees with torch's, and all else is AdamW's."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from tiny import TINY, gap, generator, gradients, trained_like
from torch import Tensor
from typing_extensions import override

from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.random_path import RandomPathTransformer
from baselines.parts.resting_tokens import RestingTokenFormer
from baselines.parts.token_parameters import TokenFormer
from benchmark.base.errors import ConfigError
from benchmark.contract import judge, subject
from benchmark.contract.compute import flop_counter
from benchmark.growth.operator import Moments
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.muon import Muon, orthogonal
from benchmark.training.optim import (
    OptimizerConfig,
    build_optimizer,
    clipped_step,
    moments_of,
    optimizer_class,
    optimizer_flops,
)

MUON = OptimizerConfig(target="benchmark.training.muon:Muon")
RATE = 0.01


def steps(model: Transformer, config: OptimizerConfig, n_steps: int) -> Moments:
    """State after some steps, each on the gradient of other text."""
    optimizer = build_optimizer(model, config, Moments.zeros(model))
    for group in optimizer.param_groups:
        group["lr"] = RATE
    for step in range(n_steps):
        for name, gradient in gradients(model, seed=step).items():
            model.get_parameter(name).grad = gradient
        clipped_step(optimizer, clip=1e9)
    return moments_of(model, optimizer)


def by_torch(maps: list[Tensor], found: list[list[Tensor]], *, nesterov: bool) -> list[Tensor]:
    """`torch.optim.Muon` on some maps."""
    parameters = [torch.nn.Parameter(m.detach().clone()) for m in maps]
    optimizer = torch.optim.Muon(
        parameters, lr=RATE, adjust_lr_fn="match_rms_adamw", nesterov=nesterov
    )
    for step in found:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [p.detach() for p in parameters]


def test_directions_keep_their_singular_vectors_and_lose_their_singular_values() -> None:
    update = torch.randn(2, 5, 9, generator=generator(), dtype=torch.float64)
    left, values, right = torch.linalg.svd(orthogonal(update, 5), full_matrices=False)
    assert 0.6 < values.min() <= values.max() < 1.3
    ours = left @ right
    theirs_left, _, theirs_right = torch.linalg.svd(update, full_matrices=False)
    assert gap(ours, theirs_left @ theirs_right) < 1e-10


@pytest.mark.parametrize("nesterov", [True, False])
def test_maps_move_as_with_torch_s_muon_each_of_those_that_lie_stacked(nesterov: bool) -> None:
    model = trained_like(TINY)
    before, found = copy.deepcopy(model), [gradients(model, seed=0)]
    steps(model, replace(MUON, args={"nesterov": nesterov}), 1)
    names = ["blocks.0.qkv.weight", "blocks.1.o.weight", "blocks.0.up.weight"]
    for name in names:
        n_maps = 3 if "qkv" in name else 1
        maps = list(before.get_parameter(name).chunk(n_maps))
        expected = by_torch(maps, [list(found[0][name].chunk(n_maps))], nesterov=nesterov)
        # theirs is in bfloat16
        assert gap(model.get_parameter(name).detach(), torch.cat(expected)) < 0.03 * RATE


def test_tables_head_and_gains_are_adamw_s() -> None:
    ours, theirs = trained_like(TINY), trained_like(TINY)
    steps(ours, MUON, 1)
    steps(theirs, OptimizerConfig(), 1)
    for name in ["embed.weight", "head.weight", "norm_head.weight", "blocks.0.norm_mlp.weight"]:
        assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name))
    assert not torch.equal(ours.get_parameter("blocks.0.o.weight"),
                           theirs.get_parameter("blocks.0.o.weight"))  # fmt: skip


def test_keys_of_all_tokens_are_one_map_old_ones_and_new_ones_by_themselves() -> None:
    own = (("n_token", 9), ("n_rest", 4))
    model = RestingTokenFormer(replace(TINY, own=own), generator=generator())
    optimizer = build_optimizer(model, MUON, Moments.zeros(model))
    found = {id(p): group["n_maps"] for group in optimizer.param_groups for p in group["params"]}
    maps = {name: found[id(p)] for name, p in model.named_parameters() if "blocks.0." in name}
    for part, n_maps in (("qkv", 3), ("o", 1), ("mlp", 1)):
        for name in ("read", "write", "read_new", "write_new"):
            assert maps[f"blocks.0.{part}.{name}"] == n_maps


def test_an_update_has_the_root_mean_square_that_it_is_to_have() -> None:
    model = trained_like(TINY)
    before = copy.deepcopy(model)
    steps(model, replace(MUON, weight_decay=0.0), 1)
    for name in ["blocks.0.up.weight", "blocks.0.down.weight"]:
        moved = (model.get_parameter(name) - before.get_parameter(name)).detach()
        assert float(moved.square().mean().sqrt()) / RATE == pytest.approx(0.2, rel=0.25)


def test_its_momentum_averages_gradients_as_growth_takes_it_to() -> None:
    model = trained_like(TINY)
    first = gradients(model, seed=0)
    state = steps(model, MUON, 1)
    name = "blocks.0.up.weight"
    assert gap(state.exp_avg[name], 0.05 * first[name]) < 1e-15
    assert not state.exp_avg_sq[name].any()
    assert state.step[name] == 1.0


GROUPED = replace(TINY, n_query=2, n_layer=3)


@pytest.mark.parametrize(
    "model",
    [
        Transformer(GROUPED, generator=generator()),
        LowRankTransformer(replace(GROUPED, own=(("rank", 3),)), generator=generator()),
        TokenFormer(replace(TINY, own=(("n_token", 9),)), generator=generator()),
        RandomPathTransformer(replace(GROUPED, own=(("n_path", 2),)), generator=generator()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_step_multiplies_what_is_charged_frozen_maps_and_idle_blocks_left_out(
    model: Transformer,
) -> None:
    frozen = [n for n, p in model.named_parameters() if n.startswith("blocks.0.") and p.ndim == 2]
    for names in ([], frozen[:2]):
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        optimizer = build_optimizer(model.train(), MUON, Moments.zeros(model))
        ids = torch.zeros(2, TINY.seq_len, dtype=torch.int64)
        model(ids).sum().backward()
        with flop_counter() as counter:
            clipped_step(optimizer, clip=1.0)
        charge = optimizer_flops(model.shell(model.config), MUON, names)
        assert counter.get_total_flops() == charge > 0


def test_the_charge_worked_out_by_hand_and_its_share_of_a_step() -> None:
    """At the target of suite `cpu`, and at 124 M parameters with half a million tokens a step."""
    shares = {}
    sizes = ((32, 4, 256, 128, 2**10), (768, 12, 50257, 1024, 2**19))
    for width, n_layer, vocab_size, seq_len, n_tokens in sizes:
        shell = Transformer.shell(
            ModelConfig(d_model=width, n_layer=n_layer, n_head=4, d_head=width // 4,
                        d_ff=4 * width, vocab_size=vocab_size, seq_len=seq_len)
        )  # fmt: skip
        found = optimizer_flops(shell, MUON, ())
        # four square maps, two four times as wide: 5 iterations of 4 R^2 C + 2 R^3 each
        assert found == n_layer * 5 * (4 * 6 + 2 * 18) * width**3
        shares[width] = found / (n_tokens * training_flops_per_token(shell))
    assert shares == {32: pytest.approx(0.0867, abs=1e-4), 768: pytest.approx(0.0039, abs=1e-4)}
    assert optimizer_flops(shell, OptimizerConfig(), ()) == 0


class Silent(Muon):
    """Does not say what it multiplies."""

    @override
    def step_flops(self) -> float:
        return 0.0


def test_an_optimizer_that_multiplies_more_than_it_declares_fails_the_contract() -> None:
    held = subject("baselines.stacking:Stacking", optimizer="test_muon:Silent")
    (result,) = judge(held, ["training FLOPs"]).values()
    assert not result.passed
    assert re.search(r"a step of the optimizer takes \d+ FLOPs, it declares 0", result.detail)


def test_an_argument_that_it_does_not_have_is_the_user_s_mistake() -> None:
    with pytest.raises(ConfigError, match="momentun"):
        optimizer_class(replace(MUON, args={"momentun": 0.9}))
