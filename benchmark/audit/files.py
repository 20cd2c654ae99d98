"""The files are what they were when published, and the report is what the records give."""

from collections.abc import Iterator
from pathlib import Path

from benchmark.audit.evidence import Evidence, Remark
from benchmark.records.folder import SUMS
from benchmark.records.folder import checksums as current
from benchmark.report.files import check


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
    for name in check(evidence.folder):
        yield Remark(f"{name}: missing, or not what the records give (growbench report)")
