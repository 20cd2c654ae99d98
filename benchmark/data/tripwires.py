"""How much of the held-out text stands word for word in the training text: exact, never sampled.

Held-out text that a model has read in training is scored from memory. Windows of 2 W bytes are
named by the pair of names of their halves, from words of 8 bytes up, so equal names are equal
bytes, without hashing. The training text is read in pieces, and positions whose window stands in no
held-out text are dropped at once: memory follows the held-out text and what is common.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.data.corpora import Corpus, CorpusConfig, load
from benchmark.records.events import atomic_write_text

SCHEMA = 1
WORD = 8
SHORTEST = 32
"""Bytes; shorter common text is not looked for: any two texts of one language have it."""

HALVES = (8, 16)
"""Lengths that are doubled on the way from `WORD` to `SHORTEST`."""

WINDOWS = (32, 64, 128)
"""Lengths of the windows counted, in bytes: markup repeats in tens, copied prose in hundreds."""

PIECE = 1 << 22
"""Bytes of training text read at a time."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a held-out text has in common with the training text."""

    n_bytes: int
    """Of the held-out text."""

    windows_in_train: dict[int, int]
    """Windows at every offset that stand in the training text, by their length in bytes."""

    shares_in_train: dict[int, float]
    """The same as fractions of all windows of that length; 0 if the text is shorter."""

    longest: int
    """Bytes of the longest common substring; 0 if it is shorter than `SHORTEST`."""

    offset: int | None
    """Where it begins in the held-out text."""

    train_offset: int | None
    """Where it begins in the training text."""


def tripwires(config: CorpusConfig, cache: Path) -> dict[str, Any]:
    """The content of corpus.json: what the held-out splits share with training, and their limit.

    Args:
        config: the corpus, which is prepared and checked if need be.
        cache: folder of the prepared corpora; what was found is kept there, beside the text.
    """
    corpus = load(config, cache)
    rate = config.markov.entropy_rate_bits() if config.markov is not None else None
    return {
        "schema": SCHEMA,
        "corpus": corpus.name,
        "sha256": corpus.sha256,
        "train_bytes": len(corpus.train),
        "entropy_rate_bits": rate,
        **_overlaps(corpus, cache / corpus.name),
    }


