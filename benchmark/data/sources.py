"""Text that is already on this machine, in installed packages, read in chunks."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmark.base.errors import DataError
from benchmark.data.archive import unpacked

SEPARATOR = b"\0"
"""Stands between two files of a package; source text does not contain it."""


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
