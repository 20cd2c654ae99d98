"""What a run leaves behind: append-only events, its resolved configuration and its provenance.

`events.jsonl` holds one JSON object per line, handed to the system before `append` returns, so a
kill loses at most the line being written; `sync` guards against a power cut. JSON has no NaN and no
infinity: they are written as the strings "nan", "inf" and "-inf" and come back as floats.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self

import yaml

from benchmark.base.errors import RecordError

VERSION = 1
STOPPED = ("failed", "timeout", "out of memory", "diverged")
"""Ends of a run that came before its budget's, the most urgent to look at first."""

FINISHED = ("done", *STOPPED)
SUMS = "SHA256SUMS"
"""In each run folder, and above them: what the files were when they were published."""

SEALED = ("suite.yaml", "plan.lock", "corpus.json", f"runs/[!.]*/{SUMS}")
"""What the checksums of a whole results folder cover: all that its report is made from."""

STAGE = ("stage", "stage_id")
"""What an entry of a run's provenance says of its stage, beside what that was made with."""

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

Event = dict[str, Any]
"""One record; always with "v" and "kind"."""


class EventLog:
    """The open `events.jsonl` of one run; usable as a context manager.

    Opening removes a torn last line, so that the next record starts on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("ab")
        complete = path.read_bytes().rfind(b"\n") + 1
        if complete < self.offset:
            self.truncate_to(complete)

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self._file.seek(0, os.SEEK_END)

    def append(self, kind: str, /, **fields: object) -> None:
        """Write one record, for every reader to see; it is safe from a power cut after `sync`."""
        self._file.write(_line({"v": VERSION, "kind": kind, **fields}))
        self._file.flush()

    def sync(self) -> int:
        """Wait until every record is on disk; the position to come back to with `truncate_to`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.offset

    def truncate_to(self, offset: int) -> None:
        """Forget every record after `offset`, as a run that resumes from a checkpoint must.

        Raises:
            RecordError: `offset` is not the end of a record of this log.
        """
        if not self._ends_record(offset):
            raise RecordError(
                f"{self.path}: cannot truncate to byte {offset} of {self.offset}: not the end of "
                "a record, so the log and the checkpoint belong to different runs"
            )
        self._file.truncate(offset)
        self.sync()

    def close(self) -> None:
        """Close the file; the log cannot be appended to afterwards."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ends_record(self, offset: int) -> bool:
        if not 0 <= offset <= self.offset:
            return False
        with self.path.open("rb") as file:
            file.seek(max(offset - 1, 0))
            return offset == 0 or file.read(1) == b"\n"


def read_events(path: Path) -> list[Event]:
    """All records of a log, oldest first; a last line without its line break is left out.

    Raises:
        RecordError: the file is missing or a complete line is not a record of this version.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


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

    @property
    def status(self) -> str:
        """One of `FINISHED`, unfinished and missing."""
        if not self.events:
            return "missing"
        last = self.events[-1]
        return str(last["status"]) if last["kind"] == "end" else "unfinished"

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
    """A results folder: its plan, one record per planned run, and folders outside the plan."""

    name: str
    version: str
    purpose: str
    watermark: str | None
    runs: tuple[RunRecord, ...]
    unplanned: tuple[str, ...]


def load_run(folder: Path) -> RunRecord:
    """The record in a run folder, named after the run's id.

    Raises:
        RecordError: a file is missing or damaged, or the folder holds another run.
    """
    events = read_events(folder / "events.jsonl")
    if not events or events[0]["kind"] != "run" or events[0]["run_id"] != folder.name:
        raise RecordError(f"{folder}: the first record must be the run record of {folder.name}")
    first = events[0]
    if events[-1]["kind"] == "end" and events[-1]["status"] not in FINISHED:
        raise RecordError(f"{folder}: end.status is {events[-1]['status']!r}, allowed: {FINISHED}")
    return RunRecord(
        run_id=folder.name,
        method=first["method"],
        role=first["role"],
        seed=first["seed"],
        events=tuple(events),
        config=_load_yaml(folder / "config.yaml"),
        provenance=_load_provenance(folder / "provenance.json"),
    )


