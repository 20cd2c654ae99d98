"""Models small enough for float64 equalities, in every variant; no test lives here."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.growth.operator import Moments, Weights
from benchmark.model.transformer import CHOICES, Kind, ModelConfig, Transformer
from benchmark.training.optim import OptimizerConfig, build_optimizer

TINY = ModelConfig(d_model=6, n_layer=2, n_head=3, d_head=4, d_ff=10, vocab_size=13, seq_len=7)
"""No two sizes are equal, so that a mistaken axis cannot pass unnoticed."""

VARIANTS = [
    replace(
        TINY, norm=norm, positions=positions, activation=activation, tied=tied,
        n_query=1 + ((norm == "layernorm") ^ (positions == "learned") ^ tied),
        qk_norm=(norm == "layernorm") ^ (activation == "swiglu") ^ tied,
    )
    for norm, positions, activation in product(*CHOICES.values())
    for tied in (False, True)
]  # fmt: skip
"""Grouped queries and normalised ones with each of the other choices, in half of all."""


def label(config: ModelConfig) -> str:
    """Name of a variant in a test's id."""
    head = "tied" if config.tied else "untied"
    queries = f"-queries{config.n_query}" + "-qk_norm" * config.qk_norm
    return f"{config.norm}-{config.positions}-{config.activation}-{head}{queries}"


every_variant = pytest.mark.parametrize("config", VARIANTS, ids=label)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_like(config: ModelConfig, seed: int = 0, cls: type[Any] = Transformer) -> Transformer:
    """A float64 model of which no tensor is at a special value: gains of one hide mistakes."""
    source = generator(seed)
    model: Transformer = cls(config, generator=source).double()
    kinds = {name: axes.kind for name, axes in model.axes().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.add_(noise, alpha=0.3 if kinds[name] is Kind.GAIN else 0.1)
    return model


def text(config: ModelConfig, n_windows: int = 3, seed: int = 0) -> Tensor:
    """Random windows of one byte more than the model reads, int64 (B, T + 1)."""
    shape = (n_windows, config.seq_len + 1)
    return torch.randint(config.vocab_size, shape, generator=generator(seed))


def logits(model: Transformer, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return model(text(model.config, seed=seed)[:, :-1])


def loss(model: Transformer, window: Tensor) -> Tensor:
    return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


def train(
    model: Transformer, n_steps: int, moments: Moments | None = None, weight_decay: float = 0.1
) -> None:
    """A few real AdamW steps at a high rate, from fresh moments or from those given."""
    config = OptimizerConfig(weight_decay=weight_decay)
    optimizer = build_optimizer(model, config, moments or Moments.zeros(model))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for step in range(n_steps):
        optimizer.zero_grad()
        loss(model, text(model.config, seed=step)).backward()
        optimizer.step()


def gradients(model: Transformer, seed: int = 0) -> Weights:
    """Gradient of the loss on `text`, by parameter name."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss(model, text(model.config, seed=seed)), list(named.values()))
    return dict(zip(named, found, strict=True))


def gap(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    return float((a - b).abs().max())
