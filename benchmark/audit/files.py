"""The files are what they were when they were written, and the report is what the records give."""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from benchmark.audit.evidence import Evidence, Remark
from benchmark.records import SUMS
from benchmark.report import render

SHOWN = 40
"""Characters of a differing line that are quoted."""


def checksums(folder: Path) -> Iterator[Remark]:
    """Every file of every run has the SHA-256 it was published with, and none is missing."""
    for run in sorted(path for path in (folder / "runs").glob("[!.]*") if path.is_dir()):
        sums, name = run / SUMS, f"runs/{run.name}"
        if not sums.is_file():
            yield Remark(f"{name}/{SUMS}: there is none")
            continue
        lines = (line.partition("  ") for line in sums.read_text(errors="replace").splitlines())
        expected = {file: digest for digest, _, file in lines}
        found = {path.name: path for path in run.iterdir() if path.name != SUMS}
        for file in sorted(expected.keys() | found.keys()):
            if file not in found:
                yield Remark(f"{name}/{file}: missing")
            elif file not in expected:
                yield Remark(f"{name}/{file}: not published with the run")
            elif hashlib.sha256(found[file].read_bytes()).hexdigest() != expected[file]:
                yield Remark(f"{name}/{file}: changed since it was published")


def report(evidence: Evidence) -> Iterator[Remark]:
    """Page, tables and figures are what the records give, byte for byte."""
    for name, content in render(evidence.folder).items():
        path = evidence.folder / name
        if not path.is_file():
            yield Remark(f"{name}: missing")
        elif (found := path.read_bytes()) != content:
            is_text = name.endswith((".md", ".csv", ".html", ".svg"))
            yield Remark(_first_difference(name, found, content) if is_text else f"{name}: changed")


def _first_difference(name: str, found: bytes, right: bytes) -> str:
    """Where a text first says something else."""
    pairs = zip_longest(*(text.decode(errors="replace").splitlines() for text in (found, right)))
    for line, (said, gives) in enumerate(pairs, start=1):
        if said != gives:
            start = next(
                i for i, (a, b) in enumerate(zip_longest(said or "", gives or "")) if a != b
            )
            start = max(0, start - SHOWN // 2)
            quoted = [repr((text or "")[start : start + SHOWN]) for text in (said, gives)]
            return f"{name}, line {line}: says {quoted[0]}, the records give {quoted[1]}"
    return f"{name}: its line ends are not those that the records give"
