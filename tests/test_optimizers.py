"""A suite may name another optimizer: growth, checkpoints and records carry its state."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_growth import Tile
from tiny import TINY, gap, generator, gradients, trained_like

from benchmark.base.errors import ConfigError
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.cost import Position
from benchmark.model.transformer import Transformer
from benchmark.records.card import NONE, card
from benchmark.records.folder import load_suite
from benchmark.stage.checkpoint import State, load_state, save_state
from benchmark.training.optim import (
    Optimizer,
    OptimizerConfig,
    build_optimizer,
    clipped_step,
    moments_of,
    optimizer_class,
)

ROOT = Path(__file__).resolve().parent.parent
HERE = "test_optimizers"
POWERS = {"momentum_buffer": 1}


class Momentum(torch.optim.SGD, Optimizer):
    """Gradient descent with momentum (Polyak 1964), as torch has it."""

    gradient_powers = POWERS


class Undeclared(torch.optim.SGD, Optimizer):
    """Does not say what its state is."""


CONFIG = OptimizerConfig(target=f"{HERE}:Momentum", args={"momentum": 0.9}, weight_decay=0.0)


def step_of(model: Transformer, moments: Moments) -> torch.optim.Optimizer:
    """The optimizer after one clipped step on the model's own gradients."""
    optimizer = build_optimizer(model, CONFIG, moments)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for name, gradient in gradients(model).items():
        model.get_parameter(name).grad = gradient
    clipped_step(optimizer, clip=1e9)
    return optimizer


def test_it_continues_from_its_state_and_hands_it_on() -> None:
    model = trained_like(TINY)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = gradients(model)
    held = {name: torch.ones_like(p) for name, p in before.items()}
    given = Moments({"momentum_buffer": held}, dict.fromkeys(held, 0.0), POWERS)
    after = moments_of(model, step_of(model, given)).tensors["momentum_buffer"]
    for name, parameter in model.named_parameters():
        buffer = 0.9 + found[name]
        torch.testing.assert_close(after[name], buffer, rtol=0, atol=1e-12)
        torch.testing.assert_close(parameter, before[name] - 0.01 * buffer, rtol=0, atol=1e-12)
        assert parameter.grad is None


@pytest.mark.parametrize(("power", "is_right"), [(1, True), (2, False)])
def test_its_state_grows_by_the_gradient_rule_for_its_power(power: int, is_right: bool) -> None:
    small = trained_like(TINY)
    state = Moments(
        {"buffer": gradients(small)}, dict.fromkeys(gradients(small), 0.0), {"buffer": power}
    )
    target = replace(TINY, d_model=12, n_head=6)
    source = Resources(generator(1))
    after = grow(small, state, target, [Tile()], StatePolicy.SCALED, source)
    gaps = [gap(after.moments.tensors["buffer"][n], g) for n, g in gradients(after.model).items()]
    assert (max(gaps) < 1e-12) is is_right
    reset = grow(small, state, target, [Tile()], StatePolicy.RESET, source).moments
    assert reset.powers == {"buffer": power}
    assert not any(tensor.any() for tensor in reset.tensors["buffer"].values())


def test_a_checkpoint_carries_its_state(tmp_path: Path) -> None:
    model = trained_like(TINY).float()
    moments = Moments({"momentum_buffer": gradients(model)}, dict.fromkeys(
        gradients(model), 3.0), POWERS)  # fmt: skip
    state = State(model=model, moments=moments, is_new={}, position=Position(), start=Position())
    save_state(tmp_path / "state", state)
    back = load_state(tmp_path / "state", Transformer, "cpu").moments
    assert (back.step, back.powers) == (moments.step, POWERS)
    assert back.tensors.keys() == moments.tensors.keys()
    for name, tensor in moments.tensors["momentum_buffer"].items():
        assert torch.equal(back.tensors["momentum_buffer"][name], tensor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": f"{HERE}:Undeclared"}, "gradient_powers must map at least one tensor"),
        ({"target": f"{HERE}:Undeclared2"}, "protocol.optimizer.target"),
        ({"target": "torch.optim:SGD"}, "torch.optim:SGD is not a Optimizer"),
        ({"target": f"{HERE}:Momentum", "args": {"momentun": 0.9}}, "momentun"),
        ({"target": f"{HERE}:Momentum", "beta2": 0.5}, "protocol.optimizer.beta2 is AdamW's"),
        ({"args": {"momentum": 0.9}}, "protocol.optimizer.args are of protocol.optimizer.target"),
    ],
)
def test_one_that_cannot_be_used_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizer_class(OptimizerConfig(**changes))


MODULE = '''
"""Gradient descent with momentum."""

import torch

from benchmark.baseline import Optimizer


class Momentum(torch.optim.SGD, Optimizer):
    gradient_powers = {"momentum_buffer": 1}
'''

SUITE: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0",
    "workload": {
        "corpus": "synthetic",
        "batch_size": 4,
        "target": {"d_model": 16, "n_layer": 4, "n_head": 2, "d_head": 8, "d_ff": 32,
                   "seq_len": 16},
    },
    "protocol": {
        "budget_flops": 6.0e8, "seeds": [0], "n_evaluations": 4, "curve_bytes": 512,
        "learning_rate": {"peak": 0.1},
        "optimizer": {"target": "theirs:Momentum", "args": {"momentum": 0.9}, "weight_decay": 0.0},
    },
    "methods": ["scratch", "stacking"],
    "run": {"workers": 1, "device": "cpu"},
}  # fmt: skip


@pytest.mark.slow
def test_an_optimizer_comes_from_another_package(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SUITE))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", "tiny.yaml"],
        cwd=tmp_path, env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for run in load_suite(tmp_path / "results/local/tiny").runs:
        assert run.status == "done"
        assert card(run)["run"]["error"] == NONE
        found = run.config["protocol"]["optimizer"]
        assert (found["target"], found["args"]) == ("theirs:Momentum", {"momentum": 0.9})
        losses = [record["loss"] for record in run.of("train")]
        assert losses[-1] < losses[0]
