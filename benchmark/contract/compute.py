"""The ledger's formulas give what torch counts.

torch's counter sees every product of matrices, under the attention kernel that is made of them; it
counts attention without the causal mask, so formulas are compared unmasked. At one token per
sequence there is nothing to mask, and a learned map must declare exactly what it spent.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from benchmark.contract.subject import BATCH_SIZE, Subject, Verdict, describe, first_moments, loss
from benchmark.cost import forward_flops_per_token, training_flops_per_token
from benchmark.data.stream import ByteStream
from benchmark.model import Transformer


def model_flops(subject: Subject) -> Verdict:
    """Cost by config alone equals the counted cost, forward and in training, small and grown."""
    for small, large in subject.corners:
        model = subject.small(small)
        for counted_model in (model, subject.grow(model, large).model):
            if mismatch := _mismatch(counted_model):
                return Verdict(False, f"{mismatch}: {describe(small, large)}")
    return Verdict(True, "forward and training, small and grown")


def _mismatch(model: Transformer) -> str | None:
    shell = model.shell(model.config)
    n_tokens = BATCH_SIZE * model.config.seq_len
    with _counted() as counter:
        nats = loss(model.eval())
        forward = counter.get_total_flops()
        nats.backward()
    formulas = {
        "forward": (forward, forward_flops_per_token(shell, causal=False) * n_tokens),
        "training": (
            counter.get_total_flops(),
            training_flops_per_token(shell, causal=False) * n_tokens,
        ),
    }
    for what, (counted, formula) in formulas.items():
        if counted != formula:
            return f"{what} takes {counted} FLOPs, the formula says {formula:.0f}"
    return None


def growth_flops(subject: Subject) -> Verdict:
    """A map that is learned declares the FLOPs that learning it took; other maps are free."""
    small, large = subject.pairs[0]
    small, large = (config.resized({"seq_len": 1}) for config in (small, large))
    model = subject.small(small)
    moments, reader = first_moments(model), _Reader(subject.text(large))
    with _counted() as counter:
        declared = subject.grow(model, large, moments=moments, batches=reader).flops
    counted = counter.get_total_flops()
    if not declared and reader.n_read:
        return Verdict(False, f"growth reads {reader.n_read} batches and declares no FLOPs", 0.0)
    if declared and not math.isclose(declared, counted):
        return Verdict(False, f"growth takes {counted} FLOPs and declares {declared:.0f}", declared)
    return Verdict(True, f"{declared:.0f} declared, {reader.n_read} batches read", declared)


class _Reader(Iterator[Tensor]):
    """Batches of a stream, counted as they are read."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self.n_read = stream, 0

    @override
    def __next__(self) -> Tensor:
        self.n_read += 1
        return self.stream[self.n_read - 1]


@contextmanager
def _counted() -> Iterator[FlopCounterMode]:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
