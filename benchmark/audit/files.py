"""The files are what they were when published, and the report is what the records give."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from benchmark.audit.evidence import Evidence, Remark
from benchmark.records.folder import SUMS
from benchmark.records.folder import checksums as current
from benchmark.report.files import INTERACTIVE, generated, render

SHOWN = 40
"""Characters of a differing line that are quoted."""


def checksums(folder: Path) -> Iterator[Remark]:
    """Every file has the SHA-256 it was published with, and none is missing."""
    if not (folder / SUMS).is_file():
        yield Remark(f"{SUMS}: there is none: these results are not published", is_fault=False)
        return
    then, now = (folder / SUMS).read_text(errors="replace"), current(folder)
    expected, found = (
        {file: digest for digest, _, file in (line.partition("  ") for line in text.splitlines())}
        for text in (then, now)
    )
    for file in sorted(expected.keys() | found.keys()):
        if file not in found:
            yield Remark(f"{file}: missing")
        elif file not in expected:
            yield Remark(f"{file}: not published with the others")
        elif found[file] != expected[file]:
            yield Remark(f"{file}: changed since it was published")


def report(evidence: Evidence) -> Iterator[Remark]:
    """Page, tables and figures are what the records give, byte for byte."""
    rendered = render(evidence.folder)
    for name in sorted(generated(evidence.folder) - rendered.keys()):
        yield Remark(f"{name}: no report has it")
    for name, content in rendered.items():
        path = evidence.folder / name
        if not path.is_file():
            if name != INTERACTIVE:
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