def _overlaps(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Overlap of each held-out split, as JSON has it."""
    splits = {"val": corpus.val, "test": corpus.test}
    sizes = "-".join(str(len(text)) for text in (corpus.train, *splits.values()))
    path = folder / f"{corpus.sha256}-{sizes}.overlap{SCHEMA}.json"
    if not path.is_file():
        train = corpus.train.numpy()
        found = {name: asdict(overlap(train, text.numpy())) for name, text in splits.items()}
        atomic_write_text(path, json.dumps(found))
    stored: dict[str, Any] = json.loads(path.read_bytes())
    return stored


def overlap(train: Bytes, held_out: Bytes) -> Overlap:
    """Compare two texts, uint8 (N,) each."""
    levels = {level.length: level for level in _levels(train, held_out)}
    windows = {n: len(levels[n].held_out.at) if n in levels else 0 for n in WINDOWS}
    best = _longest(levels[max(levels)]) if levels else None
    return Overlap(
        n_bytes=len(held_out),
        windows_in_train=windows,
        shares_in_train={n: k / max(len(held_out) - n + 1, 1) for n, k in windows.items()},
        longest=best.length if best else 0,
        offset=int(best.held_out.at[0]) if best else None,
        train_offset=best.first_in_train() if best else None,
    )


@dataclass(frozen=True)
class _Windows:
    """Windows of one text: where they begin, ascending, and their names, int64 (n,) each."""

    at: Ints
    names: Ints

    def joined(self, step: int, n_names: int) -> "_Windows":
        """Windows longer by `step`, at most twice as long, named by the pair of their parts."""
        after = np.searchsorted(self.at, self.at + step)
        after[after == len(self.at)] = 0
        is_there = self.at[after] == self.at + step
        pairs = self.names[is_there] * n_names + self.names[after[is_there]]
        return _Windows(self.at[is_there], pairs)

    def chosen(self, keep: npt.NDArray[np.bool_]) -> "_Windows":
        """Some of them."""
        return _Windows(self.at[keep], self.names[keep])


@dataclass(frozen=True)
class _Level:
    """The windows of one length that stand in both texts."""

    length: int
    n_names: int
    held_out: _Windows
    train: _Windows

    @classmethod
    def of(cls, length: int, held_out: _Windows, train: _Windows) -> "_Level":
        """Drop what stands in one text only, and name the rest 0, 1, ..."""
        known, names = np.unique(held_out.names, return_inverse=True)
        found = _look_up(known, train.names)
        train = _Windows(train.at, found).chosen(found >= 0)
        is_common = np.zeros(len(known), dtype=bool)
        is_common[train.names] = True
        held_out = _Windows(held_out.at, names).chosen(is_common[names])
        return cls(length, len(known), held_out, train)

    def longer(self, step: int) -> "_Level":
        """Common windows that are `step` bytes longer, at most twice as long."""
        texts = (text.joined(step, self.n_names) for text in (self.held_out, self.train))
        return _Level.of(self.length + step, *texts)

    def first_in_train(self) -> int:
        """Where the first window of the held-out text stands first in the training text."""
        return int(self.train.at[self.train.names == self.held_out.names[0]][0])

    def __bool__(self) -> bool:
        return len(self.held_out.at) > 0


def _levels(train: Bytes, held_out: Bytes) -> Iterator[_Level]:
    """Common windows of `SHORTEST` bytes, and of twice as many until there are none."""
    level = _first_level(train, held_out)
    while level:
        yield level
        level = level.longer(level.length)


def _longest(level: _Level) -> _Level:
    """The longest common windows, which are less than twice as long as those given."""
    step = level.length // 2
    while step:
        level = level.longer(step) or level
        step //= 2
    return level


def _first_level(train: Bytes, held_out: Bytes) -> _Level:
    """Common windows of `SHORTEST` bytes."""
    known, names = _dictionary(held_out)
    pieces = [
        _candidates(train[start : start + PIECE + SHORTEST - 1], start, known)
        for start in range(0, len(train), PIECE)
    ]
    everywhere = _Windows(np.arange(len(names)), names)
    at, found = (np.concatenate([getattr(p, key) for p in pieces]) for key in ("at", "names"))
    return _Level.of(SHORTEST, everywhere, _Windows(at, found))


def _dictionary(text: Bytes) -> tuple[list[Ints], Ints]:
    """What names are made of at each length below `SHORTEST`, and the names of all windows."""
    known: list[Ints] = []
    keys = _words(text)
    for half in HALVES:
        unique, names = np.unique(keys, return_inverse=True)
        known.append(unique)
        keys = _joined(names, half, len(unique))
    return known, keys


def _candidates(piece: Bytes, start: int, known: list[Ints]) -> _Windows:
    """Windows of a piece of text both halves of which are known."""
    keys = _words(piece)
    for half, unique in zip(HALVES, known, strict=True):
        keys = _joined(_look_up(unique, keys), half, len(unique))
    at = np.flatnonzero(keys >= 0)
    return _Windows(at + start, keys[at])


def _words(text: Bytes) -> Ints:
    """The `WORD` bytes from every offset on, as one number; negative ones too."""
    if len(text) < WORD:
        return np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(text, WORD)
    return np.ascontiguousarray(windows).view(np.int64).ravel()


def _joined(names: Ints, half: int, n_names: int) -> Ints:
    """Names of all windows of twice the length; -1 where a half has none."""
    first, second = names[: max(len(names) - half, 0)], names[half:]
    return np.where((first < 0) | (second < 0), -1, first * n_names + second)


def _look_up(known: Ints, keys: Ints) -> Ints:
    """Index of each key in `known`, ascending; -1 if it is not there."""
    if not len(known):
        return np.full(len(keys), -1)
    index = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[index] == keys, index, -1)
