"""Every score again from the nats behind it, over the same text for everyone."""

import math
from collections.abc import Iterator

from benchmark.audit.evidence import Evidence, Remark, log_of, numbered

SAME = 1e-9
"""Relative difference below which two sums of the same numbers are equal."""


def bits_per_byte(evidence: Evidence) -> Iterator[Remark]:
    """Every bpb is nats over bytes over ln 2, in each evaluation and each final score."""
    for run in evidence.ran:
        for place, event in numbered(run, "evaluation", "final"):
            is_final = event["kind"] == "final"
            nats = math.fsum(event["block_nats"]) if is_final else event["nats"]
            n_bytes = sum(event["block_bytes"]) if is_final else event["n_bytes"]
            bpb = nats / n_bytes / math.log(2)
            same = math.isclose(bpb, event["bpb"], rel_tol=SAME)
            if not same and not (math.isnan(bpb) and math.isnan(event["bpb"])):
                yield Remark(f"{place}: bpb is {event['bpb']:.6f}, its nats give {bpb:.6f}")


def same_text(evidence: Evidence) -> Iterator[Remark]:
    """Every finished run scored the whole of both splits in the same blocks; no trial saw test."""
    lengths = evidence.lock.current["corpus"] if evidence.lock else {}
    reference: dict[str, list[int]] = {}
    for run in evidence.done:
        splits = [event["split"] for event in run.of("final")]
        wanted = ["val"] if run.role == "tuning" else ["test", "val"]
        if sorted(splits) != wanted:
            yield Remark(f"{log_of(run)}: has final scores of {splits}, not of {wanted}")
        for place, event in numbered(run, "final"):
            split, blocks = event["split"], event["block_bytes"]
            known = reference.setdefault(split, blocks)
            if len(blocks) != len(event["block_nats"]) or blocks != known:
                yield Remark(f"{place}: blocks of {split} are not those of the other runs")
            elif sum(blocks) != lengths.get(split, sum(blocks)):
                yield Remark(f"{place}: {sum(blocks)} bytes of {split}, it has {lengths[split]}")
