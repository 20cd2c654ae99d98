"""One command at work on one results folder: plan, execute, publish every run."""

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from benchmark.base.digest import science
from benchmark.base.errors import ConfigError, RecordError
from benchmark.base.paths import display_path
from benchmark.data.corpora import Corpus, load
from benchmark.data.stream import ByteStream
from benchmark.data.tripwires import tripwires
from benchmark.executors.executor import Executor, Limits
from benchmark.executors.local import LocalExecutor, visible_gpus
from benchmark.executors.track import Failure, Track
from benchmark.model.compiled import require_compiler
from benchmark.plan import tuning
from benchmark.plan.config import SuiteConfig
from benchmark.plan.run import Run
from benchmark.plan.spec import device
from benchmark.plan.suite import plan
from benchmark.records.card import card
from benchmark.records.events import VERSION, Event, atomic_write_text, read_events
from benchmark.records.folder import RunRecord, write_run
from benchmark.records.lock import hold, plan_of
from benchmark.session.mirror import Mirror
from benchmark.session.selection import chosen
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context
from benchmark.training.memory import PROCESS, STAGE

OnChange = Callable[[list[Track]], None]
"""Called a few times a second with all runs as they are now."""


class Session:
    """A suite, its corpus and its runs, ready to plan or to execute."""

    def __init__(self, suite: SuiteConfig) -> None:
        self.suite = suite
        self.cache = Path(suite.run.cache).expanduser()
        self.results = Path(suite.run.results).expanduser() / suite.name
        self.device = device(suite.run.device)
        if suite.run.compile:
            require_compiler()
        self.corpus: Corpus = load(suite.workload.corpus, self.cache / "corpora")
        splits = {name: len(getattr(self.corpus, name)) for name in ("train", "val", "test")}
        self.data = {"corpus": self.corpus.name, "sha256": self.corpus.sha256, **splits}
        stream = ByteStream(
            text=self.corpus.train,
            seq_len=suite.workload.target.seq_len,
            batch_size=suite.workload.batch_size,
            seed=0,
        )
        runs = plan(suite, self.data, stream.tokens_per_epoch)
        self._check_alphabet(runs)
        self.runs = chosen(runs, StageStore(self.cache))

    def _check_alphabet(self, runs: list[Run]) -> None:
        """Refuse a vocabulary without some byte of the corpus."""
        splits = (self.corpus.train, self.corpus.val, self.corpus.test)
        largest = max(int(split.max()) for split in splits)
        smallest = min(sizes.vocab_size for run in runs for sizes in run.rungs)
        if smallest <= largest:
            raise ConfigError(
                f"workload.target.vocab_size must be above {largest}, the largest byte of corpus "
                f"{self.corpus.name}; got {smallest}"
            )

    @property
    def workers(self) -> int:
        """Parallel stages on this machine: as configured, else as many as cores or GPUs allow."""
        if self.suite.run.workers:
            return self.suite.run.workers
        n_cores = os.cpu_count() or 1
        is_cuda = self.device == "cuda"
        return len(self.gpus) if is_cuda else max(1, n_cores // self.suite.run.devices)

    @property
    def gpus(self) -> list[str]:
        """GPUs of this machine to train on, those of one run together: "0,1".

        Raises:
            ConfigError: there are fewer than one run is to have.
        """
        found, n = visible_gpus() if self.device == "cuda" else [], self.suite.run.devices
        if 0 < len(found) < n:
            raise ConfigError(f"run.devices is {n}, but only {len(found)} GPUs are here")
        return [",".join(found[i : i + n]) for i in range(0, len(found) - n + 1, n)]

    def execute(self, on_change: OnChange) -> list[Track]:
        """Train whatever is not trained yet; the results folder is locked meanwhile.

        Raises:
            RecordError: another command works on the same folder, it cannot be written, or it holds
            the plan of another comparison.
        """
        make_folder(self.cache, "run.cache")
        with self._mirrored(on_change) as mirrored, locked(self.results):
            configs = [run.config() for run in self.runs]
            hold(self.results, plan_of(configs, self.data, science()))
            self._write_suite()
            self._write_corpus()
            tracks = self._run(self._executor(), mirrored)
            mirrored(tracks)
            return tracks

    def _executor(self) -> Executor[Any]:
        """What runs the stages.

        Raises:
            ConfigError: Ray is asked for, and not installed.
        """
        execution = self.suite.run
        context = Context(
            corpus=self.suite.workload.corpus,
            cache=self.cache,
            checkpoint_seconds=execution.checkpoint_seconds,
        )
        limits = Limits(
            retries=execution.retries,
            timeout=execution.timeout_seconds or math.inf,
            cache_bytes=execution.cache_gigabytes * 1e9,
        )
        if execution.executor == "local":
            return LocalExecutor(context, self.workers, limits, gpus=self.gpus)
        try:
            from benchmark.executors.cluster import Place, RayExecutor  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                f"run.executor is ray, but it is not installed ({error}): "
                "pip install 'growbench[ray]'"
            ) from error
        place = Place(
            address=execution.address,
            cpus=execution.devices,
            gpus=execution.devices if self.device == "cuda" else 0,
            workers=execution.workers,
            node_cache=Path(execution.node_cache).expanduser() if execution.node_cache else None,
        )
        return RayExecutor(context, limits, place=place)

    @contextmanager
    def _mirrored(self, on_change: OnChange) -> Iterator[OnChange]:
        """`on_change`, with the records copied to a logger first if one is asked for."""
        logger = self.suite.run.logger
        if logger == "none":
            yield on_change
            return
        mirror = Mirror(logger, self.cache / "logs" / self.suite.name, StageStore(self.cache))

        def update(tracks: list[Track]) -> None:
            mirror.update(tracks)
            on_change(tracks)

        try:
            yield update
        finally:
            mirror.close()

    def _run(self, executor: Executor[Any], on_change: OnChange) -> list[Track]:
        """All runs whose settings are known, and then those whose settings these have chosen."""
        is_open = {run.id for run in self.runs if tuning.is_open(run.method)}
        known = [run for run in self.runs if run.id not in is_open]
        later = [Track(run, waiting_for=run.next_stage([])) for run in self.runs
                 if run.id in is_open]  # fmt: skip
        tracks = executor.run(known, lambda now: on_change([*now, *later]), self._publish)
        if not later:
            return tracks
        failed = {track.run.id for track in tracks if track.failure is not None}
        self.runs = chosen(self.runs, executor.store, failed)
        self._write_suite()
        ended = {track.run.id for track in tracks}
        rest = [run for run in self.runs if run.id not in ended]
        tracks += executor.run(rest, lambda now: on_change([*tracks, *now]), self._publish)
        return tracks

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

    def _write_corpus(self) -> None:
        """Tell what the held-out text has in common with what is trained on."""
        found = tripwires(self.suite.workload.corpus, self.cache / "corpora")
        atomic_write_text(self.results / "corpus.json", json.dumps(found, indent=2) + "\n")

    def _publish(self, track: Track) -> None:
        """Write the records of a run that has ended; one whose card has a gap has failed."""
        record = self._record(track)
        try:
            card(record)
        except RecordError as error:
            track.fail(Failure("failed", str(error)))
            record = self._record(track)
        write_run(self.results, record.events, record.config, record.provenance)

    def _record(self, track: Track) -> RunRecord:
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
            corpus=self.corpus.name,
            corpus_sha256=self.corpus.sha256,
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
            f"{display_path(folder)}: another growbench command is working here; wait for it, "
            "or set run.results to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def failures(tracks: list[Track]) -> Counter[str]:
    """How many runs ended in which way."""
    return Counter(track.status for track in tracks)
