"""Text that is already on this machine: in installed packages and in archives, read in chunks."""

import bz2
import importlib.metadata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

from benchmark.base.errors import DataError
from benchmark.base.paths import display_path
from benchmark.data.download import CHUNK

SEPARATOR = b"\0"
"""Stands between two files of a package; source text does not contain it."""


def packaged(
    distribution: str, release: str, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[bytes]:
    """Files of an installed distribution, in sorted order, found without importing it.

    Args:
        distribution: its name, as one installs it.
        release: the version it must have.
        include: patterns of paths, `*` crossing folders.
        exclude: patterns of paths to leave out.

    Raises:
        DataError: it is not installed, is another release, or lists no such file.
    """
    wanted = f"the corpus needs {distribution} {release} (corpus.release)"
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"{wanted}, which is not installed") from error
    if found.version != release:
        raise DataError(f"{wanted}, the installed release is {found.version}")
    paths = sorted(
        path
        for path in map(str, found.files or ())
        if any(fnmatchcase(path, pattern) for pattern in include)
        and not any(fnmatchcase(path, pattern) for pattern in exclude)
    )
    if not paths:
        raise DataError(f"{wanted}, whose installed copy lists no file like {', '.join(include)}")
    for index, path in enumerate(paths):
        if index:
            yield SEPARATOR
        yield from unpacked(Path(str(found.locate_file(path))))


def unpacked(path: Path) -> Iterator[bytes]:
    """Content of a file, or of the one file in a .zip or .bz2 archive.

    Raises:
        DataError: the archive is damaged or holds several files.
        OSError: the file cannot be read.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(_open(path, stack))
            yield from iter(partial(file.read, CHUNK), b"")
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if getattr(error, "errno", None):  # the disk's fault, not the archive's
            raise
        raise DataError(f"{display_path(path)} is damaged: {error}") from error


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    if path.suffix == ".bz2":
        return bz2.open(path)
    if path.suffix != ".zip":
        return path.open("rb")
    archive = stack.enter_context(zipfile.ZipFile(path))
    if len(archive.namelist()) != 1:
        raise ValueError(f"it holds {len(archive.namelist())} files instead of one")
    return archive.open(archive.namelist()[0])
