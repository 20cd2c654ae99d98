"""How much of the held-out text stands word for word in the training text.

Held-out text that a model has read in training is scored from memory. Every window of `WINDOW`
bytes of the held-out text is looked for at every offset of the training text, none is sampled (of
tokens, in the text that they stand for);
markup repeats in tens of bytes, copied prose in hundreds. Windows are compared by 64-bit
fingerprints: two that differ have the same one about once in 2 ** 64 pairs.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from benchmark.data.corpora import Corpus, CorpusConfig, load
from benchmark.data.tokens import Bytes
from benchmark.records.events import atomic_write_text

SCHEMA = 2
WINDOW = 128
PIECE = 1 << 18
"""Tokens of training text read at a time: what is made of them stays in a processor's cache."""

Prints = npt.NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


def tripwires(config: CorpusConfig, cache: Path) -> dict[str, Any]:
    """The content of corpus.json: what the held-out splits share with training, and their limit.

    Args:
        config: the corpus, which is prepared and checked if need be.
        cache: folder of the prepared corpora; what was found is kept there, beside the text.
    """
    corpus = load(config, cache)
    return {
        "schema": SCHEMA,
        "corpus": corpus.name,
        "sha256": corpus.sha256,
        "train_bytes": corpus.vocabulary.n_bytes(corpus.train),
        "entropy_rate_bits": config.markov and config.markov.entropy_rate_bits(),
        "window": WINDOW,
        **_overlaps(corpus, cache / corpus.name),
    }


def _overlaps(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """What each held-out split shares with training, from the cache if it was found before."""
    sizes = [str(len(text)) for text in (corpus.train, corpus.val, corpus.test)]
    path = folder / f"{corpus.sha256}-{'-'.join(sizes)}.overlap{SCHEMA}.json"
    decode = corpus.vocabulary.decode
    if not path.is_file():
        splits = {"val": decode(corpus.val), "test": decode(corpus.test)}
        found = overlaps(map(decode, corpus.train.split(PIECE)), splits)
        atomic_write_text(path, json.dumps(found))
    return cast(dict[str, Any], json.loads(path.read_bytes()))


def overlaps(train: Iterable[Bytes], splits: Mapping[str, Bytes]) -> dict[str, dict[str, float]]:
    """Windows of held-out texts, at every offset, that stand in the training text.

    Args:
        train: pieces of it, uint8 (N,) each, in order.
        splits: held-out texts by name, uint8 (M,) each.

    Returns:
        For each of them `n_bytes`, `windows_in_train`, and `share_in_train`: the same as a fraction
        of all its windows, 0 if it is shorter than one.
    """
    prints = {name: fingerprints(text) for name, text in splits.items()}
    common = _common(train, np.unique(np.concatenate(list(prints.values()))))
    counts = {name: int(np.isin(wanted, common).sum()) for name, wanted in prints.items()}
    return {
        name: {
            "n_bytes": len(splits[name]),
            "windows_in_train": n,
            "share_in_train": n / max(len(prints[name]), 1),
        }
        for name, n in counts.items()
    }


def _common(train: Iterable[Bytes], known: Prints) -> Prints:
    """Those of the known fingerprints, ascending, that some window of the training text has."""
    n_bits = len(known).bit_length() + 4
    shift = np.uint64(64 - n_bits)
    may_be = np.zeros(1 << n_bits, dtype=bool)  # by first bits: nine windows in ten need no search
    may_be[known >> shift] = True
    is_found = np.zeros(len(known), dtype=bool)
    before = np.empty(0, dtype=np.uint8)
    for piece in train:
        text = np.concatenate([before, piece])
        before = text[-(WINDOW - 1) :]  # where windows begin that end in the next piece
        prints = fingerprints(text)
        prints = prints[may_be[prints >> shift]]
        at = np.searchsorted(known, prints)
        is_found[at[known.take(at, mode="clip") == prints]] = True
    return known[is_found]


def fingerprints(text: Bytes) -> Prints:
    """Of every window of `WINDOW` bytes, in order: a polynomial in them, modulo 2 ** 64."""
    if len(text) < WINDOW:
        return np.empty(0, dtype=np.uint64)
    powers = np.multiply.accumulate(np.full(len(text), _BASE, np.uint64))
    sums = np.concatenate(([np.uint64(0)], np.cumsum(powers * text)))
    windows = sums[WINDOW:] - sums[:-WINDOW]  # each times the power where it begins
    return windows * np.multiply.accumulate(np.full(len(windows), _INVERSE, np.uint64))
