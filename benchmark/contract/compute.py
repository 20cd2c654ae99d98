"""The ledger's formulas give what torch counts, and growth pays for every byte it reads.

torch's counter sees every product of matrices, under the attention kernel that is made of them; it
counts attention without the causal mask, so formulas are compared unmasked. At one token per
sequence there is nothing to mask, and a learned map must declare exactly what it spent.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Self

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from benchmark.contract.subject import BATCH_SIZE, Subject, Verdict, describe, first_moments, loss
from benchmark.data.stream import ByteStream
from benchmark.model.cost import forward_flops_per_token, training_flops_per_token
from benchmark.model.transformer import Transformer
from benchmark.stage.batches import GrowthBatches

N_STEPS = 3


def model_flops(subject: Subject) -> Verdict:
    """Cost by config alone equals the counted cost, forward and in training, small and grown.

    The grown model trains as the method does: what it freezes has no gradient, and no charge.
    """
    for small, large in subject.corners:
        model, frozen = subject.small(small), subject.baseline.frozen(small, large)
        grown = subject.grow(model, large).model
        for counted_model, resting in ((model, ()), (grown, frozen)):
            if mismatch := _mismatch(counted_model, resting):
                return Verdict(False, f"{mismatch}: {describe(small, large)}")
    return Verdict(True, "forward and training, small and grown")


def _mismatch(model: Transformer, frozen: Collection[str]) -> str | None:
    shell = model.shell(model.config)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    n_tokens = BATCH_SIZE * model.config.seq_len
    with flop_counter() as counter:
        nats = loss(model.train())
        forward = counter.get_total_flops()
        nats.backward()
    formulas = {
        "forward": (forward, forward_flops_per_token(shell, causal=False) * n_tokens),
        "training": (
            counter.get_total_flops(),
            training_flops_per_token(shell, frozen, causal=False) * n_tokens,
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
    moments, reader = first_moments(model), GrowthBatches(subject.text(large))
    with flop_counter() as counter:
        declared = subject.grow(model, large, moments=moments, batches=reader).flops
    counted = counter.get_total_flops()
    if not declared and reader.n_windows:
        return Verdict(False, f"growth reads {reader.n_windows} windows, declares no FLOPs", 0.0)
    if declared and not math.isclose(declared, counted):
        return Verdict(False, f"growth takes {counted} FLOPs and declares {declared:.0f}", declared)
    return Verdict(True, f"{declared:.0f} declared, {reader.n_windows} windows read", declared)


def growth_bytes(subject: Subject) -> Verdict:
    """Every byte that growing reads comes through the iterator that counts it, and none is later.

    One instance grows and trains, as in a run.
    """
    small, large = subject.pairs[0]
    method, stream = subject.build(), _Watched(subject.text(large))
    batches, model = GrowthBatches(stream), subject.small(small)
    grown = subject.grow(model, large, operators=method.operators, batches=batches)
    batches.close()
    charged = batches.n_windows
    frozen = subject.baseline.frozen(small, large)
    subject.begin(grown, range(N_STEPS), frozen=frozen, method=method)
    subject.fit(method, grown, range(N_STEPS))
    if stream.n_read != charged:
        return Verdict(False, f"{stream.n_read} windows are read and {charged} charged")
    return Verdict(True, f"{charged} windows read and charged")


class _Watched(ByteStream):
    """A stream that knows how many windows were taken from it, by whatever way."""

    def __init__(self, stream: ByteStream) -> None:
        vars(self).update(vars(stream))
        self.n_read = 0

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @override
    def rows_at(self, window: int, count: int) -> Tensor:
        self.n_read += count
        return super().rows_at(window, count)


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Count the products of matrices in the block, attention's without the causal mask."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
