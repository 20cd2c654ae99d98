"""The ledger charges what torch counts and what a pencil finds."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import TINY, every_variant, loss, text
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.model.cost import (
    Position,
    affordable_steps,
    attended_keys,
    forward_flops_per_token,
    training_flops_per_token,
)
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.baseline import mean_nats


def counted(model: Transformer, *, backward: bool) -> float:
    """FLOPs per token by torch's counter; it counts the masked half of the scores too."""
    model = model.double()  # the float32 kernel on a CPU is one the counter does not know
    window = text(model.config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = loss(model, window) if backward else model(window[:, :-1])
        if backward:
            result.backward()
    return counter.get_total_flops() / window[:, :-1].numel()


@every_variant
def test_the_unmasked_formula_is_what_torch_counts(config: ModelConfig) -> None:
    model = Transformer(config)
    assert counted(model, backward=False) == forward_flops_per_token(model, causal=False)
    assert counted(model, backward=True) == training_flops_per_token(model, causal=False)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_in_parts_cost_what_is_charged_and_nothing_is_computed_twice(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.model.transformer.LARGE", 2)
    model = Transformer(replace(TINY, tied=tied)).double()
    window = text(model.config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        mean_nats(model, window).backward()
    charged = training_flops_per_token(model, causal=False) * window[:, :-1].numel()
    assert counter.get_total_flops() == charged


@pytest.mark.parametrize("changes", [{"n_head": 5}, {"d_ff": 3}, {"seq_len": 31}, {"n_layer": 1}])
def test_the_formula_follows_every_size(changes: dict[str, int]) -> None:
    model = Transformer(replace(TINY, **changes))  # type: ignore[arg-type]
    assert counted(model, backward=True) == training_flops_per_token(model, causal=False)
    assert training_flops_per_token(model) != training_flops_per_token(Transformer.shell(TINY))


def test_six_flops_per_parameter_is_not_what_torch_counts() -> None:
    model = Transformer(TINY)
    n_params = sum(parameter.numel() for parameter in model.parameters())
    assert counted(model, backward=True) != 6 * n_params


def test_one_config_agrees_with_a_pencil() -> None:
    """Per block: qkv 8 x 24, output 8 x 8, up and down 8 x 16; the head 8 x 10.

    (2 (192 + 64 + 256) + 80) = 1104 multiply-accumulates, and 2 blocks x 2 x 8 per attended key:
    80 for the mean of 1, 2, 3 and 4 keys, 128 for always 4.
    """
    config = ModelConfig(
        d_model=8, n_layer=2, n_head=2, d_head=4, d_ff=16, vocab_size=10, seq_len=4
    )
    model = Transformer.shell(config)
    assert (model.linear_macs, model.attention_macs) == (1104, 32)
    assert forward_flops_per_token(model) == 2 * (1104 + 80)
    assert training_flops_per_token(model) == 7104
    assert training_flops_per_token(model, causal=False) == 7392


@every_variant
def test_a_head_costs_the_same_tied_or_not_and_a_look_up_costs_nothing(config: ModelConfig) -> None:
    plain = replace(config, tied=False, positions="rotary")
    assert forward_flops_per_token(Transformer(config)) == forward_flops_per_token(
        Transformer(plain)
    )


@pytest.mark.parametrize("T", [1, 2, 7, 64])
def test_attended_keys_are_counted_by_hand(T: int) -> None:
    pairs = sum(key <= query for query, key in product(range(T), repeat=2))
    assert attended_keys(T) == pairs / T
    assert attended_keys(T, causal=False) == len(list(product(range(T), repeat=2))) / T


@pytest.mark.parametrize(
    ("spent", "until", "step", "steps"),
    [
        (0.0, 10.0, 3.0, 3),
        (0.0, 9.0, 3.0, 3),  # exactly at the limit is allowed
        (0.0, 8.999, 3.0, 2),
        (1.0, 9.0, 3.0, 2),
        (9.0, 9.0, 3.0, 0),
        (9.5, 9.0, 3.0, 0),  # overspent, by a growth that had to learn its map
        (0.0, 2.0, 3.0, 0),
    ],
)
def test_steps_never_pass_the_limit(spent: float, until: float, step: float, steps: int) -> None:
    assert affordable_steps(spent, until, step) == steps


def test_the_next_step_would_pass_the_limit() -> None:
    numbers = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for spent, room, step in (numbers * torch.tensor([1e16, 1e16, 1e13])).tolist():
        n = affordable_steps(spent, spent + room, step)
        assert spent + n * step <= spent + room < spent + (n + 1) * step


def test_a_position_adds_up_what_is_spent() -> None:
    start = Position(step=1, window=4, tokens=40, flops=1e3, seconds=0.5)
    end = start.after(steps=2, windows=8, tokens=80, flops=2e3, seconds=1.0)
    assert end == Position(step=3, window=12, tokens=120, flops=3e3, seconds=1.5)
    assert start.after() == start
