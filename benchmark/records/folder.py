"""A results folder: a plan, one compressed log per run, and once what many runs have in common.

    suite.yaml           the suite's name, version and purpose, and the runs in display order
    plan.lock            what was planned, and when (lock.py)
    corpus.json          what held-out text has in common with training text
    shared.jsonl         settings, methods and environments that the runs refer to, one a line
    runs/ID.jsonl.gz     the records of a run that has ended; to be read with zcat
    SHA256SUMS           of all these, once they are published

What is shared is named by a digest of its content: files of several plans can lie side by side.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from benchmark.base.errors import RecordError
from benchmark.records.events import (
    FINISHED,
    Event,
    EventLog,
    atomic_write,
    atomic_write_text,
    decode,
    encode,
    read_bytes,
    read_events,
)

SUITE = "suite.yaml"
SHARED = "shared.jsonl"
RUNS = "runs/[!.]*.jsonl.gz"
SUMS = "SHA256SUMS"
SEALED = (SUITE, "plan.lock", "corpus.json", SHARED, RUNS)
"""What the checksums cover: all that a report is made from."""

STAGE = ("stage", "stage_id")
"""What an entry of a run's provenance says of its stage, beside what that was made with."""

OWN = ("seed", "method")
"""Parts of a configuration that are not the same in all runs."""

Shared = dict[str, Any]
"""What runs have in common, by its digest."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One planned (method, seed) and what is known of it; no events if it never ran."""

    run_id: str
    method: str
    role: str
    seed: int
    events: tuple[Event, ...] = ()
    config: Mapping[str, Any]
    provenance: Sequence[Mapping[str, Any]]
    """What each stage was made with, in their order; more than one entry for a stage if several
    processes that differ had a part in it. A run that failed may lack those of its last stages."""

    @classmethod
    def from_events(
        cls,
        events: Sequence[Event],
        config: Mapping[str, Any],
        provenance: Sequence[Mapping[str, Any]],
    ) -> Self:
        """The record of a run whose first event says which it is."""
        first = events[0]
        return cls(
            **{key: first[key] for key in ("run_id", "method", "role", "seed")},
            events=tuple(events),
            config=config,
            provenance=provenance,
        )

    @property
    def status(self) -> str:
        """One of `FINISHED`, unfinished and missing."""
        if not self.events:
            return "missing"
        last = self.events[-1]
        return str(last["status"]) if last["kind"] == "end" else "unfinished"

    @property
    def train_bytes(self) -> int:
        """Training text of all the corpora that the run reads; 0 if it never ran."""
        first = self.events[0] if self.events else {}
        return int(first.get("train_bytes", 0)) + int(first.get("own_train_bytes", 0))

    @property
    def train_tokens(self) -> int:
        """The same in tokens, each of which is a byte unless the corpus says otherwise."""
        return int(self.events[0].get("train_tokens", self.train_bytes)) if self.events else 0

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """The provenance without the names of the stages."""
        return [_made_with(entry) for entry in self.provenance]

    def of(self, kind: str) -> list[Event]:
        """The records of one kind, oldest first."""
        return list(self._by_kind.get(kind, ()))

    @cached_property
    def _by_kind(self) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {}
        for event in self.events:
            found.setdefault(event["kind"], []).append(event)
        return found


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A results folder: its plan, one record per planned run, and runs outside the plan."""

    name: str
    version: str
    purpose: str
    watermark: str | None
    runs: tuple[RunRecord, ...]
    unplanned: tuple[str, ...]
    published: frozenset[str] = frozenset()
    """Ids of planned runs that were not trained here: they were published before."""


def run_file(results_dir: Path, run_id: str) -> Path:
    """Where the records of a run are."""
    return results_dir / "runs" / f"{run_id}.jsonl.gz"


def load_runs(results_dir: Path, ids: Iterable[str]) -> list[RunRecord]:
    """The records of some runs; see `load_run`."""
    shared = _load_shared(results_dir)
    return [load_run(results_dir, run_id, shared) for run_id in ids]


def load_suite(results_dir: Path) -> Suite:
    """Everything under `results/<suite>`: planned runs in display order, whatever became of them.

    Raises:
        RecordError: a record is damaged, or contradicts the plan in `suite.yaml`.
    """
    plan = _load_plan(results_dir / SUITE)
    shared = _load_shared(results_dir)
    runs = tuple(_planned_run(results_dir, plan, planned, shared) for planned in plan["runs"])
    known = {run.run_id for run in runs}
    if len(known) < len(runs) or len({(run.method, run.seed) for run in runs}) < len(runs):
        raise RecordError(f"{results_dir / SUITE}: plans the same run twice")
    return Suite(
        name=plan["name"],
        version=str(plan["version"]),
        purpose=plan["purpose"],
        watermark=plan["watermark"],
        runs=runs,
        unplanned=tuple(sorted(run_ids(results_dir) - known)),
        published=frozenset(plan.get("published", ())),
    )


def run_ids(results_dir: Path) -> set[str]:
    """Ids of all runs that have records here, planned or not."""
    return {path.name.removesuffix(".jsonl.gz") for path in results_dir.glob(RUNS)}


def write_run(
    results_dir: Path,
    events: Sequence[Event],
    config: Mapping[str, Any],
    provenance: Iterable[Mapping[str, Any]],
) -> None:
    """Write the records of a run: readers see the old ones or all the new ones, never a part.

    The first event is the run's, which says its id. One process at a time may write to a folder.
    """
    known = _load_shared(results_dir)

    def share(kind: str, content: object) -> str:
        """Write what is not there yet; its digest."""
        if (digest := _digest(content)) not in known:
            log.append(kind, id=digest, content=content)
            known[digest] = content
        return digest

    with EventLog(results_dir / SHARED) as log:
        refers = {
            "settings": share("settings", {k: v for k, v in config.items() if k not in OWN}),
            "method": share("method", config["method"]),
            "stages": [
                {"environment": share("environment", _made_with(entry))}
                | {key: entry[key] for key in STAGE if key in entry}
                for entry in provenance
            ],
        }
        log.sync()
    first, *others = events
    lines = encode([first | {"shared": refers}, *others])
    atomic_write(run_file(results_dir, first["run_id"]), gzip.compress(lines, 9, mtime=0))


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


def grouped(provenance: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of stages that were made with the same, told once, with the list of the stages."""
    groups: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for entry in provenance:
        if (made_with := _made_with(entry)) not in known:
            known.append(made_with)
            groups.append({"stages": []} | made_with)
        stages = groups[known.index(made_with)]["stages"]
        stages.append({key: entry[key] for key in STAGE if key in entry})
    return groups


