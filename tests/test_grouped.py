"""Grouped queries and normalised ones under every width operator, by every factor that it takes."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from tiny import gap, generator, gradients, logits, trained_like

from benchmark.base.errors import GrowthError
from benchmark.base.plugins import PluginConfig
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy, Weights
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import available, load_method
from benchmark.plan.guard import build_method
from benchmark.training.baseline import Baseline

SMALL = ModelConfig(
    d_model=8, n_layer=2, n_head=2, d_head=4, n_query=3, d_ff=12, vocab_size=13, seq_len=7,
    qk_norm=True,
)  # fmt: skip
FACTORS = (1.5, 2, 3, 4)


@cache
def widening() -> dict[str, Baseline]:
    """Methods that grow heads by operators that keep the function, those of one class once."""
    found: dict[str, Baseline] = {}
    for name in available("method"):
        config = load_method(name)
        if config.role != "method":
            continue
        method = build_method(PluginConfig(target=config.target, args=config.args), name)
        if "n_head" in method.grows and method.model_class is Transformer:
            found.setdefault(repr((type(method), method.operators)), method)
    return {key: method for key, method in found.items() if claims(method)}


def claims(method: Baseline) -> bool:
    return any(operator.preserves_function for operator in method.operators)


def grown(method: Baseline, factor: float) -> Iterator[tuple[Transformer, Moments, Grown]]:
    """The small model with its gradients as moments, and the large one; nothing if it refuses."""
    small = trained_like(SMALL)
    sizes = {n: round(SMALL.size(n) * factor) for n in ("d_model", "n_head", "d_ff")}
    target = SMALL.resized({n: size for n, size in sizes.items() if n in method.grows})
    found = gradients(small)
    squares = {name: gradient.square() for name, gradient in found.items()}
    moments = Moments.adam(found, squares, dict.fromkeys(found, 1.0))
    try:
        result = grow(small, moments, target, method.operators, StatePolicy.SCALED,
                      Resources(generator()))  # fmt: skip
    except GrowthError:
        return
    if all(operator.keeps_function(SMALL, target) for operator in method.operators):
        yield small, moments, result


@pytest.mark.parametrize("factor", FACTORS)
def test_heads_that_share_a_key_grow_exactly_and_their_moments_follow_the_gradients(
    factor: float,
) -> None:
    exact, followed = [], 0
    for method in widening().values():
        for small, _, result in grown(method, factor):
            exact.append(type(method).__name__)
            assert gap(logits(result.model), logits(small)) < 1e-10, exact[-1]
            if exact[-1] == "ZeroWidth":  # noise leaves moments right in sum over copies alone
                assert off(result) < 1e-12, exact[-1]
                followed += 1
    assert "ZeroWidth" in exact
    assert len(set(exact)) >= (4 if float(factor).is_integer() else 2), exact
    assert followed


def off(result: Grown) -> float:
    """Largest difference of a moment from the large model's gradient, where it has a source."""
    right: Weights = gradients(result.model)
    return max(
        gap(torch.where(moment == 0, 0.0, right[name]), moment)
        for name, moment in result.moments.exp_avg.items()
    )


def test_queries_apart_from_their_key_would_be_noticed() -> None:
    """Broken on purpose: the queries of two heads change places, their keys stay."""
    small = trained_like(SMALL)
    method = next(m for m in widening().values() if type(m).__name__ == "ZeroWidth")
    ((_, _, result),) = grown(method, 2)
    weight = result.model.get_parameter("blocks.0.qkv.weight")
    with torch.no_grad():
        slots = weight.view(5, 4, 4, -1)
        slots[0] = slots[0].roll(1, 0)
    assert gap(logits(result.model), logits(small)) > 1e-3
