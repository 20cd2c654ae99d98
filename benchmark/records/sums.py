"""Checksums of a results folder: what its files were when they were published."""

import hashlib
from pathlib import Path

from benchmark.records.events import atomic_write_text
from benchmark.records.folder import RUNS, SHARED, SUITE
from benchmark.records.lock import FILE as LOCK

SUMS = "SHA256SUMS"
SEALED = (SUITE, LOCK, "corpus.json", SHARED, RUNS)
"""What the checksums cover: all that a report is made from."""


def seal(results_dir: Path) -> None:
    """Write the checksums, whose own SHA-256 vouches for every record."""
    atomic_write_text(results_dir / SUMS, checksums(results_dir))


def checksums(results_dir: Path) -> str:
    """A line with SHA-256 and name for each file of `SEALED`, as `sha256sum -c` reads it."""
    paths = [path for pattern in SEALED for path in sorted(results_dir.glob(pattern))]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(results_dir)}\n"
        for path in paths
    )
