"""Copies at the rates of muP stay what the small model would have become."""

import pytest
import torch
from tiny import TINY, gap, generator, logits, text, trained_like

from baselines.mup_width import MupWidth
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.size_rule import Scale
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.baseline import mean_nats
from benchmark.training.optim import (
    LearningRateConfig,
    OptimizerConfig,
    build_optimizer,
    clipped_step,
    moments_of,
)

N_STEPS = 10
CONFIG = OptimizerConfig(eps=1e-30)


def train(model: Transformer, moments: Moments, target: ModelConfig, scale: Scale) -> Moments:
    """Some steps, the same text for every width; gradients are not clipped."""
    rule = LearningRateConfig(scale=scale).size_rule(target)
    optimizer = build_optimizer(model, CONFIG, moments, rule)
    for step in range(N_STEPS):
        mean_nats(model, text(model.config, seed=step)).backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * group["rate"]
        clipped_step(optimizer, clip=1e9)
    return moments_of(model, optimizer)


def apart(factor: int, scale: Scale, noise: float = 0.0) -> float:
    """Largest difference of logits after training, growth and training, and without the growth."""
    target = TINY.resized({n: factor * TINY.size(n) for n in ("d_model", "n_head", "d_ff")})
    small = trained_like(TINY)
    moments = train(small, Moments.zeros(small), target, scale)
    resources = Resources(generator(1))
    grown = grow(small, moments, target, MupWidth(noise).operators, StatePolicy.SCALED, resources)
    train(small, moments, target, scale)
    train(grown.model, grown.moments, target, scale)
    return gap(logits(grown.model), logits(small))


@pytest.mark.parametrize("factor", [2, 3])
def test_without_noise_the_large_model_stays_the_small_one_throughout_training(factor: int) -> None:
    assert apart(factor, "mup") < 1e-9


def test_at_one_rate_for_all_sizes_it_does_not_nor_with_noise() -> None:
    assert apart(2, "none") > 1e-3
    assert apart(2, "mup", noise=0.25) > 1e-3


def test_noise_is_a_new_model_s_weights_scaled_down() -> None:
    target = TINY.resized({"d_model": 12})
    small = trained_like(TINY)
    grown = {
        noise: grow(small, Moments.zeros(small), target, MupWidth(noise).operators,
                    StatePolicy.RESET, Resources(generator(1))).model
        for noise in (0.0, 0.5)
    }  # fmt: skip
    fresh = Transformer(target, generator=generator(1))
    for name, weight in fresh.named_parameters():
        factor = 0.0 if "norm" in name else 0.5
        noise = grown[0.5].get_parameter(name) - grown[0.0].get_parameter(name)
        assert gap(noise.detach(), factor * weight.detach().double()) < 1e-12
    assert torch.equal(grown[0.0].embed.weight[:, 0], grown[0.0].embed.weight[:, 6])


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="noise must be at least 0, got -1"):
        MupWidth(noise=-1)
    small, target = trained_like(TINY), TINY.resized({"d_model": 9})
    operators, resources = MupWidth().operators, Resources(generator())
    with pytest.raises(
        GrowthError, match="d_model must grow to a multiple of 6 to be tiled, got 9"
    ):
        grow(small, Moments.zeros(small), target, operators, StatePolicy.RESET, resources)
