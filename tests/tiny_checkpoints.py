"""Tiny random checkpoints of every architecture, and transformers' own forward pass in float64."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from benchmark.pretrained.grow import Plan, Request

logging.disable_progress_bar()

SHARED = {"vocab_size": 13, "tie_word_embeddings": False, "initializer_range": 0.3}
GROUPED = {
    "hidden_size": 24, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"attention_bias": True},
    "gpt2": {
        "n_embd": 16, "n_inner": 12, "n_layer": 2, "n_head": 4, "n_positions": 32,
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5},
    },
}  # fmt: skip
"""Fields of each architecture's config."""

IDS = torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(1))


class InDouble(TorchFunctionMode):
    """Everything that is to be float32 is float64: norms and softmax of transformers ask for it."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        wide = [torch.float64 if a is torch.float32 else a for a in args]
        named = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*wide, **named)


def new_model(model_type: str, **fields: object) -> Any:  # noqa: ANN401 - a class of transformers
    """A random model whose biases and gains look trained."""
    config = AutoConfig.for_model(model_type, **{**SHARED, **SIZES[model_type], **fields})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return model.eval()


def save(model_type: str, path: Path, dtype: torch.dtype = torch.float64, **fields: object) -> Path:
    """A checkpoint as `save_pretrained` writes it; returns its folder."""
    new_model(model_type, **fields).to(dtype).save_pretrained(path)
    return path


def plan(path: Path, method: str, *to: str, **arguments: object) -> Plan:
    """A growth of a checkpoint."""
    return Plan(Request(path=path, method=method, to=[*to], arguments=arguments))


def load(path: Path, dtype: torch.dtype = torch.float64) -> Any:  # noqa: ANN401
    """A checkpoint as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:  # noqa: ANN401 - a class of transformers
    """Logits in float64."""
    with InDouble():
        found: Tensor = model(IDS).logits
    return found


def gradients(model: Any) -> dict[str, Tensor]:  # noqa: ANN401 - a class of transformers
    """Of a loss, in float64, by transformers' name of each parameter."""
    with InDouble():
        loss = model(IDS).logits.log_softmax(-1)[..., 3].mean()
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}
