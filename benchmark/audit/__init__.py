"""An audit of a results folder: its numbers followed back to what they come from.

It is made for honest accidents and edited numbers: files that changed after they were published,
runs that went missing or were not planned, settings that one run has for itself, compute that does
not add up, scores that their own nats contradict, a page that its records do not give, a crippled
control. Scores come from the nats of every block, the page from the records; what a step costs is
taken as stated. Somebody who forges all records consistently passes, and whether training took
place cannot be seen (ADR 0023); causality, normalisation and cost are for a method's contract.

    evidence.py  what is looked at, and how findings are said
    files.py     checksums; the report against the records
    plan.py      what was planned, and what of it has ended
    ledger.py    parameters; compute from steps; budget; epochs
    scores.py    bpb from nats; same text
    band.py      scratch is not crippled
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from benchmark.audit import band, files, ledger, plan, scores
from benchmark.audit.evidence import Evidence, Remark
from benchmark.base.errors import RecordError
from benchmark.base.paths import display_path
from benchmark.records.folder import SUITE, SUMS

T = TypeVar("T")

CHECKS: dict[str, Callable[[Evidence], Iterator[Remark]]] = {
    "plan": plan.plan,
    "seeds": plan.seeds,
    "parameters": ledger.parameters,
    "charges": ledger.charges,
    "totals": ledger.totals,
    "budget": ledger.budget,
    "epochs": ledger.epochs,
    "bits per byte": scores.bits_per_byte,
    "same text": scores.same_text,
    "reference band": band.reference,
    "report": files.report,
}

Status = Literal["passed", "note", "failed"]


@dataclass(frozen=True)
class Finding:
    """What became of one check."""

    name: str
    status: Status
    detail: str
    """The first thing found and how many more there are; what was checked if there is nothing."""


def audit(folder: Path, without: Collection[str] = ()) -> list[Finding]:
    """Check a results folder; damaged records end the audit, as there is nothing to recompute.

    Findings come in the order of `CHECKS`, but for those `without`; the audit fails if one has.

    Raises:
        RecordError: the folder holds no results.
    """
    if not any((folder / name).is_file() for name in (SUITE, SUMS)):
        raise RecordError(f"{display_path(folder)}: nothing to check: no {SUITE} is there")
    findings = [_finding("checksums", files.checksums, folder)]
    try:
        evidence = Evidence.of(folder)
    except RecordError as error:
        return [*findings, Finding("records", "failed", _line(str(error)))]
    if not evidence.ran:
        return [*findings, Finding("records", "failed", "nothing to check: no run has records")]
    findings.append(Finding("records", "passed", f"{len(evidence.ran)} runs can be read"))
    checks = {name: check for name, check in CHECKS.items() if name not in without}
    return findings + [_finding(name, check, evidence) for name, check in checks.items()]


def _finding(name: str, check: Callable[[T], Iterator[Remark]], evidence: T) -> Finding:
    try:
        found = list(check(evidence))
    except RecordError as error:
        found = [Remark(str(error))]
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        found = [Remark(f"a record is not as it should be: {type(error).__name__}: {error}")]
    faults = [remark for remark in found if remark.is_fault]
    status: Status = "failed" if faults else "note" if found else "passed"
    said = faults or found
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    return Finding(name, status, _line(f"{said[0].text}{more}" if said else check.__doc__ or ""))


def _line(text: str) -> str:
    return " ".join(text.split())
