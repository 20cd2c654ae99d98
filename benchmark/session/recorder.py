"""Writes what the runs of a suite leave behind, put together from the records of their stages.

Meanwhile no other command works in the folder.
"""

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from benchmark.base.errors import RecordError
from benchmark.base.paths import display_path
from benchmark.data.tripwires import tripwires
from benchmark.executors.track import Failure, Track
from benchmark.plan.config import SuiteConfig
from benchmark.plan.own_schedule import train_bytes
from benchmark.plan.run import Run
from benchmark.records.card import card
from benchmark.records.events import VERSION, Event, atomic_write_text, read_events
from benchmark.records.folder import SUITE, RunRecord, write_run
from benchmark.stage.checkpoint import StageStore
from benchmark.training.memory import PROCESS, STAGE


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Writes the results folder of a suite."""

    suite: SuiteConfig
    data: Mapping[str, Any]
    """Name, SHA-256 and lengths of the corpus (`Corpus.lengths`)."""

    results: Path
    cache: Path

    def write_suite(self, runs: Iterable[Run], published: Collection[str]) -> None:
        """Write what is planned; those runs that are published elsewhere are marked."""
        told = ("name", "version", "purpose", "watermark")
        plan: dict[str, Any] = {key: getattr(self.suite, key) for key in told}
        plan["runs"] = [
            {"run_id": run.id, "method": run.method.name, "role": run.method.role, "seed": run.seed}
            for run in runs
        ]
        plan |= {"published": sorted(published)} if published else {}
        atomic_write_text(self.results / SUITE, yaml.safe_dump(plan, sort_keys=False))

    def write_corpus(self) -> None:
        """Tell what the held-out text has in common with what is trained on."""
        found = tripwires(self.suite.workload.corpus, self.cache / "corpora")
        atomic_write_text(self.results / "corpus.json", json.dumps(found, indent=2) + "\n")

    def write_run(self, track: Track) -> None:
        """Write the records of a run that has ended; one whose card has a gap has failed."""
        record = self.record(track)
        try:
            card(record)
        except RecordError as error:
            track.fail(Failure("failed", str(error)))
            record = self.record(track)
        write_run(self.results, record.events, record.config, record.provenance)

    def record(self, track: Track) -> RunRecord:
        """What is known of a run, from the records of its stages."""
        events, provenance = list(self._events(track)), list(self._provenance(track))
        return RunRecord.from_events(events, track.run.config(), provenance)

    def _provenance(self, track: Track) -> Iterator[dict[str, Any]]:
        """What each stage was made with, that at which a run failed included."""
        store = StageStore(self.cache)
        logs = [store.folder(spec.id) / "events.jsonl" for spec, _ in track.done]
        if track.failed_at is not None:
            logs.append(store.folder(track.failed_at.id) / "progress.jsonl")
        for stage, log in enumerate(logs):
            for event in read_events(log) if log.is_file() else ():
                if event["kind"] == "provenance":
                    yield {"stage": stage, "stage_id": event["stage_id"], **event["made_with"]}

    def _events(self, track: Track) -> Iterator[Event]:
        run = track.run
        yield _event(
            "run",
            run_id=run.id,
            suite=self.suite.name,
            suite_version=self.suite.version,
            method=run.method.name,
            role=run.method.role,
            seed=run.seed,
            budget_flops=run.budget,
            train_bytes=self.data["train"],
            val_bytes=self.data["val"],
            test_bytes=self.data["test"],
            **{key: self.data[key] for key in ("train_tokens",) if key in self.data},
            own_train_bytes=sum(map(train_bytes, run.own_corpora)),
            corpus=self.data["corpus"],
            corpus_sha256=self.data["sha256"],
        )
        store = StageStore(self.cache)
        for stage, (spec, _) in enumerate(track.done):
            for event in read_events(store.folder(spec.id) / "events.jsonl"):
                if event["kind"] != "provenance":
                    yield event | {"stage": stage}
        results = [result for _, result in track.done]
        scopes = {result.peak_memory_scope for result in results}
        end = asdict(track.position)
        end.pop("window")
        yield _event(
            "end",
            status=track.status,
            error=track.error,
            peak_memory_bytes=max((result.peak_memory_bytes for result in results), default=0),
            peak_memory_scope=PROCESS if PROCESS in scopes else STAGE,
            **end,
        )


def _event(kind: str, **fields: object) -> Event:
    return {"v": VERSION, "kind": kind, **fields}


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
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise RecordError(
            f"{display_path(folder)}: another growbench command is working here; wait for it, "
            "or set run.results to another folder"
        ) from error
    with held:
        yield
