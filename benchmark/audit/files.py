"""The files are what they were when they were written, and the report is what the records give."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from benchmark.audit.evidence import Evidence, Remark
from benchmark.audit.shipped import differences
from benchmark.records.card import card
from benchmark.records.events import SEALED, SUMS, card_text, folder_checksums
from benchmark.records.events import checksums as run_checksums
from benchmark.report import render
from benchmark.report.files import INTERACTIVE, generated, is_same

SHOWN = 40
"""Characters of a differing line that are quoted."""


def checksums(folder: Path) -> Iterator[Remark]:
    """Every file of every run has the SHA-256 it was published with, and none is missing."""
    if (folder / SUMS).is_file():
        yield from _changed(folder, "", folder_checksums(folder))
    else:
        text = f"{SUMS}: there is none for {', '.join(SEALED[:-1])}: an older suite's, or removed"
        yield Remark(text, is_fault=False)
    for run in sorted(path for path in (folder / "runs").glob("[!.]*") if path.is_dir()):
        name = f"runs/{run.name}"
        if (run / SUMS).is_file():
            yield from _changed(run, f"{name}/", run_checksums(run))
        else:
            yield Remark(f"{name}/{SUMS}: there is none")


def _changed(folder: Path, prefix: str, now: str) -> Iterator[Remark]:
    """What differs between the checksums that a folder has and those of its files as they are."""
    then = (folder / SUMS).read_text(errors="replace")
    expected, found = (
        {file: digest for digest, _, file in (line.partition("  ") for line in text.splitlines())}
        for text in (then, now)
    )
    for file in sorted(expected.keys() | found.keys()):
        if file not in found:
            yield Remark(f"{prefix}{file}: missing")
        elif file not in expected:
            yield Remark(f"{prefix}{file}: not published with the {'run' if prefix else 'others'}")
        elif found[file] != expected[file]:
            yield Remark(f"{prefix}{file}: changed since it was published")


def cards(evidence: Evidence) -> Iterator[Remark]:
    """Every reporting card says what the records of its run give."""
    older: set[str] = set()
    for run in evidence.ran:
        name = f"runs/{run.run_id}/card.json"
        path = evidence.folder / name
        if not path.is_file():
            yield Remark(f"{name}: missing")
            continue
        found, right = json.loads(path.read_bytes()), json.loads(card_text(card(run)))
        for key, gives, says in differences(right, found):
            yield Remark(f"{name}: {key} is {says}, the records give {gives}")
        older |= {key for key, value, _ in differences(found, right) if value is None}
    if older:
        yield Remark(f"card.json: older ones, without {', '.join(sorted(older))}", is_fault=False)


def report(evidence: Evidence) -> Iterator[Remark]:
    """Page, tables and figures are what the records give, byte for byte."""
    rendered = render(evidence.folder)
    for name in sorted(generated(evidence.folder) - rendered.keys()):
        yield Remark(f"{name}: no report has it")
    for name, content in rendered.items():
        path = evidence.folder / name
        if not path.is_file():
            yield Remark(f"{name}: missing", is_fault=name != INTERACTIVE)
        elif not is_same(path, content):
            found = path.read_bytes()
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
