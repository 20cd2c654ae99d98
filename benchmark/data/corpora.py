"""Corpora: a manifest in, checked and memory-mapped bytes or tokens out; text is never decoded.

The text of a corpus is prepared once, as `<cache>/<name>/<sha256>.bin`, and hashed by every process
that loads it (about a second per gigabyte): a damaged or foreign file never reaches a run.

Tokens are little-endian numbers one after the other, as nanoGPT's prepare.py writes them; a header
as llm.c writes it (256 int32: what the file is, its version, how many tokens follow) is known by
its first number, which is no token of any vocabulary, and checked.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from benchmark.base.errors import ArchiveError, ChangedError, ConfigError, DataError
from benchmark.base.paths import display_path
from benchmark.data.download import fetch
from benchmark.data.sources import packaged, require_text, unpacked
from benchmark.data.synthetic import MarkovSource
from benchmark.data.tokens import BYTES, Vocabulary, read_vocabulary

_NEEDS = {
    "package": ("packages", "include", "size", "sha256"),
    "download": ("url", "size", "sha256"),
    "file": ("path",),
    "synthetic": ("markov", "size"),
    "tokens": ("path", "dtype", "vocabulary", "tokenizer"),
}
UNSET = "???"
"""What a manifest to be copied has in place of a path."""

_MIN_SPLIT = 2  # a byte of context and a byte to predict
_LLMC = {20240520: "uint16", 20240801: "uint32"}  # what the first number of a header says
_LLMC_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training text comes first, then validation, then test, up to the end."""

    val_start: int | float
    """First byte, or token, of validation: an offset, or below 1 a fraction of the size."""

    test_start: int | float
    """First one of test, likewise."""

    def offsets(self, size: int) -> tuple[int, int]:
        """Where validation and test begin in a text of `size` bytes or tokens.

        Raises:
            DataError: a split would be too short to score one prediction.
        """
        if not all(math.isfinite(s) for s in (self.val_start, self.test_start)):
            raise DataError("corpus.splits: val_start and test_start must be finite")
        val, test = (int(s * size if s < 1 else s) for s in (self.val_start, self.test_start))
        lengths = val, test - val, size - test
        if min(lengths) < _MIN_SPLIT:
            raise DataError(
                f"corpus.splits (val_start={self.val_start}, test_start={self.test_start}) cuts "
                f"{size} bytes, or tokens, into train, val, test of {lengths}; each needs "
                f"{_MIN_SPLIT}"
            )
        return val, test


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The manifest of a corpus: what it is, whose it is, and how to know it when it comes."""

    name: str
    kind: str
    """package (files of installed distributions), download, file, synthetic, or tokens (a file of
    token numbers)."""

    source: str
    """Where the text comes from, in words."""

    licence: str
    splits: Splits

    size: int = 0
    """Bytes of the whole text or file; 0 (any size) is for `file` and `tokens` only."""

    sha256: str = ""
    """Of the same; may be empty (not checked) for `file`, `tokens` and `synthetic` only."""

    packages: dict[str, str] = field(default_factory=dict)
    """Installed distributions and the release that each must have."""

    include: list[str] = field(default_factory=list)
    """Patterns of paths in the packages, `*` crossing folders; files go in sorted order."""

    exclude: list[str] = field(default_factory=list)
    """Patterns of paths to leave out."""

    held_out: dict[str, list[str]] = field(default_factory=dict)
    """Patterns of paths whose files make the splits `val` and `test`, after all others."""

    url: str = ""
    """A text, http:// or https://: as it is, or in a zip, gzip, bzip2 or xz archive of one file."""

    path: str = ""
    """A local file, relative to the working folder; read where it lies."""

    markov: MarkovSource | None = None

    dtype: Literal["", "uint16", "uint32"] = ""
    """Of tokens in the file."""

    vocabulary: int = 0
    """How many tokens there are: their numbers are below it."""

    tokenizer: str = ""
    """A local file that tells the bytes of tokens (`benchmark.data.tokens`)."""

    special: list[int] = field(default_factory=list)
    """Tokens that stand for no text and that `tokenizer` lacks, such as the end of a document."""

    def __post_init__(self) -> None:
        if self.kind not in _NEEDS:
            raise ConfigError(f"corpus.kind must be one of {', '.join(_NEEDS)}; got {self.kind!r}")
        missing = [f"corpus.{key}" for key in _NEEDS[self.kind] if not getattr(self, key)]
        if missing:
            raise ConfigError(f"a corpus of kind {self.kind} needs {', '.join(missing)}")
        if self.kind == "download" and not re.match(r"https?://[^/?#]", self.url):
            raise ConfigError(f"corpus.url must begin with http:// or https://, got {self.url!r}")


