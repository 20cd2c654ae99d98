"""Corpora: a manifest in, checked and memory-mapped bytes out; text is never decoded.

The text of a corpus is prepared once, as `<cache>/<name>/<sha256>.bin`, and hashed by every process
that loads it (about a second per gigabyte): a damaged or foreign file never reaches a run.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from benchmark.base.errors import ArchiveError, ChangedError, ConfigError, DataError
from benchmark.base.paths import display_path
from benchmark.data.archive import require_text, unpacked
from benchmark.data.download import fetch
from benchmark.data.sources import packaged
from benchmark.data.synthetic import MarkovSource

_NEEDS = {
    "package": ("packages", "include", "size", "sha256"),
    "download": ("url", "size", "sha256"),
    "file": ("path",),
    "synthetic": ("markov", "size"),
}
_MIN_SPLIT = 2  # a byte of context and a byte to predict


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training text comes first, then validation, then test, up to the end."""

    val_start: int | float
    """First byte of validation: an offset, or below 1 a fraction of the size."""

    test_start: int | float
    """First byte of test, likewise."""

    def offsets(self, size: int) -> tuple[int, int]:
        """First bytes of validation and test in a text of `size` bytes.

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
                f"{size} bytes into train, val, test of {lengths}; each needs {_MIN_SPLIT}"
            )
        return val, test


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The manifest of a corpus: what it is, whose it is, and how to know it when it comes."""

    name: str
    kind: str
    """package (files of installed distributions), download, file or synthetic."""

    source: str
    """Where the text comes from, in words."""

    licence: str
    splits: Splits

    size: int = 0
    """Bytes of the whole text; 0 (any size) is for `file` only."""

    sha256: str = ""
    """Of the whole text; may be empty (not checked) for `file` and `synthetic` only."""

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
    """The bytes of a corpus, uint8 (N,) each.

    Each split is a private memory map of its own: nothing that holds training text leads to others.
    """

    name: str
    sha256: str
    path: Path
    signature: tuple[int, ...]
    """What the system said of the file before it was hashed."""

    train: Tensor = field(repr=False)
    val: Tensor = field(repr=False)
    test: Tensor = field(repr=False)

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
        if config.kind == "file":
            path, whose = Path(config.path).expanduser(), "corpus.path"
            require_text(path, whose)
        else:
            path, whose = _prepared(config, cache / config.name), "delete it to prepare it again"
        signature = _signature(path)
        digest = _checked(path, config, f"{display_path(path)} ({whose})")
    except OSError as error:
        raise DataError(f"cannot read or prepare corpus {config.name}: {error}") from error
    size = path.stat().st_size
    val, test = config.splits.offsets(size)
    parts = [_mapped(path, *ends) for ends in pairwise((0, val, test, size))]
    return Corpus(config.name, digest, path, signature, *parts)


def _signature(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@cache
def _sha256(path: Path, _: tuple[int, ...]) -> str:
    """Of a file of this signature: hashed once per process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path, start: int, end: int) -> Tensor:
    """Bytes of a file from `start` up to `end`; writing to them leaves the file alone."""
    part = np.memmap(path, dtype=np.uint8, mode="c", offset=start, shape=(end - start,))
    return torch.from_numpy(part)


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
