"""One command at work on one results folder: plan, execute, record every run."""

import math
import os
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.base.digest import science
from benchmark.base.errors import ConfigError
from benchmark.data.corpora import Corpus, load
from benchmark.executors.executor import Executor
from benchmark.executors.local import LocalExecutor, visible_gpus
from benchmark.executors.track import Track
from benchmark.model.compiled import require_compiler
from benchmark.plan import tuning
from benchmark.plan.config import SuiteConfig, is_compiled
from benchmark.plan.run import Run
from benchmark.plan.spec import device
from benchmark.plan.suite import plan
from benchmark.records.folder import RunRecord, load_runs, run_ids, write_run
from benchmark.records.lock import FILE as LOCK
from benchmark.records.lock import hold, plan_of, read, unlike
from benchmark.session.recorder import Recorder, locked, make_folder
from benchmark.session.selection import scored, settle, val_bpb
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context

REUSABLE = ("done", "diverged")
"""Ends that the same run would come to again; one that failed may have met with an accident."""

OnChange = Callable[[list[Track]], None]
"""Called a few times a second with all runs as they are now."""


class Session:
    """A suite, its corpus and its runs, ready to plan or to execute."""

    def __init__(self, suite: SuiteConfig) -> None:
        self.suite = suite
        self.cache = Path(suite.run.cache).expanduser()
        self.results = Path(suite.run.results).expanduser() / suite.name
        self.device = device(suite.run.device)
        if is_compiled(suite.run.compile, self.device):
            require_compiler(self.device)
        self.corpus: Corpus = load(suite.workload.corpus, self.cache / "corpora")
        self.data: dict[str, Any] = {"corpus": self.corpus.name, "sha256": self.corpus.sha256}
        self.data |= self.corpus.lengths()
        runs = plan(suite, self.data)
        self._check_alphabet(runs)
        self.published = self._published(runs)
        self.runs = self._settled(runs)

    @property
    def recorder(self) -> Recorder:
        """What writes the results folder."""
        return Recorder(suite=self.suite, data=self.data, results=self.results, cache=self.cache)

    def _check_alphabet(self, runs: list[Run]) -> None:
        """Refuse a vocabulary without some byte or token of the corpus."""
        largest, what = self.corpus.largest()
        if own := [corpus for run in runs for corpus in run.own_corpora]:
            if "tokens" in {self.suite.workload.corpus.kind, *(corpus.kind for corpus in own)}:
                raise ConfigError(
                    f"stages.corpus {own[0].name}: where a method reads a text of its own, all "
                    "corpora must be of bytes, got kind tokens"
                )
            largest = 255  # a corpus of a method's own may have any byte
        smallest = min(sizes.vocab_size for run in runs for sizes in run.sizes)
        if smallest <= largest:
            raise ConfigError(
                f"workload.target.vocab_size must be above {largest}, the largest {what} of corpus "
                f"{self.corpus.name}; got {smallest}"
            )

    @property
    def workers(self) -> int:
        """Parallel stages on this machine: as configured, else as many as cores or GPUs allow."""
        if self.suite.run.workers:
            return self.suite.run.workers
        return len(self.gpus) if self.device == "cuda" else os.cpu_count() or 1

    @property
    def gpus(self) -> list[str]:
        """GPUs of this machine to train on."""
        return visible_gpus() if self.device == "cuda" else []

    def execute(self, on_change: OnChange) -> list[Track]:
        """Train whatever is not trained yet; the results folder is locked meanwhile.

        Raises:
            RecordError: another command works on the same folder, or it cannot be written.
        """
        make_folder(self.cache, "run.cache")
        with locked(self.results):
            self._write_published()
            self._hold_plan()
            with ThreadPoolExecutor(1) as beside:  # minutes for a gigabyte; an interrupt waits, too
                corpus = beside.submit(self.recorder.write_corpus)
                tracks = self._run(self._executor(), on_change)
                on_change(tracks)
            corpus.result()
            return tracks

    def _hold_plan(self) -> None:
        """Write down what is planned, after the plan that is published, with results or without."""
        planned = plan_of([run.config() for run in self.runs], self.data, science())
        folder = self._published_folder
        if (
            self.suite.run.published
            and (folder / LOCK).is_file()
            and not (self.results / LOCK).is_file()
            and not unlike(read(folder).current, planned)
        ):
            shutil.copyfile(folder / LOCK, self.results / LOCK)
        hold(self.results, planned)

    def _write_published(self) -> None:
        """Write what is planned, and the records of those runs that are published."""
        known = [run for run in self.runs if run.id in self.published]
        for run in known:
            record = self.published[run.id]
            write_run(self.results, record.events, run.config(), record.provenance)
        self.recorder.write_suite(self.runs, [run.id for run in known])

    def _run(self, executor: Executor, on_change: OnChange) -> list[Track]:
        """All runs whose settings are known, and then those whose settings these have chosen."""
        known = [run for run in self.runs if not tuning.is_open(run.method)]
        later = [Track(run, waiting_for=run.next_stage([])) for run in self.runs
                 if tuning.is_open(run.method)]  # fmt: skip
        tracks = self._train(known, executor, lambda now: on_change([*now, *later]))
        if not later:
            return tracks
        failed = {track.run.id for track in tracks if track.failure is not None}
        self.runs = self._settled(self.runs, failed)
        self._write_published()
        ended = {track.run.id for track in tracks}
        rest = [run for run in self.runs if run.id not in ended]
        return tracks + self._train(rest, executor, lambda now: on_change([*tracks, *now]))

    def _train(self, runs: list[Run], executor: Executor, on_change: OnChange) -> list[Track]:
        """Runs as they end; none that is published is trained."""
        before = [Track(run, record=self.published[run.id]) for run in runs
                  if run.id in self.published]  # fmt: skip
        rest = [run for run in runs if run.id not in self.published]
        return before + executor.run(
            rest, lambda now: on_change([*before, *now]), self.recorder.write_run
        )

    @property
    def _published_folder(self) -> Path:
        return Path(self.suite.run.published).expanduser() / self.suite.name

    def _published(self, runs: list[Run]) -> dict[str, RunRecord]:
        """Records of those runs that came to an end where results are published, by id."""
        folder = self._published_folder
        if not self.suite.run.published or folder.resolve() == self.results.resolve():
            return {}
        found = load_runs(folder, run_ids(folder) & {run.id for run in runs})
        return {run.run_id: run for run in found if run.status in REUSABLE}

    def _settled(self, runs: list[Run], failed: Collection[str] = ()) -> list[Run]:
        """The runs, at the settings that their trials have chosen, if all have ended."""
        store = StageStore(self.cache)

        def score(run: Run) -> float | None:
            if run.id in failed:
                return math.inf
            record = self.published.get(run.id)
            return val_bpb(run, store) if record is None else scored(record.events)

        settled = settle(runs, score)
        self.published |= self._published([run for run in settled if run not in runs])
        return settled

    def _executor(self) -> Executor:
        """What runs the stages."""
        settings = self.suite.run
        context = Context(
            corpus=self.suite.workload.corpus,
            cache=self.cache,
            checkpoint_seconds=settings.checkpoint_seconds,
        )
        if settings.executor == "local":
            n_sharing = math.ceil(self.workers / len(self.gpus)) if self.gpus else 1
            context = replace(context, n_sharing=n_sharing)
            return LocalExecutor(context, settings, self.workers, gpus=self.gpus)
        try:
            from benchmark.executors.cluster import RayExecutor  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                f"run.executor is ray, but it is not installed ({error}): "
                "pip install 'growbench[ray]'"
            ) from error
        return RayExecutor(context, settings, n_gpus=int(self.device == "cuda"))
