"""Noise that tells copies apart and changes nothing that reads them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from benchmark.growth.axis_map import ENTRIES_AT_ONCE, AxisMap, take

BYTE_STD = math.sqrt((256**2 - 1) / 12)


def _random_bytes(like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers from -127.5 to 127.5 in steps of one; random bits are what growing waits for most."""
    n_words = -(-like.numel() // 8)
    words = torch.empty(n_words, dtype=torch.int64, device="cpu")
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int8)[: like.numel()].view(like.shape).to(like).add_(0.5)


def add_split_noise(
    weight: Tensor, repeated: Mapping[int, AxisMap], ratio: float, generator: torch.Generator
) -> Tensor:
    """Noise that tells copies apart and cancels in every sum over them, added in place.

    Along each repeated dimension a reader of equal copies is unchanged; the noise's root mean
    square is `ratio` times the weight's. Of two copies one gains the random number that the other
    loses; each of more gets the difference of its own and the next one's, one without copies none.

    Args:
        weight: contiguous, unflattened; changed and returned.
        repeated: contracted dimensions along which coordinates are repeated.
        ratio: size of the noise.
        generator: source of randomness.

    Returns:
        `weight` itself.
    """
    for dim, axis_map in repeated.items():
        scale = ratio * float(weight.detach().norm()) / math.sqrt(weight.numel()) / BYTE_STD
        rows = weight.view(-1, *weight.shape[dim:])
        n_rows, half = max(1, ENTRIES_AT_ONCE * len(rows) // weight.numel()), rows.shape[1] // 2
        for start in range(0, len(rows), n_rows):
            part = rows.narrow(0, start, min(n_rows, len(rows) - start))
            if axis_map.is_doubled:
                gains, loses = part.narrow(1, 0, half), part.narrow(1, half, half)
                number = _random_bytes(gains, generator)
                gains.add_(number, alpha=scale)
                loses.sub_(number, alpha=scale)
            else:
                number = _random_bytes(part, generator)
                number -= take(number, 1, axis_map.next_copy)
                part.add_(number, alpha=scale / math.sqrt(2))
    return weight
