"""AdamW is AdamW, and the learning rate is a function of the budget."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import TINY, gap, generator, gradients, trained_like
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.growth.operator import Moments, Weights
from benchmark.model.transformer import Kind, Transformer
from benchmark.training.optim import (
    OptimizerConfig,
    RateCurve,
    Rewarm,
    build_optimizer,
    clipped_step,
    moments_of,
    scaled_update,
)

WSD = RateCurve(peak=2.0, warmup_flops=10.0, decay=(80.0, 100.0))


@pytest.mark.parametrize(
    ("flops", "rate"),
    [
        (0.0, 0.0), (1.0, 0.2), (5.0, 1.0), (10.0, 2.0),
        (11.0, 2.0), (50.0, 2.0), (80.0, 2.0),
        (85.0, 1.5), (90.0, 1.0), (99.0, 0.1), (100.0, 0.0), (101.0, 0.0),
    ],
)  # fmt: skip
def test_the_rate_warms_up_stays_and_decays_to_zero(flops: float, rate: float) -> None:
    assert WSD.at(flops) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("budget", [1e9, 3.3e12, 7.7e17])
def test_the_rate_is_exactly_zero_at_the_end_of_the_budget(budget: float) -> None:
    curve = RateCurve(peak=6e-3, warmup_flops=0.02 * budget, decay=(0.8 * budget, budget))
    assert curve.at(budget) == 0.0
    assert curve.at(math.nextafter(budget, 0)) > 0.0


def test_until_the_decay_starts_runs_of_any_length_share_one_curve() -> None:
    shared = replace(WSD, decay=None)
    for flops in (0.0, 5.0, 10.0, 79.0, 80.0):
        assert shared.at(flops) == WSD.at(flops) == replace(WSD, decay=(80.0, 999.0)).at(flops)
    assert shared.at(90.0) == 2.0 != WSD.at(90.0)


@pytest.mark.parametrize(
    ("since", "factor"), [(0.0, 0.5), (10.0, 0.9), (20.0, 1.3), (21.0, 1.3), (500.0, 1.3)]
)
def test_a_rewarm_ramps_from_its_start_to_its_ratio_and_stays(since: float, factor: float) -> None:
    rewarm = Rewarm(which="new", start=0.5, ratio=1.3, length=0.02)
    assert rewarm.factor(since, budget_flops=1000.0) == pytest.approx(factor)


def test_a_rewarm_may_have_another_ratio_after_every_growth() -> None:
    rewarm = Rewarm(which="all", ratios=[1.3, 1.1])
    assert [rewarm.after(n).ratio for n in (1, 2, 3)] == [1.3, 1.1, 1.1]
    assert Rewarm(ratio=0.7).after(2).ratio == 0.7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rewarm(which="old"), "rewarm.which must be none, all or new, got 'old'"),
        (lambda: Rewarm(length=0.0), "length > 0"),
        (lambda: Rewarm(ratio=0.0), "ratios > 0"),
        (lambda: Rewarm(ratios=[1.0, 0.0]), "ratios > 0"),
        (lambda: Rewarm(start=-1.0), "start >= 0"),
    ],
)
def test_refuses_a_curve_without_sense(make: type[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def warm_moments(model: Transformer, step: float = 7.0) -> Moments:
    source = generator(3)
    first = {
        n: torch.randn(p.shape, generator=source).double() for n, p in model.named_parameters()
    }
    second = {name: moment.square() + 0.1 for name, moment in first.items()}
    return Moments.adam(first, second, dict.fromkeys(first, step))


def set_gradients(model: Transformer, found: Weights) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = found[name].clone()


def by_hand(
    theta: Tensor, gradients: list[Tensor], config: OptimizerConfig, rate: float, *, decays: bool,
    start: tuple[Tensor, Tensor, float],
) -> Tensor:  # fmt: skip
    """AdamW as in algorithm 2 of Loshchilov & Hutter 2019, with rate x decay as in torch."""
    m, v, t = start
    for g in gradients:
        t += 1
        theta = theta - rate * config.weight_decay * theta * decays
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g * g
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        theta = theta - rate * m_hat / (v_hat.sqrt() + config.eps)
    return theta


@pytest.mark.parametrize("config", [OptimizerConfig(), OptimizerConfig(beta2=0.999, eps=1e-3)])
@pytest.mark.parametrize("step", [0.0, 7.0])
def test_five_steps_agree_with_adamw_by_hand(config: OptimizerConfig, step: float) -> None:
    model = trained_like(TINY)
    moments = warm_moments(model, step) if step else Moments.zeros(model)
    optimizer = build_optimizer(model, config, copy.deepcopy(moments))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen: list[Weights] = []
    for i in range(5):
        seen.append(gradients(model, seed=i))
        set_gradients(model, seen[-1])
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
    for name, parameter in model.named_parameters():
        start = (moments.exp_avg[name], moments.exp_avg_sq[name], step)
        expected = by_hand(
            before[name], [g[name] for g in seen], config, 0.01,
            decays="norm" not in name, start=start,
        )  # fmt: skip
        assert gap(parameter.detach(), expected) < 1e-12


def test_decay_shrinks_matrices_and_leaves_gains_alone() -> None:
    model = trained_like(replace(TINY, positions="learned", tied=True))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5), Moments.zeros(model))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    set_gradients(model, {name: torch.zeros_like(p) for name, p in before.items()})
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    kinds = {name: axes.kind for name, axes in model.axes().items()}
    for name, parameter in model.named_parameters():
        factor = 1.0 if kinds[name] is Kind.GAIN else 0.95
        assert gap(parameter.detach(), factor * before[name]) < 1e-12
    n_decayed = sum(
        len(group["params"]) for group in optimizer.param_groups if group["weight_decay"]
    )
    assert n_decayed == 2 + 4 * TINY.n_layer  # embedding, positions, four maps per block


def test_moments_come_back_as_they_were_given_and_are_held_once() -> None:
    model = trained_like(TINY)
    given = warm_moments(model)
    before = copy.deepcopy(given)
    optimizer = build_optimizer(model, OptimizerConfig(), given)
    back = moments_of(model, optimizer)
    assert back.step == given.step
    for name in before.step:
        assert torch.equal(back.exp_avg[name], before.exp_avg[name])
        assert torch.equal(back.exp_avg_sq[name], before.exp_avg_sq[name])
    set_gradients(model, gradients(model))
    optimizer.step()
    for name in before.step:
        assert given.exp_avg[name] is back.exp_avg[name]
        assert not torch.equal(given.exp_avg[name], before.exp_avg[name])
    assert set(moments_of(model, optimizer).step.values()) == {8.0}


def half_new(model: Transformer) -> Weights:
    """Every other entry of every matrix is new; gains have no new entries."""
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, mask in masks.items():
        if "norm" not in name:
            mask.view(-1)[::2] = True
    return masks


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.3])
def test_a_scaled_update_scales_what_happens_to_new_entries_and_nothing_else(factor: float) -> None:
    model, plain = trained_like(TINY), trained_like(TINY)
    is_new = half_new(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for each in (model, plain):
        optimizer = build_optimizer(each, OptimizerConfig(), warm_moments(each))
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.01
        set_gradients(each, gradients(each))
        with scaled_update(each, is_new if each is model else {}, factor):
            optimizer.step()
    for name, parameter in model.named_parameters():
        full = plain.get_parameter(name).detach()
        new, found = is_new[name], parameter.detach()
        assert torch.equal(found[~new], full[~new])
        expected = before[name] + factor * (full - before[name])
        assert gap(found[new], expected[new]) < 1e-14 if new.any() else True
    assert any(not torch.equal(p, plain.get_parameter(n)) for n, p in model.named_parameters())


def updates(beta2: float, step: float, n_steps: int) -> list[float]:
    """Update over rate of an entry whose moments are zero inside a tensor that is `step` old."""
    model = trained_like(TINY)
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    cold = {name: one.clone() for name, one in ones.items()}
    for moment in cold.values():
        moment.view(-1)[0] = 0.0
    moments = Moments.adam(cold, {n: m.clone() for n, m in cold.items()}, dict.fromkeys(cold, step))
    optimizer = build_optimizer(model, OptimizerConfig(beta2=beta2, weight_decay=0.0), moments)
    weight, found = model.embed.weight.detach().view(-1), []
    for _ in range(n_steps):
        before = weight.clone()
        set_gradients(model, ones)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-3
        optimizer.step()
        moved = (before - weight) / 1e-3
        assert float(moved[1]) == pytest.approx(1.0, rel=1e-3)  # a warm entry moves by the rate
        found.append(float(moved[0]))
    return found


@pytest.mark.parametrize(
    ("beta2", "at_once", "peak", "peak_at"), [(0.95, 0.45, 1.1, None), (0.999, 3.2, 6.6, 12)]
)
def test_zeroed_moments_inside_a_warm_tensor_overshoot(
    beta2: float, at_once: float, peak: float, peak_at: int | None
) -> None:
    """(1 - beta1^j) / sqrt(1 - beta2^j): why moments are reset with care, and beta2 is 0.95."""
    found = updates(beta2, step=1e6, n_steps=20)
    for j, update in enumerate(found, start=1):
        assert update == pytest.approx((1 - 0.9**j) / math.sqrt(1 - beta2**j), rel=1e-3)
    assert found[0] == pytest.approx(at_once, abs=0.05)
    assert max(found) == pytest.approx(peak, abs=0.05)
    assert peak_at is None or found.index(max(found)) + 1 == peak_at


def test_a_restarted_bias_correction_does_not_overshoot() -> None:
    model = trained_like(TINY)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0), Moments.zeros(model))
    before = model.embed.weight.detach().clone()
    set_gradients(model, {name: torch.ones_like(p) for name, p in model.named_parameters()})
    optimizer.param_groups[0]["lr"] = 1e-3
    optimizer.step()
    torch.testing.assert_close(
        (before - model.embed.weight.detach()) / 1e-3, torch.ones_like(before)
    )


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_a_clipped_step_is_clipping_and_a_step(clip: float) -> None:
    models = [trained_like(TINY) for _ in range(2)]
    optimizers = [
        build_optimizer(model, OptimizerConfig(), Moments.zeros(model)) for model in models
    ]
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            for name, gradient in gradients(model).items():
                model.get_parameter(name).grad = gradient
            for group in optimizer.param_groups:
                group["lr"] = 1e-2
        ordered = [p for group in optimizers[0].param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(ordered, clip)
        optimizers[0].step()
        optimizers[0].zero_grad()
        clipped_step(optimizers[1], clip)
    for theirs, ours in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert ours.grad is None
        assert torch.equal(ours, theirs)
    assert set(moments_of(models[1], optimizers[1]).step.values()) == {3.0}


def test_a_clipped_step_passes_over_parameters_without_gradient() -> None:
    model = trained_like(TINY)
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model))
    model.embed.weight.grad = torch.ones_like(model.embed.weight)
    clipped_step(optimizer, 1.0)
    steps = moments_of(model, optimizer).step
    assert steps.pop("embed.weight") == 1.0
    assert set(steps.values()) == {0.0}