@dataclass(frozen=True, eq=False)
class Corpus:
    """The bytes of a corpus, uint8 (N,) each, or its tokens, uint16 or uint32.

    Each split is a private memory map of its own: nothing that holds training text leads to others.
    """

    name: str
    sha256: str
    """Of the text; where it is tokens, of the file's SHA-256 and of the bytes of all tokens."""

    path: Path
    signature: tuple[int, ...]
    """What the system said of the file before it was hashed."""

    vocabulary: Vocabulary
    """What a token stands for."""

    train: Tensor = field(repr=False)
    val: Tensor = field(repr=False)
    test: Tensor = field(repr=False)

    def lengths(self) -> dict[str, int]:
        """Bytes of each split, by name; and `train_tokens`, where tokens are not bytes.

        Raises:
            DataError: there is a token of which nothing tells the bytes.
        """
        splits = {"train": self.train, "val": self.val, "test": self.test}
        lengths = {name: self.vocabulary.n_bytes(split) for name, split in splits.items()}
        return lengths | ({} if self.vocabulary is BYTES else {"train_tokens": len(self.train)})

    def largest(self) -> tuple[int, str]:
        """The largest byte that occurs, or the largest token that may, and which of them it is."""
        if self.vocabulary is not BYTES:
            return self.vocabulary.size - 1, "token"
        return max(int(split.max()) for split in (self.train, self.val, self.test)), "byte"

    def check(self) -> None:
        """Check that the text is still that which was hashed; it is read from the file all along.

        Raises:
            ChangedError: the file has been replaced, written to or deleted.
        """
        try:
            is_same = _signature(self.path) == self.signature
        except OSError:
            is_same = False
        if not is_same:
            raise ChangedError(
                f"corpus {self.name}: {display_path(self.path)} has changed while it was in use; "
                "run again"
            )


