"""One command at work on one results folder: plan, execute, publish every run."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from benchmark.checkpoint import StageStore
from benchmark.config import SuiteConfig
from benchmark.data.corpora import Corpus, load
from benchmark.data.download import shown
from benchmark.data.stream import ByteStream
from benchmark.errors import ConfigError, RecordError
from benchmark.executors.local import LocalExecutor, Track
from benchmark.plan import plan
from benchmark.provenance import provenance
from benchmark.records import VERSION, Event, atomic_write_text, read_events, write_run
from benchmark.runner import Context


class Session:
    """A suite, its corpus and its runs, ready to plan or to execute."""

    def __init__(self, suite: SuiteConfig) -> None:
        self.suite = suite
        self.cache = Path(suite.run.cache)
        self.results = Path(suite.run.results) / suite.name
        self.device = device(suite.run.device)
        self.corpus: Corpus = load(suite.workload.corpus, self.cache / "corpora")
        splits = {name: len(getattr(self.corpus, name)) for name in ("train", "val", "test")}
        self.data = {"corpus": self.corpus.name, "sha256": self.corpus.sha256, **splits}
        stream = ByteStream(
            text=self.corpus.train,
            seq_len=suite.workload.target.seq_len,
            batch_size=suite.workload.batch_size,
            seed=0,
        )
        self.runs = plan(suite, self.data, stream.tokens_per_epoch)

    @property
    def workers(self) -> int:
        """Parallel stages: as configured, else one per core, or one on a GPU."""
        if self.suite.run.workers:
            return self.suite.run.workers
        return 1 if self.device == "cuda" else (os.cpu_count() or 1)

    def execute(self, on_change: Callable[[list[Track]], None]) -> list[Track]:
        """Train whatever is not trained yet; the results folder is locked meanwhile.

        Raises:
            RecordError: another command works on the same folder, or it cannot be written.
        """
        make_folder(self.cache, "run.cache")
        with locked(self.results):
            self._write_suite()
            context = Context(
                corpus=self.suite.workload.corpus,
                cache=self.cache,
                device=self.device,
                checkpoint_seconds=self.suite.run.checkpoint_seconds,
            )
            executor = LocalExecutor(context, self.workers, self.suite.run.retries)
            self.provenance = provenance(
                device=self.device.partition(":")[0],
                precision=self.suite.protocol.precision,
                threads=1,
                deterministic=True,
                gpu=torch.cuda.get_device_name() if self.device.startswith("cuda") else None,
                driver=torch.version.cuda if self.device.startswith("cuda") else None,
            )
            return executor.run(self.runs, on_change, self._publish)

    def _write_suite(self) -> None:
        suite = self.suite
        plan_of_runs = [
            {"run_id": run.id, "method": run.method.name, "role": run.method.role, "seed": run.seed}
            for run in self.runs
        ]
        header = {
            "name": suite.name,
            "version": suite.version,
            "purpose": suite.purpose,
            "watermark": suite.watermark,
            "runs": plan_of_runs,
        }
        atomic_write_text(self.results / "suite.yaml", yaml.safe_dump(header, sort_keys=False))

    def _publish(self, track: Track) -> None:
        """Write the folder of a run that has ended, from the records of its stages."""
        run = track.run
        write_run(
            self.results / "runs" / run.id,
            events=self._events(track),
            config=run.config(),
            provenance=self._provenance(track),
        )

    def _provenance(self, track: Track) -> dict[str, Any]:
        """Of the command that finished the run, which may be an earlier one."""
        if track.status == "failed":
            return self.provenance
        path = StageStore(self.cache).folder(track.done[-1][0].id) / "provenance.json"
        if not path.is_file():
            atomic_write_text(path, json.dumps(self.provenance))
        return json.loads(path.read_text())

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
            corpus=self.corpus.name,
        )
        store = StageStore(self.cache)
        for stage, (spec, _) in enumerate(track.done):
            for event in read_events(store.folder(spec.id) / "events.jsonl"):
                yield event | {"stage": stage}
        peak = max((result.peak_memory_bytes for _, result in track.done), default=0)
        error = track.error or (track.done[-1][1].error if track.done else None)
        end = asdict(track.position)
        end.pop("window")
        yield _event("end", status=track.status, error=error, peak_memory_bytes=peak, **end)


def _event(kind: str, **fields: object) -> Event:
    return {"v": VERSION, "kind": kind, **fields}


def device(asked: str) -> str:
    """Where stages run: "cpu" or "cuda".

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise ConfigError("run.device is cuda, but there is no GPU; allowed here: auto, cpu")
    return asked if asked != "auto" else "cuda" if has_gpu else "cpu"


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
            f"{shown(folder)} ({key}): cannot be written: {error.strerror}; set {key} to a folder "
            "that can"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the results folder alone.

    Raises:
        RecordError: somebody else holds it, or it cannot be written.
    """
    make_folder(folder, "run.results")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RecordError(
            f"{shown(folder)}: another growbench command is working here; wait for it, or set "
            "run.results to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def failures(tracks: list[Track]) -> Counter[str]:
    """How many runs ended in which way."""
    return Counter(track.status for track in tracks)
