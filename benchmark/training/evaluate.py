"""The one evaluator: held-out nats of every byte, for any model of any method.

Protocol P0: consecutive windows of `seq_len` bytes; each byte but the first of the split is
predicted once, from the bytes of its window before it; the first is charged log 256. Sums are in
float64 over the whole split, never means of means (formula d1 of the protocol).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data.stream import evaluation_windows
from benchmark.model.transformer import Transformer
from benchmark.training.shortage import first_that_fits, halvings

NATS_PER_BIT = math.log(2)


@dataclass(frozen=True)
class Score:
    """Code length of a split."""

    nats: Tensor
    """float64 (n_bytes,): -log p of each byte given the bytes before it."""

    batch_size: int = 1
    """Windows scored at once: what was asked for, or less where memory was short."""

    @property
    def n_bytes(self) -> int:
        """Length of the split."""
        return len(self.nats)

    @property
    def bits_per_byte(self) -> float:
        """Mean code length; 8 for a model that knows nothing."""
        return float(self.nats.sum()) / self.n_bytes / NATS_PER_BIT

    def blocks(self, size: int) -> tuple[list[int], list[float]]:
        """Bytes and nats of consecutive blocks of `size` bytes, the last one shorter."""
        parts = self.nats.split(size)
        return [len(part) for part in parts], [float(part.sum()) for part in parts]


@torch.inference_mode()
def score(model: Transformer, split: Tensor, batch_size: int) -> Score:
    """Nats of every byte of `split`, uint8 (n_bytes,); the batch size changes only the speed.

    Where memory runs out it is halved, down to one window.

    Raises:
        MemoryError: there is none for a single window.
    """
    was_training = model.training
    model.eval()
    result = first_that_fits(halvings(batch_size), lambda n: Score(_nats(model, split, n), n))
    model.train(was_training)
    return result


def _nats(model: Transformer, split: Tensor, batch_size: int) -> Tensor:
    first = math.log(model.config.vocab_size)
    pieces = [torch.full((1,), first, dtype=torch.float64, device="cpu")]
    for window in evaluation_windows(split, model.config.seq_len, batch_size):
        ids = window.to(model.device)
        logits = model(ids[:, :-1]).flatten(0, 1)
        nats = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        pieces.append(nats.double().cpu())
    return torch.cat(pieces)
