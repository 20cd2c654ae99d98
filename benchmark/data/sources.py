"""Text on this machine, in chunks: in a file or an archive of one, and in installed packages.

The first bytes of a file say what it is, not its name.
"""

import bz2
import gzip
import importlib.metadata
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, cast

from benchmark.base.errors import ArchiveError, DataError
from benchmark.base.paths import display_path
from benchmark.data.download import CHUNK

_KINDS = {
    "zip": rb"PK\x03\x04",
    "gzip": rb"\x1f\x8b\x08",
    "bzip2": rb"BZh[1-9]1AY&SY",
    "xz": rb"\xfd7zXZ\0",
    "Zstandard": rb"\x28\xb5\x2f\xfd",
    "LZ4": rb"\x04\x22\x4d\x18",
    "7-Zip": rb"7z\xbc\xaf\x27\x1c",
    "RAR": rb"Rar!\x1a\x07",
    "tar": rb"(?s:.{257})ustar",
}
"""How archives begin."""

SEPARATOR = b"\0"
"""Stands between two files of a package; source text does not contain it."""

_HEAD = 512  # bytes that tell a kind
_NOT_TEXT = ("__MACOSX/", ".DS_Store")  # what macOS adds to a zip archive
_ALLOWED = "a corpus is one text, as it is or in zip, gzip, bzip2 or xz: unpack it (kind: file)"


def require_text(path: Path, key: str) -> None:
    """Refuse an archive where a text is read as it lies; `key` is the setting that names it.

    Raises:
        DataError: the file is an archive.
        OSError: the file cannot be read.
    """
    if kind := _kind_of(path):
        raise DataError(
            f"{display_path(path)} ({key}) is a {kind} archive, which would be trained on as it "
            "is; unpack it first"
        )


def unpacked(path: Path) -> Iterator[bytes]:
    """Content of a file, or of the one file in a zip, gzip, bzip2 or xz archive.

    Raises:
        ArchiveError: it is another archive, or one of several files or with a password.
        DataError: the archive is damaged.
        OSError: the file cannot be read.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(_open(path, stack))
            chunk = file.read(CHUNK)
            if inner := _kind(chunk):
                raise ArchiveError(f"{display_path(path)} holds a {inner} archive; {_ALLOWED}")
            while chunk:
                yield chunk
                chunk = file.read(CHUNK)
    except RuntimeError as error:  # zipfile's word for a password or a method it does not know
        raise ArchiveError(f"{display_path(path)}: {error}; {_ALLOWED}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        if getattr(error, "errno", None):  # the disk's fault, not the archive's
            raise
        raise DataError(f"{display_path(path)} is damaged: {error}") from error


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    match _kind_of(path):
        case "gzip":
            return cast(IO[bytes], gzip.open(path))
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case "zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if not _is_extra(name)]
            if len(names) != 1:
                found = f"a zip archive of {len(names)} files"
                raise ArchiveError(f"{display_path(path)} is {found}; {_ALLOWED}")
            return archive.open(names[0])
        case _:
            return path.open("rb")


def _is_extra(name: str) -> bool:
    return name.endswith(("/", _NOT_TEXT[1])) or name.startswith(_NOT_TEXT[0])


def _kind_of(path: Path) -> str | None:
    with path.open("rb") as file:
        return _kind(file.read(_HEAD))


def _kind(head: bytes) -> str | None:
    return next((kind for kind, start in _KINDS.items() if re.match(start, head)), None)


def packaged(
    packages: Mapping[str, str],
    include: Sequence[str],
    exclude: Sequence[str],
    held_out: Sequence[Sequence[str]] = (),
) -> Iterator[bytes]:
    """Files of installed distributions, found without importing them.

    Sorted by path; files that a group of `held_out` matches come after all others, group by group.
    The arguments are as in `CorpusConfig`.

    Raises:
        DataError: one is not installed, is another release, or none lists a file like these.
    """
    files = [file for name, release in packages.items() for file in _listed(name, release)]
    paths = {
        str(file): Path(str(file.locate()))
        for file in files
        if _matches(str(file), include) and not _matches(str(file), exclude)
    }
    if not paths:
        raise DataError(
            f"the installed {', '.join(packages)} list no file like {', '.join(include)}"
        )
    group = {path: _group(path, held_out) for path in paths}
    for index, path in enumerate(sorted(paths, key=lambda path: (group[path], path))):
        if index:
            yield SEPARATOR
        yield from unpacked(paths[path])


def _listed(name: str, release: str) -> Sequence[importlib.metadata.PackagePath]:
    """What the installed distribution of that release says it consists of."""
    wanted = f"the corpus needs {name} {release} (corpus.packages)"
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"{wanted}, which is not installed") from error
    if found.version != release:
        raise DataError(f"{wanted}, the installed release is {found.version}")
    return found.files or ()


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _group(path: str, held_out: Sequence[Sequence[str]]) -> int:
    """Number of the held-out group that a path is in, from 1; 0 for training text."""
    return next((i for i, group in enumerate(held_out, 1) if _matches(path, group)), 0)
