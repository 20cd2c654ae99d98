"""Every random stream of a run, derived from one root seed and a name.

Streams name their purpose, never the method, so that repetition r of every method draws the same
initialisation and reads the same bytes in the same order (paired seeds).
"""

import hashlib

import torch


def stream_seed(seed: int, *name: str | int) -> int:
    """Seed in [0, 2**63) of the stream `name`; streams with different names are independent."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *name: str | int) -> torch.Generator:
    """CPU generator of the stream `name`."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))