def load_suite(results_dir: Path) -> Suite:
    """Everything under `results/<suite>`: planned runs in display order, whatever became of them.

    Raises:
        RecordError: a record is damaged, or contradicts the plan in `suite.yaml`.
    """
    plan = _load_yaml(results_dir / "suite.yaml")
    absent = {"name", "version", "purpose", "watermark", "runs"} - plan.keys()
    if absent:
        raise RecordError(f"{results_dir / 'suite.yaml'}: no {', '.join(sorted(absent))}")
    runs = tuple(_planned_run(results_dir, plan, planned) for planned in plan["runs"])
    known = {run.run_id for run in runs}
    if len(known) < len(runs) or len({(run.method, run.seed) for run in runs}) < len(runs):
        raise RecordError(f"{results_dir / 'suite.yaml'}: plans the same run twice")
    folders = {path.name for path in (results_dir / "runs").glob("[!.]*") if path.is_dir()}
    return Suite(
        name=plan["name"],
        version=str(plan["version"]),
        purpose=plan["purpose"],
        watermark=plan["watermark"],
        runs=runs,
        unplanned=tuple(sorted(folders - known)),
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


def write_run(
    folder: Path,
    events: Iterable[Event],
    config: Mapping[str, Any],
    provenance: Iterable[Mapping[str, Any]],
    card: Mapping[str, Any] | None = None,
) -> None:
    """Publish a run folder: readers see the old one or the whole new one, never a part."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".publish-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        atomic_write(fresh / "events.jsonl", b"".join(map(_line, events)))
        atomic_write_text(fresh / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        atomic_write_text(fresh / "provenance.json", _pretty(grouped(provenance)))
        if card is not None:
            atomic_write_text(fresh / "card.json", card_text(card))
        atomic_write_text(fresh / SUMS, checksums(fresh))
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)


def card_text(card: Mapping[str, Any]) -> str:
    """The content of card.json."""
    return _pretty(card)


def checksums(folder: Path) -> str:
    """A line with SHA-256 and name for every file of a run folder, as `sha256sum -c` reads it."""
    return _sums({path.name: path for path in sorted(folder.iterdir())
                  if path.name != SUMS and path.is_file()})  # fmt: skip


def _sums(files: Mapping[str, Path]) -> str:
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def seal(results_dir: Path) -> None:
    """Write the checksums of a results folder, whose own SHA-256 vouches for every run."""
    atomic_write_text(results_dir / SUMS, folder_checksums(results_dir))


def folder_checksums(results_dir: Path) -> str:
    """A line with SHA-256 and name for each file of `SEALED`, as `sha256sum -c` reads it."""
    paths = [path for pattern in SEALED for path in sorted(results_dir.glob(pattern))]
    names = {path.relative_to(results_dir).as_posix(): path for path in paths}
    return _sums(names)


def flatten(value: object, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested mapping; lists and empty mappings are values."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, dict):
            leaves |= flatten(item, name)
        else:
            leaves[name] = item
    return leaves


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8); see `atomic_write`."""
    atomic_write(path, text.encode())


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file: a reader, or a kill, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".write-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads what `yaml.safe_dump` writes; to other readers the run id 2045391731138e07 is a number."""


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=_YamlLoader)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def _pretty(content: object) -> str:
    return json.dumps(_encoded(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _load_provenance(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path}: not JSON: {error}") from error
    try:
        entries = [stage | group for group in content for stage in group.pop("stages")]
    except (TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path}: expected a list of objects that name their stages") from error
    return sorted(entries, key=lambda entry: int(entry.get("stage", 0)))


def _made_with(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in STAGE}


def _planned_run(results_dir: Path, plan: Event, planned: Event) -> RunRecord:
    folder = results_dir / "runs" / planned["run_id"]
    if not folder.is_dir():
        return RunRecord(**planned, config={}, provenance=[])
    run = load_run(folder)
    found = run.events[0] | {"suite_version": str(run.events[0]["suite_version"])}
    expected = planned | {"suite": plan["name"], "suite_version": str(plan["version"])}
    for key, value in expected.items():
        if found[key] != value:
            raise RecordError(f"{folder}: {key} is {found[key]!r}, the plan says {value!r}")
    return run


def _parse(path: Path, number: int, line: bytes) -> Event:
    try:
        event = _JSON.decode(line.decode())
    except ValueError as error:
        raise RecordError(f"{path}, line {number}: damaged record: {error}") from error
    if not isinstance(event, dict) or event.get("v") != VERSION or "kind" not in event:
        raise RecordError(f"{path}, line {number}: not a record of version {VERSION}")
    if b'"nan"' in line or b'inf"' in line:
        return {key: _decoded(value) for key, value in event.items()}
    return event


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _line(event: Event) -> bytes:
    return json.dumps(_encoded(event), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _encoded(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(item) for item in value]
    return value


def _decoded(value: object) -> object:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
