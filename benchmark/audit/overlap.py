"""Independent check of the tripwires: one suffix array over all splits, compared in rank order.

Windows are known by 64-bit fingerprints instead of exact names: two that differ have the same one
once in 2 ** 64 pairs.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOWS = (32, 64, 128)
"""Lengths of the windows that corpus.json counts, in bytes."""

PIECE = 1 << 22
"""Bytes of training text read at a time."""

FILTER = 1 << 24
"""Buckets that say of most fingerprints at once that nobody has them."""

_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
"""Odd numbers without structure."""

_NOWHERE = {"offset": None, "train_offset": None}

Bytes = npt.NDArray[np.uint8]
Prints = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def shared_text(train: Bytes, held_out: Bytes, longest: int) -> dict[str, Any]:
    """What corpus.json should say of two texts, uint8 (N,) each, by dotted key.

    Args:
        train: the training text.
        held_out: a split.
        longest: claimed length of the longest common passage, which is checked, not searched.
    """
    at = {0: np.arange(len(held_out))}
    for before, length in pairwise((0, *WINDOWS)):
        at[length] = _common(train, held_out, length, at[before])
    found: dict[str, Any] = {f"windows_in_train.{n}": len(at[n]) for n in WINDOWS}
    if longest < WINDOWS[0]:  # shorter ones are not looked for
        is_none = not len(at[WINDOWS[0]])
        return found | {"longest": 0 if is_none else f"{WINDOWS[0]} or more"} | _NOWHERE
    near = at[max(length for length in at if length <= longest)]
    first = _common(train, held_out, longest, near)
    if not len(first):
        return found | {"longest": f"less than {longest}"}
    if len(_common(train, held_out, longest + 1, first)):
        return found | {"longest": f"more than {longest}"}
    passage = held_out[first[0] : first[0] + longest].tobytes()
    place = {"offset": int(first[0]), "train_offset": _find(train, passage)}
    return found | {"longest": longest} | place


def _common(train: Bytes, held_out: Bytes, length: int, at: Ints) -> Ints:
    """Those of the offsets at which a window of held-out text stands in the training text."""
    at = at[at <= len(held_out) - length]
    if not len(at):
        return at
    known, which = np.unique(_prints(held_out, length)[at], return_inverse=True)
    is_known = np.zeros(FILTER, dtype=bool)
    is_known[known % np.uint64(FILTER)] = True
    is_seen = np.zeros(len(known), dtype=bool)
    for start in range(0, len(train) - length + 1, PIECE):
        prints = _prints(train[start : start + PIECE + length - 1], length)
        prints = prints[is_known[prints % np.uint64(FILTER)]]
        index = np.minimum(np.searchsorted(known, prints), len(known) - 1)
        is_seen[index[known[index] == prints]] = True
    return at[is_seen[which]]


def _prints(text: Bytes, length: int) -> Prints:
    """Fingerprints of the windows at every offset, uint64 (N - length + 1,)."""
    found, width = text.astype(np.uint64), 1
    while 2 * width <= length:
        found, width = _mixed(found[:-width], found[width:]), 2 * width
    step = length - width
    return _mixed(found[: len(found) - step], found[step:])


def _mixed(left: Prints, right: Prints) -> Prints:
    """A fingerprint of two, in this order."""
    a, b, c = _MIXERS
    mixed: Prints = left * a + (right ^ (right >> 31)) * b
    return (mixed ^ (mixed >> 29)) * c


def _find(train: Bytes, passage: bytes) -> int:
    """Where a passage that stands in the training text does so first."""
    for start in range(0, len(train), PIECE):
        piece = train[start : start + PIECE + len(passage) - 1].tobytes()
        if (found := piece.find(passage)) >= 0:
            return start + found
    return -1
