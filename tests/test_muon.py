"""Muon: its directions are orthogonal, it agrees with torch's, and all else is AdamW's."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import TINY, gap, generator, gradients, trained_like
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.growth.operator import Moments
from benchmark.model.transformer import Transformer
from benchmark.training.muon import orthogonal
from benchmark.training.optim import (
    OptimizerConfig,
    build_optimizer,
    clipped_step,
    moments_of,
    optimizer_class,
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


def test_an_argument_that_it_does_not_have_is_the_user_s_mistake() -> None:
    with pytest.raises(ConfigError, match="momentun"):
        optimizer_class(replace(MUON, args={"momentun": 0.9}))