def load_run(results_dir: Path, run_id: str, shared: Shared | None = None) -> RunRecord:
    """The record of one run; `shared.jsonl` is read unless it was.

    Raises:
        RecordError: a file is missing or damaged, or holds another run.
    """
    path = run_file(results_dir, run_id)
    shared = _load_shared(results_dir) if shared is None else shared
    try:
        events = decode(gzip.decompress(read_bytes(path)), path)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path}: damaged: {error}") from error
    if not events or events[0]["kind"] != "run" or events[0]["run_id"] != run_id:
        raise RecordError(f"{path}: the first record must be the run record of {run_id}")
    if events[-1]["kind"] == "end" and events[-1]["status"] not in FINISHED:
        raise RecordError(f"{path}: end.status is {events[-1]['status']!r}, allowed: {FINISHED}")
    try:
        refers = events[0].pop("shared")
        settings, method = shared[refers["settings"]], shared[refers["method"]]
        stages = [dict(stage) for stage in refers["stages"]]
        provenance = [stage | shared[stage.pop("environment")] for stage in stages]
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path}: refers to {error}, which is not in {SHARED}") from error
    config = settings | {"seed": events[0]["seed"], "method": method}
    return RunRecord.from_events(events, config, provenance)


def _load_shared(results_dir: Path) -> Shared:
    """What the runs of a folder have in common; nothing if none has ended."""
    path = results_dir / SHARED
    return {part["id"]: part["content"] for part in read_events(path)} if path.is_file() else {}


_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads what `yaml.safe_dump` writes; to other readers the run id 2045391731138e07 is a number."""


def _load_plan(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_bytes(path), Loader=_YamlLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a mapping, got {type(content).__name__}")
    absent = {"name", "version", "purpose", "watermark", "runs"} - content.keys()
    if absent:
        raise RecordError(f"{path}: no {', '.join(sorted(absent))}")
    return content


def _planned_run(results_dir: Path, plan: Event, planned: Event, shared: Shared) -> RunRecord:
    path = run_file(results_dir, planned["run_id"])
    if not path.is_file():
        return RunRecord(**planned, config={}, provenance=[])
    run = load_run(results_dir, planned["run_id"], shared)
    found = run.events[0] | {"suite_version": str(run.events[0]["suite_version"])}
    expected = planned | {"suite": plan["name"], "suite_version": str(plan["version"])}
    for key, value in expected.items():
        if found[key] != value:
            raise RecordError(f"{path}: {key} is {found[key]!r}, the plan says {value!r}")
    return run


def _made_with(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in STAGE}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
