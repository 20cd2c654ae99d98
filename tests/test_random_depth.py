"""Random paths cost what is charged; an early choice keeps the growth that its trials find best."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY, generator, logits, loss, text
from tiny_suite import run_of

from baselines.parts.block_orders import RepeatBlocks
from baselines.parts.early_choice import N_SCORED, EarlyChoice
from baselines.parts.random_path import RandomPathTransformer
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.contract.compute import flop_counter
from benchmark.growth.operator import Resources
from benchmark.model.cost import forward_flops_per_token, training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer

DEEP = replace(TINY, n_layer=5, own=(("n_path", 3),))
RANDOM_DEPTH = """
name: random_depth
target: baselines.random_depth:RandomDepth
sizes: {n_path: 4, n_layer: 4}
ladder: {shrink: {n_path: 2}, n_growths: 2}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.22, 0.56]}}
"""


def model_of(config: ModelConfig = DEEP, seed: int = 0) -> RandomPathTransformer:
    return RandomPathTransformer(config, generator=generator(seed))


@pytest.mark.parametrize("n_path", [1, 2, 3, 4, 5])
def test_steps_of_a_path_take_the_flops_that_they_are_charged(n_path: int) -> None:
    model = model_of(replace(DEEP, own=(("n_path", n_path),))).double()
    shell, window = RandomPathTransformer.shell(model.config), text(model.config)
    with flop_counter() as counter:
        for _ in range(4):
            loss(model, window).backward()
    n_tokens = 4 * len(window) * model.config.seq_len
    assert counter.get_total_flops() == n_tokens * training_flops_per_token(shell, causal=False)


def test_a_path_has_the_first_block_and_the_last_and_is_drawn_anew() -> None:
    model = model_of()
    paths = [tuple(model.draws.path(3, 5)) for _ in range(40)]
    assert {path[0] for path in paths} == {0}
    assert {path[2] for path in paths} == {4}
    assert {path[1] for path in paths} == {1, 2, 3}


def test_paths_follow_from_the_seed_and_go_on_where_they_were_saved() -> None:
    model, again, other = model_of(), model_of(), model_of(seed=1)
    first = [model.draws.path(3, 5) for _ in range(9)]
    assert [again.draws.path(3, 5) for _ in range(9)] == first
    assert [other.draws.path(3, 5) for _ in range(9)] != first
    again.load_state_dict(model.state_dict())
    assert [again.draws.path(3, 5) for _ in range(9)] == [model.draws.path(3, 5) for _ in range(9)]


def test_blocks_off_the_path_have_no_gradient_and_held_out_text_is_scored_by_all() -> None:
    model = model_of()
    loss(model, text(model.config)).backward()
    moved = {i for i, block in enumerate(model.blocks) if next(block.parameters()).grad is not None}
    assert moved == set(model_of().draws.path(3, 5))
    whole = Transformer(replace(DEEP, own=()), generator=generator(1))
    whole.load_state_dict({n: w for n, w in model.state_dict().items() if n != "draws.next"})
    assert torch.equal(logits(model.eval()), logits(whole))


def test_a_path_longer_than_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_path must be at most n_layer=5"):
        model_of(replace(DEEP, own=(("n_path", 6),)))


def test_a_run_is_charged_the_blocks_that_it_runs(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, RANDOM_DEPTH)
    stages = {spec.n_grown: spec for spec, _ in run.predicted()}
    n_tokens = stages[0].batch_size * stages[0].model["seq_len"]
    for rung, n_blocks in enumerate((2, 3, 4)):
        shell = Transformer.shell(
            replace(ModelConfig(**stages[rung].model), n_layer=n_blocks, own=())
        )
        assert stages[rung].step_flops == n_tokens * training_flops_per_token(shell)


ORDERS = ("whole", "interleaved", "last")
SMALL, LARGE = replace(TINY, n_layer=2), replace(TINY, n_layer=4)


def choose(orders: tuple[str, ...], n_batches: int = 4 + N_SCORED) -> tuple[str, float, float]:
    """Order that is kept, and FLOPs, without the masked half of attention and with it."""
    small = Transformer(SMALL, generator=generator()).double()
    batches = iter([text(SMALL, seed=i) for i in range(n_batches)])
    choice = EarlyChoice(orders=orders, n_steps=4, rate=1e-2)
    chosen = choice.prepare(small, LARGE, Resources(generator(), batches))
    kept = next(
        order
        for order in orders
        if all(
            torch.equal(weight, RepeatBlocks(order).prepare(small, LARGE, Resources(generator()))
                        .weights(small.state_dict(), {})[name])
            for name, weight in chosen.weights(small.state_dict(), {}).items()
        )
    )  # fmt: skip
    return kept, chosen.flops, chosen.flops + chosen.flops_masked


def trial_loss(order: str) -> float:
    """Loss of one order after the same steps, in a loop of its own."""
    small = Transformer(SMALL, generator=generator()).double()
    transfer = RepeatBlocks(order).prepare(small, LARGE, Resources(generator()))
    large = Transformer(LARGE).double()
    large.load_state_dict(transfer.weights(small.state_dict(), {}))
    optimizer = torch.optim.AdamW(large.parameters(), lr=1e-2, betas=(0.9, 0.95))
    for i in range(4):
        optimizer.zero_grad()
        loss(large, text(SMALL, seed=i)).backward()
        torch.nn.utils.clip_grad_norm_(large.parameters(), 1.0)
        optimizer.step()
    return sum(loss(large, text(SMALL, seed=i)).item() for i in range(4, 4 + N_SCORED))


def test_the_growth_is_kept_whose_trial_is_best() -> None:
    assert choose(ORDERS)[0] == min(ORDERS, key=trial_loss)
    assert choose(ORDERS[::-1])[0] == min(ORDERS, key=trial_loss)


def test_trials_are_charged_what_they_take() -> None:
    with flop_counter() as counter:
        _, causal, whole = choose(ORDERS)
    assert counter.get_total_flops() == whole
    shell, n_tokens = Transformer.shell(LARGE), 3 * SMALL.seq_len
    one = 4 * training_flops_per_token(shell) + N_SCORED * forward_flops_per_token(shell)
    assert causal == 3 * n_tokens * one


def test_a_choice_for_which_there_is_too_little_text_is_refused() -> None:
    with pytest.raises(GrowthError, match=f"a choice takes {4 + N_SCORED} batches, there are 5"):
        choose(ORDERS, n_batches=5)
