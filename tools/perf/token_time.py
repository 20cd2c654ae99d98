"""How fast attention to token-parameters is, beside dense layers of equal multiply-accumulates.

With n = 0.75 d tokens for each of query, key, value and output, and four times as many in place of
the MLP, a block has 16 n d = 12 d^2 multiply-accumulates per token, as an ordinary one has. Both
blocks are the benchmark's own, forward and backward, and share all but these layers: the norms, the
rotation and the attention between tokens of text. So the ordinary one includes the GELU of its MLP,
and the other one the norm and the GELU inside each of its maps. They take turns within a round.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tabulate import tabulate

from baselines.parts.token_parameters import TokenFormer
from benchmark.model.transformer import ModelConfig, Transformer

WIDTHS = (64, 128, 256, 512)
BATCH_SHAPE = (8, 128)
D_HEAD = 16
N_WARM = 3
N_TOKENS = 20 * 64
"""d_model times the number of passes in a turn."""


@dataclass(frozen=True)
class Pair:
    """Seconds of a pass through each block, round by round."""

    dense: list[float]
    tokens: list[float]

    @property
    def slowdown(self) -> float:
        """Median over the rounds of the token-parameters' time over the dense layers'."""
        pairs = zip(self.tokens, self.dense, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def pass_through(model: Transformer) -> Callable[[], None]:
    """Forward and backward through the model's first block."""
    block = model.blocks[0]
    x = torch.randn(*BATCH_SHAPE, model.config.d_model, requires_grad=True)
    gradient = torch.randn_like(x)

    def work() -> None:
        x.grad = None
        block.zero_grad()
        block(x, model.rotation).backward(gradient)

    return work


def models(d_model: int) -> tuple[Transformer, TokenFormer]:
    """An ordinary model and one of token-parameters, of equal cost."""
    sizes = ModelConfig(
        d_model=d_model, n_layer=1, n_head=d_model // D_HEAD, d_head=D_HEAD, d_ff=4 * d_model,
        seq_len=BATCH_SHAPE[1],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    tokens = TokenFormer(sizes.resized({"n_token": 3 * d_model // 4}), generator=generator)
    return Transformer(sizes, generator=generator), tokens


def measure(d_model: int, n_rounds: int) -> Pair:
    """Let both blocks take turns."""
    works = [pass_through(model) for model in models(d_model)]
    n_passes = max(1, N_TOKENS // d_model)
    pair = Pair([], [])
    for work in works:
        for _ in range(N_WARM):
            work()
    for _ in range(n_rounds):
        for work, seconds in zip(works, (pair.dense, pair.tokens), strict=True):
            started = time.perf_counter()
            for _ in range(n_passes):
                work()
            seconds.append((time.perf_counter() - started) / n_passes)
    return pair


def document(pairs: dict[int, Pair]) -> str:
    """Section of the page that `make perf` writes, for what was measured by width."""
    rows = [
        {
            "d_model": str(d_model),
            "dense, ms": f"{1e3 * statistics.median(pair.dense):.1f}",
            "token-parameters, ms": f"{1e3 * statistics.median(pair.tokens):.1f}",
            "time / dense": f"{pair.slowdown:.3f}",
        }
        for d_model, pair in pairs.items()
    ]
    n_rounds = min(len(pair.dense) for pair in pairs.values())
    batch, length = BATCH_SHAPE
    return f"""## Attention to token-parameters

One block forward and backward, {batch} x {length} tokens of text, n_token 0.75 d_model, beside an
ordinary block of equal multiply-accumulates, fp32, {torch.get_num_threads()} thread; medians of
{n_rounds} rounds, ratios are taken within a round.

{tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)}
"""
