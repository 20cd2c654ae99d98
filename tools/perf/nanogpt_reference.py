"""The yardstick for speed: nanoGPT's layers, written anew, and the plainest loop that trains them.

The architecture is GPT-2's (Radford et al. 2019) as nanoGPT (Karpathy, 2022) configures it for
training: pre-norm blocks, bias-free, one fused query-key-value map, GELU, learned positions, the
head tied to the token table, PyTorch's fused causal attention. Dropout, zero there, is left out.

Shape suffixes: B batch, T time, D d_model, H n_head, K d_head, V vocab.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmark.model.transformer import ModelConfig


class LayerNorm(nn.Module):
    """Layer norm with a gain and no bias."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, None, 1e-5)


class Attention(nn.Module):
    """Causal multi-head self-attention with one map for query, key and value."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.n_head = sizes.n_head
        width = sizes.n_head * sizes.d_head
        self.c_attn = nn.Linear(sizes.d_model, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, sizes.d_model, bias=False)

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = (
            part.view(B, T, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x_BTD).chunk(3, dim=2)
        )
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        y_BTD: Tensor = self.c_proj(y_BHTK.transpose(1, 2).contiguous().view(B, T, -1))
        return y_BTD


class Block(nn.Module):
    """Attention, then an MLP, each behind its norm."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(sizes.d_model), LayerNorm(sizes.d_model)
        self.attn = Attention(sizes)
        self.c_fc = nn.Linear(sizes.d_model, sizes.d_ff, bias=False)
        self.c_proj = nn.Linear(sizes.d_ff, sizes.d_model, bias=False)

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD))
        y_BTD: Tensor = x_BTD + self.c_proj(F.gelu(self.c_fc(self.ln_2(x_BTD))))
        return y_BTD


class ReferenceGPT(nn.Module):
    """Token ids (B, T) to next-token logits (B, T, V); of a config only the sizes count."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(sizes.vocab_size, sizes.d_model)
        self.wpe = nn.Embedding(sizes.seq_len, sizes.d_model)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.n_layer))
        self.ln_f = LayerNorm(sizes.d_model)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # noqa: PLR2004
                is_residual_write = name.endswith("c_proj.weight")
                scale = math.sqrt(2 * sizes.n_layer) if is_residual_write else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        position_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTD = self.wte(ids_BT) + self.wpe(position_T)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.ln_f(x_BTD), self.wte.weight)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Fused AdamW that decays matrices only."""
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim > 1]
    gains = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Tensor]) -> None:
    """One optimizer step on each batch of token ids (B, T + 1)."""
    for batch in batches:
        logits_BTV = model(batch[:, :-1])
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
