"""Learning rates and initial weights follow a model's sizes, tensor by tensor."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, generator, text, trained_like
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.growth.operator import Moments
from benchmark.model.size_rule import Scale, SizeRule
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import load_method, load_suite
from benchmark.plan.run import Run
from benchmark.training.baseline import mean_nats
from benchmark.training.optim import (
    LearningRateConfig,
    OptimizerConfig,
    build_optimizer,
    clipped_step,
)

BASE = ModelConfig(d_model=32, n_layer=2, n_head=2, d_head=16, d_ff=64, seq_len=16)
MUP = LearningRateConfig(scale="mup").size_rule(BASE)


def wider(factor: int) -> ModelConfig:
    sizes = {name: factor * BASE.size(name) for name in ("d_model", "n_head", "d_ff")}
    return BASE.resized(sizes)


def rates(config: ModelConfig, rule: SizeRule) -> dict[str, float]:
    axes = Transformer.shell(config).axes()
    names = [name for name in axes if name.endswith(".weight")]
    return {name.removesuffix(".weight"): rule.rate(axes[name], config) for name in names}


def test_under_mup_the_rate_of_a_linear_map_falls_with_its_own_fan_in() -> None:
    found = rates(BASE.resized({"d_model": 64, "d_ff": 256}), MUP)
    assert found["embed"] == found["blocks.0.norm_attn"] == found["norm_head"] == 1.0
    assert found["blocks.1.qkv"] == found["blocks.1.up"] == found["head"] == 1 / 2
    assert found["blocks.0.o"] == 1.0  # reads heads, which are as many as before
    assert found["blocks.0.down"] == 1 / 4


def test_at_the_target_rates_are_the_suite_s_and_a_source_has_those_of_its_own_size() -> None:
    assert set(rates(BASE, MUP).values()) == {1.0}
    source = rates(BASE.resized({"d_model": 16, "n_head": 1, "d_ff": 32}), MUP)
    assert source["blocks.0.qkv"] == source["blocks.0.o"] == source["head"] == 2.0


def test_the_peak_may_hold_at_another_width() -> None:
    rule = LearningRateConfig(scale="mup", base_width=8).size_rule(BASE)
    assert rates(BASE, rule)["blocks.0.down"] == 1 / 4
    rule = LearningRateConfig(scale="by_size", base_width=8, power=0.5).size_rule(BASE)
    assert set(rates(BASE, rule).values()) == {1 / 2}


def test_by_size_all_rates_follow_a_power_of_the_width() -> None:
    rule = LearningRateConfig(scale="by_size", power=0.5).size_rule(BASE)
    assert set(rates(wider(4), rule).values()) == {1 / 2}


def test_what_a_step_decays_is_the_same_whatever_the_rate() -> None:
    model = trained_like(wider(4))
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model), MUP)
    products = {group["rate"] * group["weight_decay"] for group in optimizer.param_groups}
    assert products == {0.0, 0.1}


def test_only_the_head_starts_otherwise() -> None:
    drawn, scaled = (Transformer(wider(4), generator=generator()) for _ in range(2))
    MUP.scale_initial(scaled)
    for name, weight in drawn.named_parameters():
        factor = 1 / 2 if name == "head.weight" else 1.0
        assert torch.equal(scaled.get_parameter(name), factor * weight)


def logit_change(config: ModelConfig, scale: Scale, n_steps: int = 3) -> float:
    """Root mean square of what a few steps change the logits by, from a head of zero.

    A head that is drawn adds logits that vanish with the width, and steps that take them back.
    """
    rule = LearningRateConfig(scale=scale).size_rule(BASE)
    model = Transformer(config, generator=generator(1))
    torch.nn.init.zeros_(model.get_parameter("head.weight"))
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model), rule)
    window = text(config, n_windows=8)
    before = model(window[:, :-1]).detach()
    for _ in range(n_steps):
        mean_nats(model, window).backward()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * group["rate"]
        clipped_step(optimizer, clip=1.0)
    change: Tensor = model(window[:, :-1]).detach() - before
    return float(change.square().mean().sqrt())


@pytest.mark.slow
def test_under_mup_the_same_rate_does_as_much_at_every_width_and_otherwise_more() -> None:
    """The coordinate check of Yang et al. 2022, appendix D.1."""
    widths = (1, 2, 4, 8)
    with_mup = [logit_change(wider(factor), "mup") for factor in widths]
    without = [logit_change(wider(factor), "none") for factor in widths]
    assert max(with_mup) < 1.15 * min(with_mup), with_mup
    assert without[-1] > 2.5 * without[0], without


def test_stages_carry_the_rule_with_the_target_as_its_base() -> None:
    suite = load_suite("smoke", ["protocol.learning_rate.scale=mup"])
    run = Run(suite, load_method("scratch_small"), 0, {"sha256": ""})
    (stage, _), *_ = run.predicted()
    assert stage.rule.base == suite.workload.target
    assert stage.model["d_model"] <= stage.rule.base.d_model


@pytest.mark.parametrize(
    "override", ["workload.target.tied=true", "protocol.optimizer.target=torch.optim:SGD"]
)
def test_mup_is_refused_where_it_is_not_derived(override: str) -> None:
    with pytest.raises(ConfigError, match="scale is mup, which is derived for Adam and a head"):
        load_suite("smoke", ["protocol.learning_rate.scale=mup", override])


def test_a_rule_that_is_none_changes_nothing() -> None:
    model = trained_like(replace(TINY, tied=True))
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model))
    assert {group["rate"] for group in optimizer.param_groups} == {1.0}
