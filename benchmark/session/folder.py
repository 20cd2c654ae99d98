"""Folders that a command works in: they can be written, and no other command works there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmark.base.errors import RecordError
from benchmark.base.paths import display_path


def make_folder(folder: Path, key: str) -> None:
    """Make sure of a folder that can be written; `key` is the setting that names it.

    Raises:
        RecordError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise RecordError(
            f"{display_path(folder)} ({key}): cannot be written: {error.strerror}; "
            f"set {key} to a folder that can"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a results folder alone.

    Raises:
        RecordError: somebody else holds it, or it cannot be written.
    """
    make_folder(folder, "run.results")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RecordError(
            f"{display_path(folder)}: another growbench command is working here; wait for it, "
            "or set run.results to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
