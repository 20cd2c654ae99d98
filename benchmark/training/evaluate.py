"""The one evaluator: held-out nats of every token, for any model of any method.

Protocol P0: consecutive windows of `seq_len` tokens; each token but the first of the split is
predicted once, from those of its window before it; the first is charged the logarithm of how many
there are. Sums are in float64 over the whole split, never means of means (formula d1 of the
protocol), and divided by the bytes that the tokens stand for.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data.stream import evaluation_windows
from benchmark.data.tokens import BYTES, Vocabulary
from benchmark.model.kernels import N_CHUNKS, linear
from benchmark.model.transformer import Transformer
from benchmark.training.shortage import first_that_fits, halvings

NATS_PER_BIT = math.log(2)


@dataclass(frozen=True)
class Score:
    """Code length of a split."""

    nats: Tensor
    """float64 (n_tokens,): -log p of each token given the tokens before it."""

    byte_counts: Tensor
    """int64 (n_tokens,): bytes that each token stands for."""

    batch_size: int = 1
    """Windows scored at once: what was asked for, or less where memory was short."""

    @property
    def n_bytes(self) -> int:
        """Length of the split in bytes."""
        return int(self.byte_counts.sum())

    @property
    def bits_per_byte(self) -> float:
        """Mean code length; 8 for a model that knows nothing."""
        return float(self.nats.sum()) / self.n_bytes / NATS_PER_BIT

    def blocks(self, size: int) -> tuple[list[int], list[float]]:
        """Bytes and nats of consecutive blocks, each of the tokens that begin in `size` bytes.

        Returns:
            Bytes and nats of every block: `size` bytes, but for tokens that reach into the next
            block, and for the last block.
        """
        starts = self.byte_counts.cumsum(0) - self.byte_counts
        lengths = (starts // size).unique_consecutive(return_counts=True)[1].tolist()
        n_bytes = [int(part.sum()) for part in self.byte_counts.split(lengths)]
        return n_bytes, [float(part.sum()) for part in self.nats.split(lengths)]


@torch.inference_mode()
def score(
    model: Transformer, split: Tensor, batch_size: int, vocabulary: Vocabulary = BYTES
) -> Score:
    """Nats of every token of a split.

    Args:
        model: whose evaluation mode is left as it was.
        split: token ids (n_tokens,) of any integer type.
        batch_size: windows at once, which changes only the speed; where memory runs out it is
            halved, down to one window.
        vocabulary: what tokens stand for.

    Raises:
        MemoryError: there is none for a single window.
    """
    was_training = model.training
    model.eval()
    nats, n_windows = first_that_fits(halvings(batch_size), lambda n: _nats(model, split, n))
    model.train(was_training)
    return Score(nats, vocabulary.byte_counts(split), n_windows)


def _nats(model: Transformer, split: Tensor, batch_size: int) -> tuple[Tensor, int]:
    first = math.log(model.config.vocab_size)
    pieces = [torch.full((1,), first, dtype=torch.float64, device="cpu")]
    for window in evaluation_windows(split, model.config.seq_len, batch_size):
        ids = window.to(model.device)
        targets = ids[:, 1:].flatten()
        for logits in _logits(model, ids[:, :-1]):
            labels, targets = targets.tensor_split([len(logits)])
            nats = F.cross_entropy(logits, labels, reduction="none")
            pieces.append(nats.double().cpu())
    return torch.cat(pieces), batch_size


def _logits(model: Transformer, ids: Tensor) -> Iterator[Tensor]:
    """Rows of logits for ids (B, T), in order: those of a large vocabulary in parts."""
    if (head := model.large_head) is None:
        yield model(ids).flatten(0, 1)
        return
    for rows in model.features(ids).flatten(0, 1).chunk(N_CHUNKS):
        yield linear(rows, head)
