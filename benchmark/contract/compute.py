"""The ledger's formulas give what torch counts, in training and in growing.

torch's counter sees every product of matrices, under the attention kernel that is made of them; it
counts attention without the causal mask, so formulas are compared unmasked. At one token per
sequence there is nothing to mask, and a learned map must declare exactly what it spent.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.contract.subject import BATCH_SIZE, Subject, Verdict, first_moments, loss
from benchmark.model.cost import forward_flops_per_token, training_flops_per_token
from benchmark.model.transformer import Transformer
from benchmark.stage.batches import GrowthBatches


def model_flops(subject: Subject) -> Verdict:
    """Cost by config alone equals the counted cost, forward and in training, small and grown.

    The grown model trains as the method does: what it freezes has no gradient, and no charge.
    """
    for growth in subject.corners():
        small = subject.small(growth.before)
        for model, frozen in ((small, ()), (growth.model, subject.frozen(growth))):
            if mismatch := _mismatch(model, frozen):
                return Verdict(False, f"{mismatch}: {growth.label}")
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
    small, large = (config.resized({"seq_len": 1}) for config in subject.pairs[0])
    model = subject.small(small)
    moments, reader = first_moments(model), GrowthBatches(subject.text(large))
    with flop_counter() as counter:
        declared = subject.grow(model, large, moments=moments, batches=reader).flops
    counted = counter.get_total_flops()
    if not declared and reader.n_windows:
        return Verdict(False, f"growth reads {reader.n_windows} windows, declares no FLOPs")
    if declared and not math.isclose(declared, counted):
        return Verdict(False, f"growth takes {counted} FLOPs and declares {declared:.0f}")
    return Verdict(True, f"{declared:.0f} declared, {reader.n_windows} windows read")


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Count the products of matrices in the block, attention's without the causal mask."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