def load(config: CorpusConfig, cache: Path) -> Corpus:
    """Prepare the corpus if this is its first use, check it, and map it into memory.

    Args:
        config: its manifest.
        cache: folder of the prepared texts; many processes may share it.

    Raises:
        DataError: the corpus is missing, unreachable, damaged, too short, or another release.
    """
    try:
        if config.kind in {"file", "tokens"}:
            if config.path == UNSET:
                raise ConfigError(
                    f"corpus {config.name}: which file? set corpus.path in its manifest, or "
                    "workload.corpus.path=FILE on the command line"
                )
            path, whose = Path(config.path).expanduser(), "corpus.path"
            require_text(path, whose)
        else:
            path, whose = _prepared(config, cache / config.name), "delete it to prepare it again"
        signature = _signature(path)
        digest = _checked(path, config, f"{display_path(path)} ({whose})")
    except OSError as error:
        raise DataError(f"cannot read or prepare corpus {config.name}: {error}") from error
    vocabulary, dtype, start = BYTES, np.dtype(np.uint8), 0
    if config.kind == "tokens":
        vocabulary, dtype = _vocabulary(config), np.dtype(config.dtype)
        start = _header(path, config)
        digest = hashlib.sha256(
            f"{digest} {sorted(vocabulary.tokens.items())}".encode()
        ).hexdigest()
    size = (signature[0] - start) // dtype.itemsize
    val, test = config.splits.offsets(size)
    places = [start + at * dtype.itemsize for at in (0, val, test, size)]
    parts = [  # a copy of what is written to
        torch.from_numpy(np.memmap(path, dtype, "c", begin, (end - begin) // dtype.itemsize))
        for begin, end in pairwise(places)
    ]
    return Corpus(config.name, digest, path, signature, vocabulary, *parts)


def _vocabulary(config: CorpusConfig) -> Vocabulary:
    """What the tokenizer's file and the manifest say together."""
    tokens = read_vocabulary(Path(config.tokenizer).expanduser())
    if (largest := max(tokens, default=0)) >= config.vocabulary:
        raise DataError(
            f"corpus.vocabulary is {config.vocabulary}, but {config.tokenizer} (corpus.tokenizer) "
            f"has a token {largest}"
        )
    return Vocabulary(dict.fromkeys(config.special, b"") | tokens, config.vocabulary)


def _header(path: Path, config: CorpusConfig) -> int:
    """Bytes before the first token.

    Raises:
        DataError: the file has another length than it says, or tokens of another type.
    """
    where, n_bytes = f"{display_path(path)} (corpus.path)", path.stat().st_size
    words = np.fromfile(path, "<i4", 3)
    has_header = len(words) == 3 and int(words[0]) in _LLMC  # noqa: PLR2004
    dtype = _LLMC[int(words[0])] if has_header else config.dtype
    if dtype != config.dtype:
        raise DataError(f"{where}: its header says {dtype}, corpus.dtype is {config.dtype}")
    n_tokens, rest = divmod(n_bytes - has_header * _LLMC_BYTES, np.dtype(dtype).itemsize)
    if rest:
        raise DataError(f"{where}: {n_bytes} bytes are no whole number of {dtype} tokens")
    if dtype == "uint16" and not np.fromfile(path, "<u2", 1024)[1::2].any():
        raise DataError(f"{where}: every other token is 0; is corpus.dtype uint32?")
    if has_header and n_tokens != words[2]:
        raise DataError(f"{where}: its header says {words[2]} tokens, the file has {n_tokens}")
    return has_header * _LLMC_BYTES


def _signature(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@cache
def _sha256(path: Path, _: tuple[int, ...]) -> str:
    """Of a file of this signature: hashed once per process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, config: CorpusConfig, what: str) -> str:
    """SHA-256 of a file that agrees with the manifest; `what` names the file in the error."""
    signature = _signature(path)
    size, digest = signature[0], _sha256(path.resolve(), signature)
    for key, found in {"size": size, "sha256": digest}.items():
        expected = getattr(config, key)
        if expected and found != expected:
            raise DataError(
                f"corpus {config.name}: {what} has {key} {found}, corpus.{key} is {expected}"
            )
    return digest


def _prepared(config: CorpusConfig, folder: Path) -> Path:
    """The prepared text; whoever gets the lock first writes it."""
    target = folder / f"{config.sha256}.bin"
    if config.sha256 and target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        return target if config.sha256 and target.exists() else _write(config, folder)


def _write(config: CorpusConfig, folder: Path) -> Path:
    """Write, check, then place the text; a download that is damaged or another one is deleted."""
    archive = folder / (config.url.partition("?")[0].split("/")[-1] or "download")
    text = folder / "prepared.tmp"
    if config.kind == "download":
        fetch(config.url, archive)
    try:
        with text.open("wb") as file:
            file.writelines(_text(config, archive))
        digest = _checked(text, config, f"the text from {config.url or ', '.join(config.packages)}")
        return text.replace(folder / f"{digest}.bin")
    except DataError as error:
        if config.kind != "download" or isinstance(error, ArchiveError):
            raise
        archive.unlink()
        raise DataError(
            f"{error}; deleted {display_path(archive)}, run again to fetch it"
        ) from error
    finally:
        text.unlink(missing_ok=True)


def _text(config: CorpusConfig, archive: Path) -> Iterator[bytes]:
    if config.kind == "package":
        return packaged(
            config.packages,
            config.include,
            config.exclude,
            [config.held_out.get(split, []) for split in ("val", "test")],
        )
    if config.kind == "download":
        return unpacked(archive)
    assert config.markov is not None
    return iter([config.markov.sample(config.size)])
