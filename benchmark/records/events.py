"""Events: one JSON object per line, only ever appended while a stage is under way.

A record is handed to the system before `append` returns, so a kill loses at most the line being
written; `sync` guards against a power cut. JSON has no NaN and no infinity: they are written as the
strings "nan", "inf" and "-inf" and come back as floats.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from benchmark.base.errors import RecordError

VERSION = 1
STOPPED = ("failed", "timeout", "out of memory", "diverged")
"""Ends of a run that came before its budget's, the most urgent to look at first."""

FINISHED = ("done", *STOPPED)
ABSENT = ("missing", "unfinished")
"""A run of this status has no result yet; every other status is one."""

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
        self._file.write(encode([{"v": VERSION, "kind": kind, **fields}]))
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
        kept = self.path.read_bytes()[:offset]
        if len(kept) != offset or (kept and not kept.endswith(b"\n")):
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


def read_events(path: Path) -> list[Event]:
    """All records of a log, oldest first; a last line without its line break is left out.

    Raises:
        RecordError: the file is missing or a complete line is not a record of this version.
    """
    return decode(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error


def encode(events: Iterable[Event]) -> bytes:
    """Records as lines of JSON."""
    lines = (json.dumps(_encoded(e), allow_nan=False, ensure_ascii=False) for e in events)
    return b"".join(line.encode() + b"\n" for line in lines)


def decode(lines: bytes, path: Path) -> list[Event]:
    """Records from lines of JSON; a last line without its line break is left out.

    Raises:
        RecordError: a complete line is not a record of this version; the message names `path`.
    """
    *complete, _torn = lines.split(b"\n")
    return [_parse(path, number, line) for number, line in enumerate(complete, start=1)]


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


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of whatever differs between nested mappings, by dotted key."""
    was, now = flatten(old), flatten(new)
    both = {key: (was.get(key), now.get(key)) for key in {**was, **now}}
    return {key: (before, after) for key, (before, after) in both.items() if before != after}


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
